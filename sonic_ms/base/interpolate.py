"""Double the frame rate: a frame half way between every two, as a stream that holds two frames at a time."""


def interpolate(frames, middle):
    """Yield F frames and the F - 1 between them, in order; frames are (3, H, W) float32 in 0..1.

    middle(first, second) takes and returns batches of one, (1, 3, H, W).
    """
    before = None
    for frame in frames:
        if before is not None:
            yield middle(before[None], frame[None])[0]
        yield frame
        before = frame
