"""Photos of one colour: black and white, sepia, marble, pencil. What is painted into the mouth takes their tone.

The painter has seen people in colour only, and paints red gums into any face.
"""

from dataclasses import dataclass

import numpy as np

LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601
MOST_COLOUR = 16.0  # levels that a face of one colour leaves its tone by; people in colour leave it by more
PERCENTILE = 99  # of the face's pixels that count
SMOOTHING = 8.0  # levels


@dataclass(frozen=True)
class Tone:
    """colours: float32 (256, 3), what the photo adds to each luma; spread: levels around that which are its own."""

    colours: np.ndarray
    spread: float

    def apply(self, rgb):
        """Pixels uint8 (h, w, 3) in the photo's colours: foreign ones become its own, its own stay as they are."""
        values = rgb.astype(np.float32)
        luma = values @ LUMA
        own = self.colours[np.clip(luma + 0.5, 0, 255).astype(np.uint8)]
        excess = values - luma[..., None] - own
        beyond = np.maximum(np.abs(excess).max(-1, keepdims=True) / self.spread, 1)
        kept = excess / beyond**2  # the further from what the photo has, the less is left: no edge where it begins
        return np.clip(values - excess + kept + 0.5, 0, 255).astype(np.uint8)


def find_tone(photo, points):
    """Tone of a face of one colour, or None for one in colour. photo: uint8 (h, w, 3); points: its mesh (468, 2 or
    more), in pixels."""
    low = np.maximum(np.floor(points[:, :2].min(0)).astype(int), 0)
    high = np.ceil(points[:, :2].max(0)).astype(int)
    pixels = photo[low[1] : high[1], low[0] : high[0]].reshape(-1, 3).astype(np.float32)
    luma = pixels @ LUMA
    colours = _by_luma(luma, pixels - luma[:, None])
    spread = np.percentile(np.abs(pixels - luma[:, None] - colours[luma.astype(np.uint8)]).max(1), PERCENTILE)
    return Tone(colours, float(spread) + 1) if spread <= MOST_COLOUR else None


def _by_luma(luma, colour):
    """Mean colour (256, 3) at every luma, smooth; where there are no pixels that of the nearest, less towards black."""
    levels = np.arange(256)
    kernel = np.exp(-0.5 * ((levels[:, None] - levels) / SMOOTHING) ** 2)
    index = luma.astype(np.uint8)
    count = np.bincount(index, minlength=256)
    sums = np.stack([np.bincount(index, colour[:, channel], 256) for channel in range(3)], 1)
    there = np.flatnonzero(count)
    mean = (kernel @ sums) / np.maximum(kernel @ count, 1e-6)[:, None]
    first, last = there[0], there[-1]
    mean = mean[np.clip(levels, first, last)]
    return (mean * np.minimum(levels / max(first, 1), 1)[:, None]).astype(np.float32)
