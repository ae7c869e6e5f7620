"""Latents to frames, a few at a time: the video never exists as a whole in memory."""

import numpy as np


def decode_frames(decoder, latents, chunk=8, fixed=False):
    """Yield frames (3, H, W) float32, about [-1, 1], in order.

    decoder(latents of consecutive frames) -> frames, for any number up to `chunk`. latents (n, 4, h, w), unscaled.
    The decoder mixes the frames of a chunk; chunks do not see each other, as in upstream. fixed: the decoder takes
    exactly `chunk` frames, as an exported graph does; the last call then begins earlier and its known frames are
    dropped, and a clip shorter than a chunk repeats its last frame. That changes the last frames a little.
    """
    count = len(latents)
    for start in range(0, count, chunk):
        first = max(0, min(start, count - chunk)) if fixed else start
        part = latents[first : start + chunk]
        if fixed and len(part) < chunk:
            part = np.concatenate([part, np.repeat(part[-1:], chunk - len(part), 0)])
        yield from decoder(np.ascontiguousarray(part, np.float32))[start - first : count - first]


def to_unit(frame):
    """Frame in [-1, 1], as decoded -> 0..1; values outside are clipped."""
    return np.clip(frame * 0.5 + 0.5, 0.0, 1.0)


def to_pixels(frame):
    """Frame (3, H, W) in 0..1 -> (H, W, 3) uint8."""
    return np.rint(frame.transpose(1, 2, 0) * 255).astype(np.uint8)
