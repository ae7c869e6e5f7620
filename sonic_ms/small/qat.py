"""Quantisation-aware training: convolutions that compute with rounded weights and learn the exact ones.

The gradient passes the rounding as if it were not there (Bengio et al. 2013). Masks are inside of it: what is 0 stays
0. Normalisations are to be folded before, so that what is rounded is what will be stored. Activations stay as they are;
INT8 files take their ranges afterwards (deploy/int8.py).
"""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from sonic_ms.small.quantize import LARGEST, LEVELS, layout, middles


class FakeQuant(nn.Cell):
    """Weight of a shape -> the weight rounded to a kind, see quantize.KINDS."""

    def __init__(self, shape, kind):
        super().__init__()
        self.shape, self.kind = tuple(shape), kind
        self.rows, self.size, missing = layout(shape, kind)
        self.count = int(np.prod(shape))
        self.padding = Tensor(np.zeros(missing, np.float32)) if missing else None
        self.largest = float(LARGEST.get(kind, 1))
        if kind in LEVELS:
            levels = LEVELS[kind]
            self.lowest, self.middles = float(levels[0]), Tensor(middles(levels))
            self.steps = Tensor(np.diff(levels)[:, None])

    def construct(self, weight):
        flat = ops.reshape(weight, (-1,))
        if self.padding is not None:
            flat = ops.concat((flat, self.padding))
        table = ops.reshape(flat, (self.rows, self.size))
        most = ops.maximum(ops.reduce_max(ops.abs(table), 1), 1e-30)
        most = ops.reshape(most, (self.rows, 1))
        if self.kind == "mxfp4":
            scale = ops.exp2(ops.floor(ops.log2(most)) - 2.0)
        else:
            scale = most / self.largest
        table = table / scale
        if self.kind == "mxfp4" or self.kind == "nf4":
            above = ops.cast(ops.reshape(table, (-1, 1)) > self.middles, mstype.float32)
            table = ops.reshape(ops.matmul(above, self.steps) + self.lowest, (self.rows, self.size))
        else:
            table = ops.round(table)
        rounded = ops.reshape(ops.reshape(table * scale, (-1,))[: self.count], self.shape)
        return weight + ops.stop_gradient(rounded - weight)


class FakeQuantConv(nn.Cell):
    """A Conv2d with a bias, of rounded weights; the Parameters are those of the convolution it replaces."""

    def __init__(self, conv, kind):
        super().__init__()
        self.weight, self.bias, self.conv2d = conv.weight, conv.bias, conv.conv2d
        self.quant = FakeQuant(conv.weight.shape, kind)

    def construct(self, x):
        return self.conv2d(x, self.quant(self.weight)) + ops.reshape(self.bias, (1, -1, 1, 1))


def quantize_convs(cell, kind):
    """Replace every Conv2d inside a cell; returns the cell."""
    for _, owner in list(cell.cells_and_names()):
        for name, conv in list(owner._cells.items()):
            if isinstance(conv, nn.Conv2d):
                setattr(owner, name, FakeQuantConv(conv, kind))
    return cell
