"""Run functions and Cells in graph mode on numpy arrays, and compare."""

import mindspore as ms
import numpy as np
import torch
from mindspore import nn, ops

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape, np.float32)


class Graph(nn.Cell):
    """A function as a graph-mode Cell."""

    def __init__(self, function, *constants):
        super().__init__()
        self.function, self.constants = function, constants

    def construct(self, *inputs):
        return self.function(*inputs, *self.constants)


def run(function, *arrays, constants=()):
    cell = function if isinstance(function, nn.Cell) else Graph(function, *constants)
    return cell(*[ms.Tensor(array) for array in arrays]).asnumpy()


def load(cell, **arrays):
    parameters = cell.parameters_dict()
    for name, array in arrays.items():
        parameters[name.replace("__", ".")].set_data(ms.Tensor(array))
    return cell


def close(ours, theirs, tolerance):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance


class Gradients(nn.Cell):
    """Of sum(change * cell(*inputs)) to every input."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.gradient = cell, ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, change, *inputs):  # tensors in a tuple would be constants, without a gradient
        return self.gradient(self.cell)(*inputs, change)


def gradients(cell, *arrays, change):
    found = Gradients(cell)(ms.Tensor(change), *[ms.Tensor(array) for array in arrays])
    return [one.asnumpy() for one in found]
