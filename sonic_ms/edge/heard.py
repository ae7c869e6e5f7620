"""What the audio encoder hears, and the curves of a mouth that says it. NumPy, float32, 25 frames a second.

The encoder's last layer is a straight line from Whisper's features to a row of HEARD. Two of its columns are no curve
yet: `open` is the opening of the lips in 90th percentiles of the speaker, flattened as every regression is, and
`closure` the logarithm of the odds that lips are pressed together. `curves_of` stretches the one to what real mouths
do and closes the lips where the other says so.
"""

from dataclasses import dataclass

import numpy as np

from sonic_ms.edge.curves import CORNERS, CURVES, JAW, LOWER, OPEN, ROUND, TONGUE, UPPER, WIDTH
from sonic_ms.edge.rig import NARROW, WIDEN
from sonic_ms.nn.sizes import WhisperConfig

HEARD = (*CURVES, "closure")  # columns of the encoder
CLOSURE = HEARD.index("closure")
PERCENTILES = (2, 5, 10, 25, 50, 75, 90, 98)  # of spoken frames
REAL_OPENING = (0.0, 0.0, 0.03, 0.26, 0.56, 0.80, 1.0, 1.35)  # at these, in 90th percentiles: the median of speakers
WIDE = 0.44  # `open` at a speaker's 90th percentile, from his opening in half mouth widths and rig.MAX_GAP
PRESSED = -0.02  # `open` in the middle of p, b, m
RELEASE = 0.4  # share of the opening that the frame on a closure's other side loses


@dataclass(frozen=True)
class AudioEncoderConfig:
    """whisper: sizes of the first layers, whose positions are a window. taps: frames that a row of HEARD is computed
    from. opening: values of the column `open` at PERCENTILES, on speakers it was not fitted on. closure: value of the
    column `closure` from which on its peaks close the lips."""

    whisper: WhisperConfig
    taps: int
    opening: tuple[float, ...]
    closure: float


def curves_of(heard, config):
    """(n, len(HEARD)) -> curves (n, 8): what the mouth does."""
    curves = np.array(heard[:, : len(CURVES)], np.float32)
    curves[:, OPEN] = WIDE * stretch(heard[:, OPEN], config.opening)
    curves[:, JAW] = np.maximum(heard[:, JAW], 0)
    shares = [ROUND, UPPER, LOWER, TONGUE]
    curves[:, shares] = np.clip(heard[:, shares], 0, 1)
    curves[:, CORNERS] = np.clip(heard[:, CORNERS], -1, 1)
    change = heard[:, WIDTH]  # relative, rounding left out
    curves[:, WIDTH] = np.clip(np.where(change > 0, change / WIDEN, change / NARROW), -1.5, 1.5)
    return press(curves, heard[:, CLOSURE], config.closure)


def heard_of(curves, heard, config):
    """The reverse of `curves_of` for jaw, open and width: rows (n, len(HEARD)) that show these curves (n, 8), the other
    columns as in `heard`. Closed lips are the most open of the openings that are shown closed."""
    rows = np.array(heard, np.float32)
    rows[:, JAW] = curves[:, JAW]
    rows[:, OPEN] = np.interp(np.maximum(curves[:, OPEN], 0) / WIDE, REAL_OPENING[1:], config.opening[1:])
    rows[:, WIDTH] = curves[:, WIDTH] * np.where(curves[:, WIDTH] > 0, WIDEN, NARROW)
    return rows


def stretch(opening, quantiles):
    """Openings (n,) -> openings as real mouths have them, in 90th percentiles: rising lines through the quantiles; 0
    below, the last slope above."""
    known, real = np.asarray(quantiles), np.asarray(REAL_OPENING)
    last = (real[-1] - real[-2]) / max(known[-1] - known[-2], 1e-6)
    shown = np.interp(opening, known, real)
    return shown + last * np.clip(opening - known[-1], 0, known[-1] - known[-2])


def press(curves, closure, threshold):
    """Curves (n, 8) with the lips shut for two frames at every peak of `closure` (n,) above the threshold: the peak's,
    and its higher neighbour's. The neighbour on the other side is half open."""
    curves = curves.copy()
    around = np.pad(closure, 1, constant_values=-np.inf)
    before, after = around[:-2], around[2:]
    for i in np.flatnonzero((closure > threshold) & (closure >= before) & (closure >= after)):
        shut, released = (i - 1, i + 1) if before[i] > after[i] else (i + 1, i - 1)
        curves[i, OPEN] = PRESSED
        if 0 <= shut < len(curves):
            curves[shut, OPEN] = min(curves[shut, OPEN], 0.0)
        if 0 <= released < len(curves) and curves[released, OPEN] > 0:
            curves[released, OPEN] *= 1 - RELEASE
    return curves
