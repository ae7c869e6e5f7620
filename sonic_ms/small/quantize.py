"""Weights in 8 and 4 bits: what they become, and how many bytes they take. NumPy; qat.py computes the same in a graph.

All are symmetric about 0, so that a weight that a mask took stays 0. INT8 has a scale for every output; the 4-bit kinds
have one for every block of neighbours. NF4 (Dettmers et al. 2023) has the quantiles of a normal distribution, MXFP4
(OCP Microscaling) the values of a float with two bits of exponent, and scales that are powers of two. No runtime of
this project computes in 4 bits: these are simulated, they say what a file or a chip of that width would do to the
picture.
"""

import numpy as np

NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)  # fmt: skip
HALVES = np.array([0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
MXFP4 = np.concatenate([-HALVES[::-1], [0], HALVES]).astype(np.float32)
LARGEST = {"int8": 127, "int4": 7}
LEVELS = {"nf4": NF4, "mxfp4": MXFP4}
BLOCK = {"int4": 32, "nf4": 64, "mxfp4": 32}  # weights that share a scale
KINDS = ("int8", *BLOCK)
SCALE_BYTES = {"int8": 4, "int4": 2, "nf4": 2, "mxfp4": 1}


def middles(levels):
    """Between two neighbouring levels, where rounding turns."""
    return ((levels[1:] + levels[:-1]) / 2).astype(np.float32)


def layout(shape, kind):
    """(rows, columns, weights missing in the last row) of the table whose rows share a scale."""
    count = int(np.prod(shape))
    size = BLOCK.get(kind, count // shape[0])
    rows = -(-count // size)
    return rows, size, rows * size - count


def quantize(values, kind):
    """float32 weights -> the nearest ones of a kind of KINDS, float32 of the same shape."""
    rows, size, missing = layout(values.shape, kind)
    table = np.pad(values.ravel(), (0, missing)).reshape(rows, size).astype(np.float32)
    most = np.abs(table).max(1, keepdims=True)
    if kind in LARGEST:
        scale = np.where(most > 0, most / LARGEST[kind], 1).astype(np.float32)
        found = np.round(table / scale) * scale
    else:
        levels = LEVELS[kind]
        if kind == "mxfp4":
            with np.errstate(divide="ignore"):
                scale = np.where(most > 0, np.exp2(np.floor(np.log2(most)) - 2), 1).astype(np.float32)
        else:
            scale = np.where(most > 0, most, 1).astype(np.float32)
        found = levels[np.searchsorted(middles(levels), table / scale)] * scale
    return found.ravel()[: values.size].reshape(values.shape).astype(np.float32)


def stored_bytes(shape, kind):
    """Bytes of a weight and its scales; 4-bit kinds put two weights in one."""
    rows, size, _ = layout(shape, kind)
    return rows * SCALE_BYTES[kind] + -(-rows * size * (8 if kind == "int8" else 4) // 8)
