"""AdamW against torch's, on parameters given the same gradients."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor

from sonic_ms.train.loop.distributed import Group
from sonic_ms.train.loop.optimizer import Reduce, States, Update, rates

RATE, DECAY, EPSILON, KEEP = 1e-2, 0.1, 1e-8, 0.9
SHAPES = ((4, 3), (5,))


def gradients(step):
    rng = np.random.default_rng(step)
    return [rng.standard_normal(shape, np.float32) for shape in SHAPES]


def starts():
    return [np.random.default_rng(9).standard_normal(shape, np.float32) for shape in SHAPES]


def ours(dtype, steps=4, factor=1.0):
    """States after some steps from float16-rounded starts."""
    weights = [Parameter(Tensor(w).astype(dtype), name=f"w{i}") for i, w in enumerate(starts())]
    states = States(weights, Group(), average=True)
    update = Update(states)
    for step in range(steps):
        for slot, gradient in zip(states.slots, gradients(step)):
            ms.ops.assign(slot.total, Tensor(gradient / factor))
        scalars = (factor, *rates(RATE, step, DECAY, EPSILON, True), KEEP)
        update(*(Tensor(np.float32(value)) for value in scalars))
    return states


@pytest.fixture(scope="module")
def theirs():
    """torch's weights after every step, starting from what float16 holds of the starts, and from the starts."""

    def run(weights):
        weights = [torch.nn.Parameter(torch.from_numpy(w)) for w in weights]
        optimizer, history = torch.optim.AdamW(weights, RATE, eps=EPSILON, weight_decay=DECAY), []
        for step in range(4):
            for weight, gradient in zip(weights, gradients(step)):
                weight.grad = torch.from_numpy(gradient)
            optimizer.step()
            history.append([weight.detach().numpy().copy() for weight in weights])
        return history

    return {"fp32": run(starts()), "fp16": run([w.astype(np.float16).astype(np.float32) for w in starts()])}


@pytest.mark.parametrize(("name", "dtype"), [("fp32", ms.float32), ("fp16", ms.float16)])
def test_masters_move_as_torchs_weights(theirs, name, dtype):
    states = ours(dtype, factor=0.25)
    for slot, expected in zip(states.slots, theirs[name][-1]):
        np.testing.assert_allclose(slot.master.asnumpy(), expected, atol=1e-6)
        np.testing.assert_array_equal(slot.weight.asnumpy(), slot.master.asnumpy().astype(slot.weight.asnumpy().dtype))
        assert not slot.total.asnumpy().any()


def test_averages_follow(theirs):
    averages = starts()
    for weights in theirs["fp32"]:
        averages = [KEEP * average + (1 - KEEP) * weight for average, weight in zip(averages, weights)]
    for slot, expected in zip(ours(ms.float32).slots, averages):
        np.testing.assert_allclose(slot.average.asnumpy(), expected, atol=1e-6)


def test_norm_of_the_totals():
    states = ours(ms.float32, steps=0)
    for slot, gradient in zip(states.slots, gradients(0)):
        ms.ops.assign(slot.total, Tensor(gradient))
    loss, squares = Reduce(states)(Tensor(np.float32(3.0)))
    assert float(loss.asnumpy()) == 3.0
    assert float(squares.asnumpy()) == pytest.approx(sum((g**2).sum() for g in gradients(0)), rel=1e-6)


def test_without_bias_correction_the_moments_are_taken_as_they_are():
    assert rates(0.1, 0, 0.5, 1e-6, False) == pytest.approx((0.1, 1e-6, 0.95, 0.0, 0.0))
    assert rates(0.1, 0, 0.5, 1e-6, True) == pytest.approx((0.1, 1e-6 * np.sqrt(0.001), 0.95, 0.9, 0.999))


def test_memory_of_the_states():
    single = ours(ms.float32, steps=0).bytes()
    assert single == 4 * 4 * 17  # two moments, the average and the gradients of 17 elements
    assert ours(ms.float16, steps=0).bytes() == single + 4 * 17  # and the masters
