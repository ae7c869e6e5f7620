"""The invisible watermark: 32 x 32 cells of a frame grow a little lighter and darker, about once a second.

Each cell follows a sine whose sign is that of `code.pattern`. Over half a period the picture's own light cancels and
the mark does not, so the still parts of a video carry it almost without noise; the detector needs no original.
"""

import numpy as np

from sonic_ms.labels.code import FALSE_ALARM, GRID, false_alarm, pattern, read_pattern
from sonic_ms.media.video import decode_frames, frame_rate, require_picture

PERIOD = 0.96  # seconds of one swing: 24 frames at 25 a second
FLAT, TEXTURED = 0.6, 2.0  # levels of 255 a cell swings to each side, on flat areas and on the most textured
TEXTURE = 6.0  # standard deviation of luma in a cell's quarter, in levels, that counts as most textured
MIDDLE = 8  # stands for no change
MIN_SIDE = 128  # pixels; a cell of 4
MIN_SECONDS = 2.0
SAMPLES = 4  # pixels a cell, each way, that the detector looks at
LOOKED_AT = 60.0  # seconds
LIMIT = 4.0  # levels: what changes more is motion
PHASES = 24  # tried: a cut video may begin anywhere in a swing


def too_little(size, seconds):
    """Why a video cannot carry the mark, or None. size: (width, height)."""
    if min(size) < MIN_SIDE:
        return f"frames of {size[0]}x{size[1]} are too small for a watermark; it needs {MIN_SIDE} pixels each way"
    if seconds < MIN_SECONDS:
        return f"{seconds:.1f} s are too short for a watermark; it needs {MIN_SECONDS:g} s"
    return None


class Marker:
    """Function (frame, its time in seconds) -> marked frame, both uint8 (h, w, 3); made for one video.

    number: of 48 bits. first: the video's first frame, which says where texture hides more; by default the first that
    is marked. A pixel changes by TEXTURED levels at most, so no frame has a PSNR below 42 dB.
    """

    def __init__(self, number, first=None):
        self.number = number
        self._swing = None
        if first is not None:
            self._prepare(first)

    def __call__(self, frame, time):
        import cv2

        if self._swing is None:
            self._prepare(frame)
        # A fixed dither under the rounding: pixels step one by one, never a cell at once. In unsigned bytes around
        # MIDDLE, which OpenCV adds faster as floats.
        swing = float(np.sin(2 * np.pi * time / PERIOD))
        change = cv2.addWeighted(self._swing, swing, self._dither, 1, MIDDLE, dtype=cv2.CV_8U)
        lighter, darker = cv2.subtract(change, MIDDLE), cv2.subtract(MIDDLE, change)
        return cv2.subtract(cv2.add(frame, cv2.merge([lighter] * 3)), cv2.merge([darker] * 3))

    def _prepare(self, frame):
        import cv2

        height, width = frame.shape[:2]
        luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
        window = (max(3, width // GRID // 2), max(3, height // GRID // 2))
        spread = np.sqrt(np.maximum(cv2.blur(luma * luma, window) - cv2.blur(luma, window) ** 2, 0))
        share = cv2.blur(np.minimum(spread / TEXTURE, 1), window)
        signs = np.kron(pattern(self.number), np.ones((4, 4), np.float32))  # then soft over a quarter of a cell
        signs = cv2.resize(signs, (width, height), interpolation=cv2.INTER_LINEAR)
        self._swing = signs * (FLAT + (TEXTURED - FLAT) * share)
        self._dither = np.random.default_rng(0).random((height, width), np.float32) - np.float32(0.5)


def cells_of(path, seconds=LOOKED_AT):
    """(mean light of the cells, float32 (n, 32, 32); frames a second) of the first `seconds` of a video.

    Raises InputMissingError, VideoError, ResourceError, EngineError."""
    name = f"video {path}: "
    header = require_picture(path, name)
    side = GRID * SAMPLES
    rate = frame_rate(header) or 25.0
    found = []
    for frame in decode_frames(path, header, [f"scale={side}:{side}:flags=area"], rate, name, passthrough=True):
        found.append(frame.reshape(GRID, SAMPLES, GRID, SAMPLES * 3).mean((1, 3), dtype=np.float32))
        if len(found) >= seconds * rate:
            break
    return np.array(found, np.float32), rate


def read_mark(cells, rate):
    """(number or None, likeness, log10 of the chance of a false alarm) from what `cells_of` gives."""
    half = max(1, round(PERIOD / 2 * rate))
    if len(cells) <= 2 * half:
        return None, 0.0, 0.0
    change = cells[half:-half] - (cells[: -2 * half] + cells[2 * half :]) / 2
    change = np.clip(change, -LIMIT, LIMIT)
    time = np.arange(len(change), dtype=np.float32) / rate
    swing = np.tensordot(np.exp(-2j * np.pi * time / PERIOD).astype(np.complex64), change, 1) / len(change)
    swing /= np.sqrt((change**2).mean(0)) + 0.2  # cells in motion say little
    best = (None, 0.0)
    for phase in range(PHASES):
        found = read_pattern((swing * np.exp(2j * np.pi * phase / PHASES)).real)
        best = max(best, found, key=lambda one: (one[0] is not None, one[1]))
    number, likeness = best
    chance = false_alarm(likeness, PHASES)
    return (number if chance <= np.log10(FALSE_ALARM) else None), likeness, chance
