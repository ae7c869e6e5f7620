"""Rounded weights: the formats, and the same in a graph that learns."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from sonic_ms.edge.renderer import ConvBlock, fold_norms
from sonic_ms.small.qat import FakeQuant, quantize_convs
from sonic_ms.small.quantize import KINDS, LEVELS, layout, quantize, stored_bytes

ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")  # as training runs
SHAPE = (6, 5, 3, 3)  # 270: no multiple of a block


@pytest.fixture
def weights():
    values = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    values[np.random.default_rng(1).random(SHAPE) < 0.5] = 0
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_zero_stays_zero_and_nothing_moves_further_than_half_a_step(weights, kind):
    rounded = quantize(weights, kind)
    assert np.array_equal(rounded == 0, (weights == 0) | (rounded == 0)) and (rounded[weights == 0] == 0).all()
    assert quantize(np.zeros(SHAPE, np.float32), kind).any() == False  # noqa: E712
    assert np.array_equal(quantize(rounded, kind), rounded) or kind == "mxfp4"  # what clipped may take a smaller scale
    rows, size, missing = layout(SHAPE, kind)
    table, before = (np.pad(a.ravel(), (0, missing)).reshape(rows, size) for a in (rounded, weights))
    most = np.abs(before).max(1, keepdims=True)
    step = {"int8": 1 / 127, "int4": 1 / 7, "nf4": 0.31, "mxfp4": 0.5}[kind]
    assert np.abs(table - before).max() <= (most * step / 2 * 1.001).max()
    if kind in LEVELS:
        assert all(len(np.unique(row)) <= 16 for row in table)


def test_int8_is_the_closest_and_mxfp4_rounds_its_scales_to_powers_of_two(weights):
    errors = {kind: np.abs(quantize(weights, kind) - weights).mean() for kind in KINDS}
    assert min(errors, key=errors.get) == "int8" and errors["nf4"] < errors["int4"] < errors["mxfp4"]
    one = quantize(np.array([[5.9, 1.0, 0.3, 0.0]], np.float32), "mxfp4")
    assert one.tolist() == [[6.0, 1.0, 0.5, 0.0]]


def test_bytes():
    assert stored_bytes((8, 4, 3, 3), "int8") == 288 + 8 * 4
    assert stored_bytes((8, 4, 3, 3), "nf4") == 5 * 32 + 5 * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_computes_the_same_and_lets_the_gradient_pass(weights, kind):
    cell = FakeQuant(SHAPE, kind)

    def squares(values):
        return (cell(values) ** 2).sum()

    assert cell(Tensor(weights)).asnumpy() == pytest.approx(quantize(weights, kind), abs=2e-6)
    gradient = ms.grad(squares)(Tensor(weights)).asnumpy()
    assert gradient == pytest.approx(2 * quantize(weights, kind), abs=1e-5)


def test_a_block_with_rounded_weights_keeps_its_parameters(weights):
    x = Tensor(np.random.default_rng(2).standard_normal((1, 5, 8, 8)).astype(np.float32))

    def block(values):
        made = fold_norms(ConvBlock(5, 6).set_train(False))
        made.conv.weight.set_data(Tensor(values))
        made.conv.bias.set_data(Tensor(np.zeros(6, np.float32)))
        return made

    exact, expected = block(weights)(x).asnumpy(), block(quantize(weights, "int4"))(x).asnumpy()
    learning = block(weights)
    names = [name for name, _ in learning.parameters_and_names()]
    quantize_convs(learning, "int4")  # before it is compiled: a compiled graph keeps its convolutions
    assert learning(x).asnumpy() == pytest.approx(expected, abs=1e-4) and np.abs(expected - exact).max() > 0.05
    assert [name for name, _ in learning.parameters_and_names()] == names
