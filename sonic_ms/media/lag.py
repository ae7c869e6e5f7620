"""How far a mouth trails its sound. NumPy only."""

import numpy as np

MIN_CORRELATION = 0.3  # below it a recording says too little about the lag
MAX_LAG = 8  # frames searched each way


def lag_scores(opening, envelope, most=MAX_LAG):
    """{lag: correlation} of a mouth's opening with the loudness, for lags of -most..most frames; positive: mouth late.

    opening, envelope: (n,), n > most. Flat stretches correlate with 0.
    """
    scores = {}
    for lag in range(-most, most + 1):
        mouth = opening[max(0, lag) : len(opening) + min(0, lag)]
        sound = envelope[max(0, -lag) : len(envelope) + min(0, -lag)]
        flat = mouth.std() < 1e-9 or sound.std() < 1e-9
        scores[lag] = 0.0 if flat else float(np.corrcoef(mouth, sound)[0, 1])
    return scores


def measure_lag(opening, envelope):
    """(lag, correlation): frames by which the opening trails the loudness, fractional; best of +-MAX_LAG.

    (0, 0) for clips that are too short or too flat to tell.
    """
    if len(opening) < 4 * MAX_LAG or opening.std() < 1e-4 or envelope.std() < 1e-4:
        return 0.0, 0.0
    scores = lag_scores(opening, envelope)
    best = max(scores, key=scores.__getitem__)
    lag = float(best)
    if abs(best) < MAX_LAG:  # vertex of the parabola through the best three
        left, middle, right = (scores[best + side] for side in (-1, 0, 1))
        lag += 0.5 * (left - right) / (left - 2 * middle + right)
    return lag, scores[best]


def is_off(lag, correlation):
    """Whether a measured lag is an error: lips lead the voice by up to a frame in real speech."""
    return correlation >= MIN_CORRELATION and abs(lag) > 1.0
