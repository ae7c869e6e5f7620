"""Print the MB that layers one after the other take: python backward_memory.py forward|backward|recompute|gelu

A process of its own, because memory that MindSpore has once taken it keeps. The layers are three attentions of 67 MB of
scores, taken in 16 blocks; or, for `gelu`, six feed-forwards with gates of 17 MB and their gradients.
"""

import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from sonic_ms.base.unet import FeedForward
from sonic_ms.nn.attention import Attention
from sonic_ms.train.base.trained import recompute

HEADS, BLOCK, WIDE = (8, 2, 1024, 32), 1 << 20, (16384, 64)


class AttentionLayer(nn.Cell):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.attention = (*(nn.Dense(32, 32) for _ in "qkv"), Attention(BLOCK))

    def construct(self, x):
        return x + self.attention(self.q(x), self.k(x), self.v(x))


class Layers(nn.Cell):
    """The sum of the squared result of cells that run one after the other."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.CellList(layers)

    def construct(self, x):
        for layer in self.layers:
            x = layer(x)
        return ops.ReduceSum()(x * x)


class Gradients(nn.Cell):
    """Of Layers to every weight."""

    def __init__(self, layers):
        super().__init__()
        self.layers, self.weights = layers, ms.ParameterTuple(layers.trainable_params())
        self.gradients = ops.GradOperation(get_by_list=True)

    def construct(self, x):
        return self.gradients(self.layers, self.weights)(x)


def resident(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1e3


def main(way):
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    gated = way == "gelu"
    network = Layers([FeedForward(WIDE[1]) if gated else AttentionLayer() for _ in range(6 if gated else 3)])
    if way == "recompute":
        for layer in network.layers:
            recompute(layer)
    network = network if way == "forward" else Gradients(network)
    x = ms.Tensor(np.random.default_rng(0).standard_normal(WIDE if gated else HEADS), ms.float32)
    network.compile(x)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest RSS counts from here
    network(x)
    print("MB", resident("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
