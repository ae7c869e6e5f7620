"""48 bits as a pattern of 32 x 32 signs, and back from a noisy one.

48 bits and their CRC-16 are eight bytes. A byte is one of the 256 words of the first-order Reed-Muller code of length
128 (rows of a Hadamard matrix and their negatives, distance 64), which one product with that matrix decodes as well as
it can be done. Word after word is dealt to cells all over the frame and multiplied by fixed random signs.
"""

import binascii
import hashlib
import math

import numpy as np

GRID = 32  # cells across and down
BITS = 48  # of an id
WORD = 128  # signs a byte
FALSE_ALARM = 1e-9  # chance that a pattern without a mark is taken for one, at most


def _hadamard(n):
    return np.ones((1, 1), np.float32) if n == 1 else np.kron(_hadamard(n // 2), np.float32([[1, 1], [1, -1]]))


# from a hash, not from a random generator: they have to be the same for ever
_STREAM = hashlib.shake_256(b"sonic_ms watermark 1").digest(GRID * GRID * 5)
_PLACES = np.argsort(np.frombuffer(_STREAM[: GRID * GRID * 4], "<u4"), kind="stable")
_SIGNS = np.frombuffer(_STREAM[GRID * GRID * 4 :], np.uint8).astype(np.float32) // 128 * 2 - 1
_WORDS = _hadamard(WORD)


def pattern(number):
    """The signs of a number of 48 bits: float32 (32, 32) of -1 and 1."""
    data = number.to_bytes(BITS // 8, "big")
    data += binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "big")
    words = np.concatenate([_WORDS[byte & 127] * (1 if byte < 128 else -1) for byte in data])
    signs = np.empty(GRID * GRID, np.float32)
    signs[_PLACES] = words
    return (signs * _SIGNS).reshape(GRID, GRID)


def read_pattern(values):
    """(number, likeness) of the word nearest to noisy `values` (32, 32); number None when its CRC does not fit.

    likeness: cosine between the values and that word, 0 to 1."""
    words = (values.ravel() * _SIGNS)[_PLACES].reshape(-1, WORD)
    products = words @ _WORDS
    best = np.abs(products).argmax(1)
    peaks = products[np.arange(len(best)), best]
    data = bytes(int(word) | (128 if peak < 0 else 0) for word, peak in zip(best, peaks))
    likeness = float(np.abs(peaks).sum() / (GRID * np.linalg.norm(words) + 1e-12))
    right = binascii.crc_hqx(data[:-2], 0xFFFF) == int.from_bytes(data[-2:], "big")
    return int.from_bytes(data[:-2], "big") if right else None, likeness


def false_alarm(likeness, trials):
    """log10 of the most that the chance can be to find any number at this likeness in `trials` unmarked patterns.

    Hoeffding: against values that know nothing of the random signs, the product with one word is a sum of independent
    signs, above T times their norm with a chance of at most exp(-T^2 / 2); there are 2^48 words with a right CRC."""
    return (math.log(trials) + BITS * math.log(2) - (GRID * likeness) ** 2 / 2) / math.log(10)
