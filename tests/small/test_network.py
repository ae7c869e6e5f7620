"""Heads and inner channels: a network without some computes what it would with zeros in their place."""

import dataclasses
import json
import shutil

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from sonic_ms.base import cells
from sonic_ms.base.check import SMALL, randomise, units
from sonic_ms.base.graphs import sample_inputs
from sonic_ms.base.units import CELL_OF
from sonic_ms.cli import main
from sonic_ms.edge.units import EDGE_FOLDER
from sonic_ms.errors import WeightsError
from sonic_ms.files.weights import load_config, save_model
from sonic_ms.nn.groups import groups_of
from sonic_ms.small.network import BASE, choose, cutter, masked

UNITS_OF = ("unet", "unet_context", "unet_features1", "unet_shallow1", "clip", "whisper", "audio2token", "audio2bucket")


def tensors_of(cell):
    return {name: parameter.asnumpy().copy() for name, parameter in cell.parameters_and_names()}


def filled(cell, tensors):
    for name, parameter in cell.parameters_and_names():
        assert tuple(parameter.shape) == tensors[name].shape, name
        parameter.set_data(Tensor(tensors[name]))
    return cell


@pytest.fixture(scope="module")
def networks():
    """{network: (config of what is left, its tensors, the whole network's tensors with zeros, the whole's)}, with
    other units of every group gone."""
    ms.set_context(mode=ms.GRAPH_MODE)
    found, rng = {}, np.random.default_rng(0)
    for name in BASE:
        cell = randomise(cells.empty(SMALL[name], name))
        whole, groups = tensors_of(cell), groups_of(cell)
        keep = choose(whole.get, groups, 0.6, rng)
        cut = cutter(groups, keep)
        kept = {one: len(indices) for one, indices in keep.items()}
        config = dataclasses.replace(SMALL[name], kept=kept)
        left = {one: cut(one, array) for one, array in whole.items()}
        found[name] = config, left, masked(groups, keep, whole), whole
    return found


def outputs(network, config, tensors, unit):
    cell = filled(cells.empty(config, network), tensors)
    part = cells.part_of(cell, CELL_OF[unit.name][1])
    out = part(*[Tensor(array) for array in sample_inputs(unit).values()])
    return [one.asnumpy() for one in (out if isinstance(out, tuple) else (out,))]


@pytest.mark.parametrize("network", ["clip", "whisper", "audio2token", "audio2bucket"])
def test_cut_is_masked(networks, network):
    config, left, zeros, whole = networks[network]
    unit = units(SMALL)[network]
    found, expected = outputs(network, config, left, unit), outputs(network, SMALL[network], zeros, unit)
    for one, other, exact in zip(found, expected, outputs(network, SMALL[network], whole, unit)):
        assert one == pytest.approx(other, abs=1e-5 * np.abs(other).max())
        assert np.abs(other - exact).max() > 0.01 * np.abs(exact).max()
