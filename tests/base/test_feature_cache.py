"""The two Cells of the feature cache: with features of the same step they give what the whole UNet gives."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from sonic_ms.base import cells
from sonic_ms.base.check import SMALL, randomise
from sonic_ms.base.configs import UNetConfig
from sonic_ms.base.generator import BaseGenerator
from sonic_ms.base.graphs import UNETS, sample_inputs
from sonic_ms.base.options import BaseOptions
from sonic_ms.base.units import CACHE_BRANCHES, BaseGear, base_units
from sonic_ms.deploy.export import export_unit
from sonic_ms.errors import WeightsError
from sonic_ms.runtime.ms import start

CONFIG = UNetConfig((32, 64), (1, 2), 16, 16, 48, layers_per_block=1, num_frames=2)


class Ways(nn.Cell):
    """Both ways through a UNet in one graph, which is compiled once: what the fast one gives with the features of the
    same inputs, beside the prediction of the whole, branch by branch."""

    def __init__(self, deep, fast):
        super().__init__(auto_prefix=False)
        self.deep, self.fast = nn.CellList(deep, auto_prefix=False), nn.CellList(fast, auto_prefix=False)

    def construct(self, *inputs):
        out = ()
        for deep, fast in zip(self.deep, self.fast):
            prediction, features = deep(*inputs)
            out = (*out, prediction, features, fast(*inputs, features))
        return out


@pytest.mark.slow
def test_features_of_the_same_step_give_the_same_prediction():
    start()
    unet = randomise(cells.empty(CONFIG, "unet"))
    gear = BaseGear(64, 64, cache_branches=CACHE_BRANCHES)
    units = base_units(SMALL | {"unet": CONFIG}, gear, lambda _, part, *size: cells.part_of(unet, part))
    assert {name for name in units if name in UNETS} == UNETS
    ways = [[units[f"unet_{way}{branch}"].build() for branch in CACHE_BRANCHES] for way in ("features", "shallow")]
    inputs = [ms.Tensor(array) for array in sample_inputs(units["unet"]).values()]
    out = [part.asnumpy() for part in Ways(*ways)(*inputs)]
    for branch in CACHE_BRANCHES:
        prediction, features, found = out[3 * branch : 3 * branch + 3]
        shapes = [one.shape for one in units[f"unet_features{branch}"].outputs]
        assert [prediction.shape, features.shape] == shapes
        assert units[f"unet_shallow{branch}"].inputs[-1].shape == features.shape
        assert np.abs(prediction).max() > 0.1
        assert np.allclose(found, prediction, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_fast_part_is_exported(tmp_path):
    """To ONNX, which is compared with the Cell on the way."""
    unit = base_units(
        SMALL | {"unet": CONFIG},
        BaseGear(64, 64, cache_branches=(0,)),
        lambda _, part, *size: randomise(cells.empty(CONFIG, "unet", part)),
    )["unet_shallow0"]
    entry = export_unit(start(), unit, SimpleNamespace(rearrange={}, sample=sample_inputs), tmp_path, ("onnx",), "fp32")
    assert (tmp_path / entry["onnx"]["path"]).is_file()
    assert [one["name"] for one in entry["inputs"]][-1] == "features"


def test_a_bundle_without_the_graphs_is_refused_before_any_work():
    networks = SimpleNamespace(units={}, gear=BaseGear(64, 64), configs={"unet": CONFIG})
    generator, notes = BaseGenerator(networks), []
    with pytest.raises(WeightsError, match="export it again with --feature-cache-branch 0, or take feature_cache 1"):
        generator.preflight(None, 10, BaseOptions(feature_cache=2), SimpleNamespace(note=notes.append))
    generator.preflight(None, 10, BaseOptions(guidance_reuse=2), SimpleNamespace(note=notes.append))
    networks.units["unet_shallow1"] = networks.units["unet_features1"] = None
    generator.preflight(None, 10, BaseOptions(quality="balanced"), SimpleNamespace(note=notes.append))
    assert notes == ["quality balanced: feature_cache 2, feature_cache_branch 1, guidance_reuse 2"]


def test_weights_are_shared():
    start()
    unet = cells.empty(CONFIG, "unet")
    names = [parameter.name for parameter in unet.get_parameters()]
    ways = [cells.part_of(unet, f"{way}1") for way in cells.WAYS]
    assert [parameter.name for parameter in unet.get_parameters()] == names
    ours = {id(parameter) for parameter in unet.denoiser.get_parameters()}
    assert all({id(parameter) for parameter in way.get_parameters()} == ours for way in ways)
