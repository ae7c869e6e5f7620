"""A sparse training small enough for tests; as a script, one that a test can kill: tiny_sparse.py FOLDER SECONDS
[--resume]."""

import dataclasses
import sys
import time

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from sonic_ms.small.pruner import Pruner
from sonic_ms.small.settings import SparsityConfig
from sonic_ms.train.loop.trainer import LoopConfig, train

LOOP = LoopConfig(
    steps=12, batch_size=4, learning_rate=0.02, warmup=2, average=0.5, log_every=1, save_every=4, validate_every=6
)
SPARSE = SparsityConfig(density=0.25, method="rigl", every=2, drop=0.5)


class Loss(nn.Cell):
    """Learns a picture's local mean of all channels by three convolutions."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.first, self.second, self.last = nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        for conv in (self.first, self.second, self.last):
            values = rng.standard_normal(conv.weight.shape).astype(np.float32)
            conv.weight.set_data(Tensor(values / np.sqrt(np.prod(conv.weight.shape[1:]))))

    def construct(self, x, y):
        guess = self.last(ops.relu(self.second(ops.relu(self.first(x)))))
        return ops.reduce_mean(ops.square(guess - y))


def batch(rng, size):
    x = rng.standard_normal((size, 4, 6, 6)).astype(np.float32)
    return x, np.repeat(x.mean(1, keepdims=True), 4, 1)


def run(folder, sparse=SPARSE, loop=LOOP, make_batch=batch, resume=False, cell=None, **changes):
    """(Loss, Pruner) after a training; changes: of `sparse`."""
    cell = cell or Loss()
    pruner = Pruner(dataclasses.replace(sparse, **changes))
    train(cell, make_batch, loop, folder, resume=resume, pruner=pruner)
    return cell, pruner


def slow_batch(rng, size):
    time.sleep(float(sys.argv[2]))
    return batch(rng, size)


if __name__ == "__main__":
    ms.set_context(mode=ms.GRAPH_MODE)
    run(sys.argv[1], make_batch=slow_batch, resume="--resume" in sys.argv)
