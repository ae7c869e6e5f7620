"""The two Cells of the feature cache: with features of the same step they give what the whole UNet gives."""

import contextlib

import mindspore as ms
import numpy as np
import pytest

from sonic_ms.base import cells
from sonic_ms.base.check import SMALL, randomise
from sonic_ms.base.configs import UNetConfig
from sonic_ms.base.graphs import sample_inputs
from sonic_ms.base.units import CACHE_BRANCHES, BaseGear, base_units
from sonic_ms.runtime.ms import start


def a_unet(layers):
    """(SonicUNet with random weights, its table of units)"""
    start()
    config = UNetConfig((32, 64), (1, 2), 16, 16, 48, layers_per_block=layers, num_frames=2)
    unet = randomise(cells.empty(config, "unet"))
    gear = BaseGear(64, 64, cache_branches=CACHE_BRANCHES)
    return unet, base_units(SMALL | {"unet": config}, gear, lambda _, part, *size: cells.part_of(unet, part))


@contextlib.contextmanager
def without_compiling():
    """Operators one by one: what a graph computes, without the minutes that compiling takes."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


def arrays(out):
    return [part.asnumpy() for part in out] if isinstance(out, tuple) else out.asnumpy()


def compare(units, branch):
    """Features of one step: at that step the same prediction, and what the fast part adds counts."""
    whole, deep, fast = (units[name].build() for name in ("unet", f"unet_features{branch}", f"unet_shallow{branch}"))
    inputs = [ms.Tensor(array) for array in sample_inputs(units["unet"]).values()]
    plain = arrays(whole(*inputs))
    prediction, features = arrays(deep(*inputs))
    assert np.array_equal(prediction, plain)
    shapes = [one.shape for one in units[f"unet_features{branch}"].outputs]
    assert [prediction.shape, features.shape] == shapes
    assert [one.shape for one in units[f"unet_shallow{branch}"].inputs][-1] == features.shape
    found = arrays(fast(*inputs, ms.Tensor(features)))
    assert np.allclose(found, plain, rtol=1e-5, atol=1e-5)
    other = arrays(fast(inputs[0] + 0.5, *inputs[1:4], inputs[4] + 0.5, *inputs[5:], ms.Tensor(features)))
    assert np.abs(other - plain).max() > 1e-2


@pytest.mark.parametrize(("layers", "branch"), [(1, 1), (2, 0), (2, 1)])
def test_features_of_the_same_step_give_the_same_prediction(layers, branch):
    _, units = a_unet(layers)
    with without_compiling():
        compare(units, branch)


@pytest.mark.slow
def test_as_graphs_too():
    _, units = a_unet(1)
    compare(units, 0)


def test_weights_are_shared():
    unet, _ = a_unet(1)
    names = [parameter.name for parameter in unet.get_parameters()]
    ways = [cells.part_of(unet, f"{way}1") for way in cells.WAYS]
    assert [parameter.name for parameter in unet.get_parameters()] == names
    ours = {id(parameter) for parameter in unet.denoiser.get_parameters()}
    assert all({id(parameter) for parameter in way.get_parameters()} == ours for way in ways)
