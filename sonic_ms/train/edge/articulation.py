"""Phoneme times -> articulation curves, by dominance functions.

Scheme of M. M. Cohen and D. W. Massaro, "Modeling coarticulation in synthetic visual speech" (1993): each phoneme
has a target per articulator and a dominance that decays exponentially with the distance in time; the curve is the
average of the targets weighted by dominance. Strong dominance (lips in p, b, m) reaches its target; weak dominance
(lips in k, t) takes the shape of its neighbours.
"""

import numpy as np

from sonic_ms.edge.curves import CURVES
from sonic_ms.media.audio import FPS

_ORDER = ("jaw", "open", "width", "round", "upper", "lower", "corners", "tongue")
assert _ORDER == CURVES

# IPA base symbols -> targets in the order of CURVES, then lip dominance (alpha) and its decay (theta, 1/s).
_SHAPES = {
    "ɑ": ((0.90, 0.95, 0.05, 0.00, 0.10, 0, 0.00, 0.0), 1.3, 16),
    "a": ((0.88, 0.95, 0.15, 0.00, 0.15, 0, 0.05, 0.0), 1.3, 16),
    "æ": ((0.78, 0.85, 0.40, 0.00, 0.25, 0, 0.15, 0.0), 1.2, 16),
    "ʌɐ": ((0.62, 0.70, 0.05, 0.00, 0.10, 0, 0.00, 0.0), 1.1, 16),
    "əɘɤ": ((0.32, 0.40, 0.00, 0.05, 0.05, 0, 0.00, 0.1), 0.7, 18),
    "ɜɚɝ": ((0.36, 0.42, -0.15, 0.35, 0.10, 0, 0.00, 0.2), 1.0, 16),
    "ɛ": ((0.52, 0.62, 0.40, 0.00, 0.20, 0, 0.10, 0.1), 1.1, 16),
    "e": ((0.40, 0.50, 0.50, 0.00, 0.20, 0, 0.15, 0.1), 1.1, 16),
    "ɪ": ((0.26, 0.38, 0.45, 0.00, 0.15, 0, 0.10, 0.2), 0.9, 16),
    "iɨ": ((0.18, 0.32, 0.70, 0.00, 0.20, 0, 0.20, 0.2), 1.1, 16),
    "ɯ": ((0.20, 0.30, 0.20, 0.00, 0.10, 0, 0.00, 0.1), 0.9, 16),
    "ɒɔ": ((0.66, 0.72, -0.35, 0.55, 0.05, 0, -0.05, 0.0), 1.2, 16),
    "o": ((0.46, 0.52, -0.50, 0.75, 0.05, 0, -0.05, 0.0), 1.2, 16),
    "ʊ": ((0.26, 0.34, -0.40, 0.60, 0.05, 0, -0.05, 0.0), 1.1, 16),
    "uʉ": ((0.18, 0.24, -0.65, 0.95, 0.05, 0, -0.05, 0.0), 1.3, 16),
    "yʏ": ((0.16, 0.24, -0.50, 0.90, 0.10, 0, 0.00, 0.1), 1.2, 16),
    "øœ": ((0.36, 0.44, -0.40, 0.70, 0.10, 0, 0.00, 0.1), 1.1, 16),
    "pbm": ((0.10, -0.28, 0.00, 0.05, 0.00, 0, 0.00, 0.0), 6.0, 60),
    "fvɱʋ": ((0.12, 0.04, 0.10, 0.00, 0.30, 1, 0.00, 0.0), 4.0, 45),
    "wʍɥ": ((0.12, 0.14, -0.70, 1.00, 0.00, 0, 0.00, 0.0), 2.4, 26),
    "ʃʒɕʑʂʐ": ((0.10, 0.26, -0.25, 0.65, 0.40, 0, 0.00, 0.1), 1.8, 20),
    "sz": ((0.06, 0.22, 0.30, 0.00, 0.30, 0, 0.05, 0.2), 1.2, 20),
    "tdnɾɳʈɖ": ((0.14, 0.24, 0.15, 0.00, 0.10, 0, 0.00, 0.7), 0.8, 24),
    "lɭʎ": ((0.20, 0.32, 0.15, 0.00, 0.10, 0, 0.00, 0.9), 0.8, 24),
    "θð": ((0.16, 0.28, 0.15, 0.00, 0.15, 0, 0.00, 1.0), 1.1, 24),
    "kɡgŋxhχʁʔqɣɲcɟçɦħr": ((0.20, 0.30, 0.05, 0.00, 0.05, 0, 0.00, 0.1), 0.4, 24),
    "ɹɻʀ": ((0.18, 0.28, -0.25, 0.45, 0.10, 0, 0.00, 0.2), 1.0, 20),
    "j": ((0.16, 0.30, 0.45, 0.00, 0.15, 0, 0.05, 0.2), 0.9, 20),
}
SHAPE_OF = {symbol: shape for symbols, shape in _SHAPES.items() for symbol in symbols}
SILENCE = ((0, -0.04, 0, 0, 0, 0, 0, 0), 2.2, 45)

SHAPES = (SILENCE, *_SHAPES.values())  # of the classes of phonemes: silence, then those of the table
CLASS_OF = {symbol: i for i, symbols in enumerate(_SHAPES, 1) for symbol in symbols}
BILABIAL = CLASS_OF["p"]

_TONGUE_INDEX = CURVES.index("tongue")


def symbols(ipa):
    """The symbols of one phoneme that have a mouth shape: "aɪ" -> ["a", "ɪ"], "tʃ" -> ["t", "ʃ"], "" -> []."""
    return [symbol for symbol in ipa if symbol in SHAPE_OF]


def segments(phones):
    """Split phones into (class, start, end): diphthongs and affricates get one segment a symbol, unknown IPA is
    silence-free: it takes no part, so that neighbours bridge it."""
    result = []
    for phone in phones:
        if phone.end <= phone.start:
            continue
        parts = symbols(phone.ipa)
        if not phone.ipa:
            result.append((0, phone.start, phone.end))
        for i, symbol in enumerate(parts):
            step = (phone.end - phone.start) / len(parts)
            result.append((CLASS_OF[symbol], phone.start + i * step, phone.start + (i + 1) * step))
    return result


def class_labels(phones, n_frames):
    """Class of every frame by what is spoken at its middle, (n_frames,) int; -1 for IPA without a mouth shape."""
    times = (np.arange(n_frames) + 0.5) / FPS
    found = np.full(n_frames, -1)
    for one, start, end in segments(phones):
        found[(times >= start) & (times < end)] = one
    return found


def dominances(phones, n_frames):
    """Share of every class in the shape of the lips, (n_frames, classes); rows add up to 1."""
    times = (np.arange(n_frames) + 0.5) / FPS
    shares = np.zeros((n_frames, len(SHAPES)))
    for one, start, end in segments(phones):
        _, alpha, theta = SHAPES[one]
        distance = np.maximum(np.abs(times - (start + end) / 2) - 0.6 * (end - start) / 2, 0.0)
        shares[:, one] += alpha * np.exp(-theta * distance)
    return shares / (shares.sum(1, keepdims=True) + 1e-9)


def articulation_curves(phones, n_frames):
    """Curves (n_frames, 8) float32 at 25 fps for phones with times in seconds, sampled at the frame centres.

    Before the first and after the last phone the mouth is at rest.
    """
    times = (np.arange(n_frames) + 0.5) / FPS
    end = max([n_frames / FPS, *(phone.end for phone in phones)])
    parts = segments(phones)
    first = min((start for _, start, _ in parts), default=end)
    parts = [(0, -1.0, first), *parts, (0, max((stop for *_, stop in parts), default=0.0), end + 1.0)]
    numerator = np.zeros((n_frames, len(CURVES)))
    denominator = np.full((n_frames, len(CURVES)), 1e-9)
    for one, start, stop in parts:
        targets, alpha, theta = SHAPES[one]
        middle, half = (start + stop) / 2, (stop - start) / 2
        distance = np.maximum(np.abs(times - middle) - 0.6 * half, 0.0)[:, None]
        # the jaw and the tongue are heavier or faster than the lips: slower decay for the one, less reach for the other
        alphas = np.full(len(CURVES), alpha)
        thetas = np.full(len(CURVES), float(theta))
        alphas[0], thetas[0] = min(alpha, 1.5), theta * 0.7
        alphas[_TONGUE_INDEX] = 1.0
        dominance = alphas * np.exp(-thetas * distance)
        numerator += dominance * np.asarray(targets)
        denominator += dominance
    return (numerator / denominator).astype(np.float32)
