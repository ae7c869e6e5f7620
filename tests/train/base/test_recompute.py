"""Recompute changes what is kept, no gradient. What it saves: test_backward_memory.py."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from sonic_ms.base.unet import FeedForward, SelfAttention
from sonic_ms.train.base.trained import recompute
from tests.support.backward_memory import Gradients, Layers

pytestmark = [pytest.mark.slow]

FRAMES, TOKENS, CHANNELS = 3, 16, 32


class Layer(nn.Cell):
    def __init__(self, max_scores):
        super().__init__()
        self.attention, self.feed_forward = SelfAttention(CHANNELS, 2, max_scores), FeedForward(CHANNELS)

    def construct(self, x):
        x = x + self.attention(x)
        return x + self.feed_forward(x)


def gradients(max_scores, recomputed):
    network = Layers([Layer(max_scores), Layer(max_scores)])
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        parameter.set_data(ms.Tensor(rng.normal(0, 0.2, parameter.shape), ms.float32))
    if recomputed:
        for layer in network.layers:
            recompute(layer)
    x = ms.Tensor(rng.standard_normal((FRAMES, TOKENS, CHANNELS)), ms.float32)
    return [one.asnumpy() for one in Gradients(network)(x)]


@pytest.mark.parametrize("max_scores", [1 << 20, 2 * TOKENS * 4])  # one block; twelve
def test_the_same_gradients(max_scores):
    kept, again = gradients(max_scores, False), gradients(max_scores, True)
    assert len(kept) == 2 * (5 + 4)
    for one, other in zip(kept, again):
        assert np.linalg.norm(one) > 0
        assert np.linalg.norm(one - other) <= 1e-6 * np.linalg.norm(one)
