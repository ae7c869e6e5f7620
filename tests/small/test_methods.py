"""When masks change and by how much; what grows is a function of seed, step and layer; a grown weight's first step."""

from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Parameter, Tensor

from sonic_ms.errors import UsageError
from sonic_ms.small.methods import Layer, drop_fraction, next_masks, on_schedule
from sonic_ms.small.patterns import parse_pattern
from sonic_ms.small.pruner import Pruner
from sonic_ms.small.settings import SparsityConfig
from sonic_ms.train.loop.distributed import Group
from sonic_ms.train.loop.optimizer import States, Update, rates

STEPS = 1000
SHAPE = (6, 8, 3, 3)


def layers_of(pattern, seed=0):
    """Two layers with the same weights, gradients and masks, which keep half."""
    rng = np.random.default_rng(seed)
    one = parse_pattern(pattern)
    units = one.units(rng.random(SHAPE))
    mask = one.expand(np.argsort(np.argsort(units, 1), 1) < units.shape[1] // 2, SHAPE)
    weights, gradients = rng.standard_normal((2, *SHAPE))
    return {name: Layer(weights * mask, mask, gradients, 0.5) for name in ("one", "other")}


def test_fewer_are_replaced_with_every_change_and_none_after_the_last():
    """A cosine from `drop` to 0 at the last change, which is at the end's share of the steps; then masks stay."""
    config = SparsityConfig(density=0.2, method="rigl", every=50, drop=0.3, end=0.75)
    assert [drop_fraction(config, step, STEPS) for step in (0, 375, 750)] == pytest.approx([0.3, 0.15, 0.0])
    changes = [step for step in range(STEPS) if on_schedule(config, step, STEPS)]
    assert changes == list(range(50, 751, 50))
    fractions = [drop_fraction(config, step, STEPS) for step in changes]
    assert fractions == sorted(fractions, reverse=True)


def test_what_set_grows_is_a_function_of_seed_step_and_layer():
    config = SparsityConfig(density=0.5, method="set", every=50)
    pattern, layers = parse_pattern("unstructured"), layers_of("unstructured")

    def grown(seed, step, name):
        changed = SparsityConfig(density=0.5, method="set", every=50, seed=seed)
        mask = next_masks(layers, changed, pattern, step, STEPS)[name]
        return (mask & ~layers[name].mask).ravel()

    first = grown(0, 100, "one")
    assert first.any() and np.array_equal(first, grown(0, 100, "one")) and config.seed == 0
    for other in (grown(1, 100, "one"), grown(0, 150, "one"), grown(0, 100, "other")):
        assert (other & ~first).any()  # fewer at a later step, and others


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_two_of_four_stay_two_of_four(method):
    """Every four inputs lose one connection and get another, so that chips find what they want after each change."""
    config = SparsityConfig(density=0.5, method=method, pattern="2:4", every=50, drop=0.5)
    pattern, layers = parse_pattern("2:4"), layers_of("2:4")
    for name, mask in next_masks(layers, config, pattern, 50, STEPS).items():
        fours = np.moveaxis(mask, 1, -1).reshape(-1, 4)
        assert set(fours.sum(1)) == {2} and (mask != layers[name].mask).any()


@pytest.mark.parametrize("bias_correction", [False, True])
def test_the_first_step_of_a_grown_weight_is_bounded(bias_correction):
    """Its moments begin at 0 while the others' are old: 0.1 / sqrt(0.001) = 3.2 learning rates, which is accepted."""
    weight = Parameter(Tensor(np.zeros((2, 2), np.float32)), name="a.weight")
    states = States([weight], Group())
    states.slots[0].total.set_data(Tensor(np.float32([[1, -1], [100, 0]])))
    scalars = rates(1e-3, 500, 0.0, 1e-8, bias_correction)
    Update(states)(*(Tensor(np.float32(value)) for value in (1.0, *scalars, 0.0)))
    moved = np.abs(states.slots[0].master.asnumpy())
    assert moved[0, 0] == moved[0, 1] == pytest.approx(moved[1, 0]) and moved[1, 1] == 0
    assert 1e-3 < moved.max() <= 3.2e-3


def test_masks_want_whole_weights():
    weight = Parameter(Tensor(np.zeros((64, 32), np.float32)), name="a.weight")
    states = States([weight], SimpleNamespace(size=2, rank=0), shard=True)
    with pytest.raises(UsageError, match=r"leave loop\.shard_optimizer out"):
        Pruner(SparsityConfig(density=0.5)).attach(states, STEPS)
