"""A training small enough for tests; as a script, one that a test can kill: tiny_run.py FOLDER SECONDS [--resume]."""

import sys
import time

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from sonic_ms.train.loop.trainer import LoopConfig, train

CONFIG = LoopConfig(
    steps=12, batch_size=4, learning_rate=0.05, warmup=2, log_every=1, save_every=4, validate_every=6, seed=3
)


class Loss(nn.Cell):
    """Learns to add three numbers."""

    def __init__(self, precision=ms.float32):
        super().__init__()
        ms.set_seed(0)
        self.dense = nn.Dense(3, 1)
        for parameter in self.dense.get_parameters():
            parameter.set_dtype(precision)

    def construct(self, x, y):
        guess = self.dense(ops.cast(x, self.dense.weight.dtype))
        return ops.reduce_mean(ops.square(ops.cast(guess, ms.float32) - y))


def batch(rng, size):
    x = rng.standard_normal((size, 3)).astype(np.float32)
    return x, x.sum(axis=1, keepdims=True)


def slow_batch(rng, size):
    time.sleep(float(sys.argv[2]))
    return batch(rng, size)


if __name__ == "__main__":
    print(train(Loss(), slow_batch, CONFIG, sys.argv[1], resume="--resume" in sys.argv))
