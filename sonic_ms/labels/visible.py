"""The visible label of GB 45438-2025, 5.4: text in a corner, at least 5 % of the frame's short side high, never over a
face. It is shown the whole time, of which the standard asks for the first two seconds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from sonic_ms.errors import UsageError
from sonic_ms.media.video import decode_frames, frame_rate, require_picture

TEXTS = {"zh": "AI生成", "en": "AI-generated"}  # an element for AI and one for generation
CORNERS = ("bottom-right", "bottom-left", "top-right", "top-left")
HEIGHT = 0.055  # of the ink of a capital, of the short side; the standard asks for 0.05
PADDING = 0.02  # around the ink, and from the frame's border, of the short side
PLATE = 0.6  # how dark the plate behind the text makes the picture
FONT = Path(__file__).parent / "font" / "label.otf"  # Noto Sans CJK SC Bold, the glyphs of TEXTS alone; OFL beside it
FACE = 1.25  # the face moves in an ellipse so many times the size of that in its box
SHOWN = 2.0  # seconds from the start that the standard asks for
LIKE = 0.7  # correlation with our drawing from which a label counts as seen
STRAY = 4  # pixels by which it may be elsewhere, after the video was scaled

Box = tuple[float, float, float, float]  # x, y, width, height in pixels of the frame


@cache
def plate(short: int, language: str) -> np.ndarray:
    """The text with its plate for frames of a short side, float32 (h, w): 0 plate, 1 ink."""
    from PIL import Image, ImageDraw, ImageFont

    text, font = TEXTS[language], ImageFont.truetype(str(FONT), 100)
    top, bottom = font.getbbox("A")[1::2]
    # grow until the capital's ink is as high as it has to be: outlines are rounded to pixels
    size = max(8, int(HEIGHT * short / (bottom - top) * 100))
    while (box := (font := ImageFont.truetype(str(FONT), size)).getbbox("A"))[3] - box[1] < HEIGHT * short:
        size += 1
    left, top, right, bottom = font.getbbox(text)
    padding = max(2, round(PADDING * short))
    image = Image.new("L", (round(right - left) + 2 * padding, round(bottom - top) + 2 * padding))
    ImageDraw.Draw(image).text((padding - left, padding - top), text, fill=255, font=font)
    return np.asarray(image, np.float32) / 255


def corner_place(size: tuple[int, int], shape: tuple[int, ...], corner: str) -> tuple[int, int]:
    """(x, y) of a plate (h, w) in a corner of a frame of (width, height)."""
    margin = round(PADDING * min(size))
    x = margin if "left" in corner else size[0] - shape[1] - margin
    y = margin if "top" in corner else size[1] - shape[0] - margin
    return x, y


def place(size: tuple[int, int], shape: tuple[int, ...], corner: str, faces: Sequence[Box]) -> tuple[int, int]:
    """(x, y) of the plate in the corner that was asked for, or in the first that no face reaches. Raises UsageError."""
    for one in (corner, *CORNERS):
        x, y = corner_place(size, shape, one)
        if min(x, y) >= 0 and not any(_touches((x, y, shape[1], shape[0]), face) for face in faces):
            return x, y
    raise UsageError(
        f"visible label: no corner of the frame of {size[0]}x{size[1]} is free of the face; give a photo with more "
        "room around it"
    )


def _touches(plate: Box, face: Box) -> bool:
    """Whether a rectangle reaches into the ellipse of a face."""
    middle = (face[0] + face[2] / 2, face[1] + face[3] / 2)
    nearest = [min(max(middle[i], plate[i]), plate[i] + plate[i + 2]) for i in (0, 1)]
    return sum(((nearest[i] - middle[i]) / (FACE * face[i + 2] / 2)) ** 2 for i in (0, 1)) < 1


class VisibleLabel:
    """Function frame -> frame with the label, both uint8 (h, w, 3).

    size: (width, height) of the frames. language: of TEXTS. corner: of CORNERS, where the label goes unless a face is
    there. faces: their boxes. Raises UsageError when no corner is free.
    """

    def __init__(self, size: tuple[int, int], language: str, corner: str, faces: Sequence[Box]) -> None:
        self._ink = plate(min(size), language)[..., None]
        x, y = place(size, self._ink.shape, corner, faces)
        self._part = (slice(y, y + self._ink.shape[0]), slice(x, x + self._ink.shape[1]))

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        frame = frame.copy()
        dark = (1 - PLATE) * frame[self._part]
        frame[self._part] = np.round(dark + self._ink * (255 - dark))
        return frame


def find(path: str | Path) -> tuple[str, str] | None:
    """(language, corner) of the label that a video shows for its first two seconds, or None. Only labels drawn as here
    are seen. Raises InputMissingError, VideoError, ResourceError, EngineError."""
    name = f"video {path}: "
    header = require_picture(path, name)
    rate = frame_rate(header) or 25.0
    seen: set[tuple[str, str]] | None = None
    for number, frame in enumerate(decode_frames(path, header, [], rate, name, passthrough=True)):
        if number >= SHOWN * rate:
            break
        if number % round(rate / 2) == 0:
            shown = _labels(frame.mean(2, dtype=np.float32))
            seen = shown if seen is None else seen & shown
    return min(seen) if seen else None


def _labels(light: np.ndarray) -> set[tuple[str, str]]:
    import cv2

    size, found = (light.shape[1], light.shape[0]), set()
    for language in TEXTS:
        drawn = plate(min(size), language)
        for corner in CORNERS:
            x, y = corner_place(size, drawn.shape, corner)
            part = light[max(0, y - STRAY) : y + drawn.shape[0] + STRAY, max(0, x - STRAY) : x + drawn.shape[1] + STRAY]
            fits = part.shape[0] >= drawn.shape[0] and part.shape[1] >= drawn.shape[1]
            if fits and cv2.matchTemplate(part, drawn, cv2.TM_CCOEFF_NORMED).max() > LIKE:
                found.add((language, corner))
    return found
