"""Attention in blocks against torch's own, in graph mode."""

import pytest
import torch
import torch.nn.functional as F

from sonic_ms.nn.attention import Attention, attention
from tests.support.cells import close, gradients, normal, run

pytestmark = [pytest.mark.slow]


@pytest.mark.parametrize("max_scores", [1 << 20, 3 * 2 * 9 * 7, 2 * 9 * 7, 2 * 4 * 7, 1])
def test_attention_is_the_same_in_any_blocks(max_scores):
    q, k, v = normal(3, 2, 9, 4) * 2, normal(3, 2, 7, 4) * 2, normal(3, 2, 7, 4)
    theirs = F.scaled_dot_product_attention(*[torch.from_numpy(array) for array in (q, k, v)])
    close(run(attention, q, k, v, constants=(max_scores,)), theirs, 4e-6)


@pytest.mark.parametrize("max_scores", [1 << 20, 2 * 9 * 7, 2 * 4 * 7, 1])
def test_the_gradients_of_attention_that_keeps_no_scores(max_scores):
    arrays, change = (normal(3, 2, 9, 4) * 2, normal(3, 2, 7, 4) * 2, normal(3, 2, 7, 4)), normal(3, 2, 9, 4)
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    (F.scaled_dot_product_attention(*tensors) * torch.from_numpy(change)).sum().backward()
    for ours, theirs in zip(gradients(Attention(max_scores), *arrays, change=change), tensors):
        close(ours, theirs.grad, 5e-6)
