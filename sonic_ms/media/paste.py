"""A square that moves, put back into the whole picture."""

from typing import Protocol

import numpy as np

FEATHER = 0.04  # share of the square over which it fades into the frame


class Scene(Protocol):
    """What a generator makes of a photo. frame: the whole picture at output size, uint8 (h, w, 3). box: (x, y, length)
    of the square that is animated, in frame pixels, may reach outside; None when whole pictures are made. exact:
    nothing moves at the square's border, its pixels there are the frame's own."""

    frame: np.ndarray
    box: tuple[int, int, int] | None
    exact: bool


class Paster:
    """Puts made squares back into the whole frame.

    An exact square of the frame's own scale is copied: colours match at its border by construction. Others fade in over
    a soft edge.
    """

    def __init__(self, scene: Scene):
        assert scene.box is not None
        x, y, length = scene.box
        height, width = scene.frame.shape[:2]
        self.frame, self.length, self.exact = scene.frame, length, scene.exact
        self.rows = slice(max(0, y), min(height, y + length))
        self.columns = slice(max(0, x), min(width, x + length))
        self.inner = (
            slice(self.rows.start - y, self.rows.stop - y),
            slice(self.columns.start - x, self.columns.stop - x),
        )
        ramp = np.clip(np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5) / (FEATHER * length), 0, 1)
        self.mask = np.minimum(ramp[:, None], ramp[None, :]).astype(np.float32)[self.inner][..., None]

    def paste(self, square: np.ndarray) -> np.ndarray:
        """square: uint8 (side, side, 3) -> whole frame, uint8 (h, w, 3), a new array."""
        import cv2

        frame = self.frame.copy()
        if square.shape[0] == self.length and self.exact:
            frame[self.rows, self.columns] = square[self.inner]
            return frame
        if square.shape[0] != self.length:
            shrinks = square.shape[0] > self.length
            method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            square = cv2.resize(square, (self.length, self.length), interpolation=method)
        under = frame[self.rows, self.columns]
        frame[self.rows, self.columns] = np.round(under + self.mask * (square[self.inner].astype(np.float32) - under))
        return frame
