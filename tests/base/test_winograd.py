"""The UNet rearranged for a CPU computes what it computed before, by Winograd's convolutions."""

import collections
import dataclasses

import mindspore as ms
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sonic_ms.base import winograd
from sonic_ms.base.check import PUBLISHED, units
from sonic_ms.base.graphs import sample_inputs
from sonic_ms.nn.portable import FrameConv, conv2d
from sonic_ms.runtime.unit import relative_error
from tests.support.cells import load, normal, run

pytestmark = [pytest.mark.slow]


@pytest.mark.parametrize("tile", [(4, 4), (2, 2), (2, 1), (1, 4)])
def test_tiles_of_a_convolution(tile):
    x, weight, bias = normal(3, 7, 8, 12), normal(5, 7, 3, 3), normal(5)
    cell = winograd.WinogradConv2d(load(conv2d(7, 5, 3), weight=weight, bias=bias), tile)
    theirs = F.conv2d(*[torch.from_numpy(array) for array in (x, weight, bias)], padding=1).numpy()
    assert relative_error(run(cell, x), theirs) < 2e-6
    cell.weight.set_data(ms.Tensor(cell.weight.asnumpy() * (np.arange(cell.weight.shape[0]) != 0)[:, None, None, None]))
    assert relative_error(run(cell, x), theirs) > 1e-2


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_pairs_of_frames(frames):
    x, weight, bias = normal(2 * frames, 7, 3, 4), normal(5, 7, 3), normal(5)
    conv = load(FrameConv(7, 5), conv__weight=FrameConv.stacked(weight[..., None, None]), conv__bias=bias)
    ours = winograd.WinogradFrameConv(conv)(ms.Tensor(x), frames).asnumpy()
    clips = torch.from_numpy(x).reshape(2, frames, 7, 3, 4).transpose(1, 2)
    theirs = F.conv3d(clips, torch.from_numpy(weight)[..., None, None], torch.from_numpy(bias), padding=(1, 0, 0))
    assert relative_error(ours, theirs.transpose(1, 2).reshape(2 * frames, 5, 3, 4).numpy()) < 1e-6


@pytest.fixture
def by_operator():
    """MindSpore runs operators one by one: the graphs of two UNets take long to compile."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


def test_a_unet_and_which_of_its_layers_change(by_operator):
    """Pictures of 32, 16, 8 and 4 pixels a side; one block a level down, two up."""
    sizes = {"block_out_channels": (32, 32, 64, 64), "num_attention_heads": (1, 1, 2, 2), "cross_attention_dim": 32}
    config = dataclasses.replace(PUBLISHED["unet"], layers_per_block=1, **sizes)
    unit = units(PUBLISHED | {"unet": config}, side=256, frames=3)["unet"]
    tensors = [ms.Tensor(array) for array in sample_inputs(unit).values()]
    expected = unit.build()(*tensors).asnumpy()
    cell = winograd.rearrange(unit.build(), 32, 32)
    assert relative_error(cell(*tensors).asnumpy(), expected) < 5e-6

    cells = [one for _, one in cell.cells_and_names()]
    tiles = collections.Counter(one.tile for one in cells if isinstance(one, winograd.WinogradConv2d))
    assert tiles == {(4, 4): 7, (2, 2): 7, (2, 1): 7}
    assert [one.conv.tile for one in cell.upsamplers] == [(2, 1), (2, 2), (4, 4)]
    kinds = collections.Counter(type(one) for one in cells)
    assert (kinds[winograd.WinogradFrameConv], kinds[FrameConv]) == (28, 0)


def test_sides_that_a_tile_does_not_divide():
    conv = conv2d(4, 4, 3)
    assert winograd._convolution(conv, (34, 32)).tile == (2, 2)
    assert winograd._convolution(conv, (18, 9)).tile == (2, 1)
    assert winograd._convolution(conv, (9, 9)) is conv and winograd._convolution(conv, (4, 8)) is conv
