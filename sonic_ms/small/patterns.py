"""Which weights a mask may keep or leave out together: one by one, N of M, blocks, a constant fan-in, whole channels.

A pattern lays a weight (out, in, ...) out as units in rows: (rows, units). A mask keeps the same number of units in
every row, so all that follows (scores, dropping, growing) is one rule for all patterns. NumPy.
"""

import re

import numpy as np

from sonic_ms.errors import UsageError


class Unstructured:
    """Every weight for itself: one row of all of them."""

    exact = True  # any density is met, up to rounding

    def check(self, name, shape):
        """Raise UsageError where a weight of this name and shape cannot have the pattern."""

    def units(self, values):
        """(out, in, ...) -> (rows, units), the sums of every unit's values."""
        return values.reshape(1, -1)

    def expand(self, mask, shape):
        """Mask of units (rows, units) -> mask of weights."""
        return mask.reshape(shape)

    def kept(self, shape, density):
        """Units that every row keeps."""
        _, units = self.units(np.zeros(shape, np.float32)).shape
        return min(units, max(1, round(density * units)))


class FanIn(Unstructured):
    """A constant fan-in: every output has the same number of inputs."""

    def units(self, values):
        return values.reshape(len(values), -1)


class Channel(Unstructured):
    """Whole output channels."""

    def units(self, values):
        return values.reshape(1, len(values), -1).sum(-1)

    def expand(self, mask, shape):
        return np.broadcast_to(mask.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()


class Block(Unstructured):
    """Blocks of `rows` outputs by `columns` inputs, at every place of a kernel for itself."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns

    def check(self, name, shape):
        if shape[0] % self.rows or shape[1] % self.columns:
            raise UsageError(
                f"pattern block {self.rows}x{self.columns} does not divide {name} with {shape[0]} outputs and "
                f"{shape[1]} inputs; take another, or keep that layer dense (dense: [{name}])"
            )

    def units(self, values):
        out, inner = values.shape[:2]
        blocks = values.reshape(out // self.rows, self.rows, inner // self.columns, self.columns, -1)
        return blocks.sum((1, 3)).reshape(1, -1)

    def expand(self, mask, shape):
        blocks = mask.reshape(shape[0] // self.rows, 1, shape[1] // self.columns, 1, -1)
        return np.broadcast_to(
            blocks, (shape[0] // self.rows, self.rows, shape[1] // self.columns, self.columns, blocks.shape[-1])
        ).reshape(shape)


class NofM(Unstructured):
    """At most n of every m neighbours along the inputs, as 4:2 of Ascend and 2:4 of other hardware want it."""

    exact = False

    def __init__(self, n, m):
        self.n, self.m = n, m

    def check(self, name, shape):
        if shape[1] % self.m:
            raise UsageError(
                f"pattern {self.n}:{self.m} does not divide the {shape[1]} inputs of {name}; take another, or keep "
                f"that layer dense (dense: [{name}])"
            )

    def units(self, values):
        return np.moveaxis(values, 1, -1).reshape(-1, self.m)

    def expand(self, mask, shape):
        return np.moveaxis(mask.reshape(shape[0], *shape[2:], shape[1]), -1, 1)

    def kept(self, shape, density):
        return self.n


def parse_pattern(text):
    """Pattern of "unstructured", "fan_in", "channel", "block 4x1" or "2:4". Raises UsageError."""
    simple = {"unstructured": Unstructured, "fan_in": FanIn, "channel": Channel}
    if text in simple:
        return simple[text]()
    if found := re.fullmatch(r"block ([1-9]\d?)x([1-9]\d?)", text):
        return Block(*map(int, found.groups()))
    if (found := re.fullmatch(r"([1-9]\d?):([1-9]\d?)", text)) and int(found[1]) < int(found[2]):
        return NofM(*map(int, found.groups()))
    raise UsageError(f"pattern is {text!r}; expected {', '.join(simple)}, block ROWSxCOLUMNS, or N:M with N below M")


def largest(scores, count, allowed=None):
    """Mask (rows, units) of the `count` largest scores of every row, of those allowed; of equal ones the first."""
    order = np.where(allowed, scores, -np.inf) if allowed is not None else scores
    picked = np.argsort(-order, axis=1, kind="stable")[:, :count]
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, picked, True, axis=1)
    return mask if allowed is None else mask & allowed
