"""Latents to frames, a few at a time: the video never exists as a whole in memory."""

import numpy as np


def decode_frames(decoder, latents, chunk=8):
    """Yield frames (3, H, W) float32, about [-1, 1], in order.

    decoder(latents of consecutive frames) -> frames, for any number up to `chunk`. latents (n, 4, h, w), unscaled.
    The decoder mixes the frames of a chunk; chunks do not see each other, as in upstream.
    """
    for start in range(0, len(latents), chunk):
        yield from decoder(np.ascontiguousarray(latents[start : start + chunk], np.float32))


def to_unit(frame):
    """Frame in [-1, 1], as decoded -> 0..1; values outside are clipped."""
    return np.clip(frame * 0.5 + 0.5, 0.0, 1.0)


def to_pixels(frame):
    """Frame (3, H, W) in 0..1 -> (H, W, 3) uint8."""
    return np.rint(frame.transpose(1, 2, 0) * 255).astype(np.uint8)
