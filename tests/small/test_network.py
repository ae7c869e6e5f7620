"""Heads and inner channels: a network without some computes what it would with zeros in their place."""

import dataclasses
import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from sonic_ms.ascend.lint import lint_bundle
from sonic_ms.ascend.rules import NEVER
from sonic_ms.base import cells
from sonic_ms.base.check import SMALL, randomise, units
from sonic_ms.base.graphs import sample_inputs
from sonic_ms.base.resnet import SpatialResBlock, TemporalResBlock
from sonic_ms.base.unet import FeedForward, FrameAttention
from sonic_ms.base.units import CELL_OF
from sonic_ms.cli import main
from sonic_ms.deploy.export import export
from sonic_ms.edge.shipped import fits
from sonic_ms.errors import WeightsError
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.files.weights import config_from_fields, load_weights, save_model
from sonic_ms.nn.groups import groups_of, shrink
from sonic_ms.nn.sizes import WhisperConfig
from sonic_ms.pipeline import load_model, unit_table
from sonic_ms.runtime.ort import OnnxEngine
from sonic_ms.small.network import BASE, choose, cutter, masked


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
    for name in BASE[1:]:
        cell = randomise(cells.empty(SMALL[name], name))
        whole, groups = tensors_of(cell), groups_of(cell)
        keep = choose(whole.get, groups, 0.6, rng)
        cut = cutter(groups, keep)
        kept = {one: len(indices) for one, indices in keep.items()}
        config = dataclasses.replace(SMALL[name], kept=kept)
        left = {one: cut(one, array) for one, array in whole.items()}
        found[name] = config, left, masked(groups, keep, whole), whole
    return found


def outputs(cell, unit):
    out = cell(*[Tensor(array) for array in sample_inputs(unit).values()])
    return [one.asnumpy() for one in (out if isinstance(out, tuple) else (out,))]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["clip", "whisper", "audio2token", "audio2bucket"])
def test_cut_is_masked(networks, network):
    config, left, zeros, whole = networks[network]
    unit = units(SMALL)[network]
    small, large = (cells.empty(one, network) for one in (config, SMALL[network]))
    found, expected = outputs(filled(small, left), unit), outputs(filled(large, zeros), unit)
    for one, other, exact in zip(found, expected, outputs(filled(large, whole), unit)):
        assert one == pytest.approx(other, abs=1e-5 * np.abs(other).max())
        assert np.abs(other - exact).max() > 0.01 * np.abs(exact).max()


def normal(*shape):
    return Tensor(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


@pytest.fixture
def by_operator():
    """Function that makes MindSpore run operators one by one until the test ends: a graph of the UNet takes long to
    compile."""
    yield lambda: ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_context(mode=ms.GRAPH_MODE)


BLOCKS = {  # of the UNet: (makes one, its inputs)
    "feed-forward": (lambda: FeedForward(8), lambda: (normal(2, 3, 8),)),
    "attention of frames": (lambda: FrameAttention(12, 3, 1 << 20), lambda: (normal(4, 5, 12), 2)),
    "space": (lambda: SpatialResBlock(32, 64, 16, 1e-6), lambda: (normal(4, 32, 4, 4), normal(2, 16), 2)),
    "time": (lambda: TemporalResBlock(64, 16, 1e-6), lambda: (normal(4, 64, 4, 4), normal(2, 16), 2)),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_cut_block_is_a_masked_one(block, by_operator):
    make, inputs = BLOCKS[block]
    whole = randomise(make())
    groups, exact = groups_of(whole), tensors_of(whole)
    keep = choose(exact.get, groups, 0.6, np.random.default_rng(0))
    cut = cutter(groups, keep)
    smaller = shrink(make(), {name: len(indices) for name, indices in keep.items()})
    filled(smaller, {name: cut(name, array) for name, array in exact.items()})
    by_operator()
    unchanged = whole(*inputs()).asnumpy()
    expected = filled(whole, masked(groups, keep, exact))(*inputs()).asnumpy()
    assert smaller(*inputs()).asnumpy() == pytest.approx(expected, abs=1e-5 * np.abs(expected).max())
    assert np.abs(expected - unchanged).max() > 0.01 * np.abs(unchanged).max()


TINY = SMALL | {"unet": dataclasses.replace(SMALL["unet"], num_frames=3)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(a random model of sonic-base, the same without two fifths of its heads and inner channels)."""
    ms.set_context(mode=ms.GRAPH_MODE)
    root = tmp_path_factory.mktemp("base")
    for name, config in TINY.items():
        size = (64, 64) if name == "rife" else ()
        save_model(randomise(cells.empty(config, name, None, *size)), config, root / "whole" / name)
    command = ["small", "--json", str(root / "a.json"), "prune", "--model", str(root / "whole"), "--keep", "0.6"]
    assert main([*command, "--out", str(root / "cut")]) == 0
    figures = json.loads((root / "a.json").read_text())
    assert 0.5 < figures["weights"] / figures["before"] < 0.9
    return root / "whole", root / "cut"


def through_the_unet(run, units):
    """Prediction of a step, from contexts that the same model computed."""
    context = run("unet_context", sample_inputs(units["unet_context"]))
    inputs = sample_inputs(units["unet"])
    for name, array in context.items():
        inputs[name] = array.mean(0, keepdims=True) if name.startswith("temporal_") else array
    return run("unet", inputs)["prediction"]


def run_part(unet, table, name, inputs):
    """{output: array} of a unit, from its part of the UNet's Cell."""
    out = cells.part_of(unet, CELL_OF[name][1])(*[Tensor(array) for array in inputs.values()])
    parts = out if isinstance(out, tuple) else (out,)
    return {one.name: value.asnumpy() for one, value in zip(table[name].outputs, parts)}


@pytest.mark.slow
def test_cut_is_masked_in_the_unet_and_through_onnxruntime(folders, tmp_path, by_operator):
    """The file that is exported from a cut model computes what the whole Cells do with zeros in their weights."""
    whole, cut = folders
    table = unit_table(str(cut), gears=("64x64",))
    left = dataclasses.replace(table, units={name: table.units[name] for name in ("unet", "unet_context")})
    bundle = export(left, tmp_path / "bundle", ("onnx",), "fp32")
    found = through_the_unet(OnnxEngine(bundle).run, table.units)

    unet = load_weights(cells.empty(TINY["unet"], "unet"), whole / "unet")
    groups, exact = groups_of(unet), tensors_of(unet)
    sizes = unit_table(str(whole), gears=("64x64",)).units
    by_operator()
    filled(unet, masked(groups, choose(exact.get, groups, 0.6), exact))
    expected = through_the_unet(lambda *asked: run_part(unet, sizes, *asked), sizes)
    filled(unet, exact)
    unchanged = through_the_unet(lambda *asked: run_part(unet, sizes, *asked), sizes)
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)
    assert np.linalg.norm(expected - unchanged) > 0.05 * np.linalg.norm(expected)
    verdicts = lint_bundle(bundle, ["Ascend910B4"])
    assert len(verdicts) == 2 and NEVER not in {one.verdict for one in verdicts}


@pytest.mark.slow
def test_a_cut_model_is_a_model(tmp_path):
    """Fewer channels in sonic-edge's painter and half of its ear: folder, bundle, lint and the same video from both."""
    first, out, bundle = (str(tmp_path / name) for name in ("first", "cut", "bundle"))
    assert main(["small", "prune", "--widths", "8,16,24", "--out", first]) == 0
    assert main(["small", "prune", "--model", first, "--keep", "0.5", "--out", out]) == 0
    kept = json.loads((tmp_path / "cut" / "audio" / "config.json").read_text())["whisper"]["kept"]
    assert kept == {"layers.0.heads": 3, "layers.0.inner": 768, "layers.1.heads": 3, "layers.1.inner": 768}
    assert not fits(out)
    assert main(["export", "--model", out, "--gear", "256", "--out", bundle]) == 0
    assert main(["verify", bundle, "--engines", "onnxruntime"]) == 0
    assert main(["lint", bundle, "--soc", "Ascend310P3"]) == 0
    videos = []
    for model in (load_model(bundle=bundle, engine="onnxruntime"), load_model(out, engine="mindspore")):
        video = model.generate(str(DEMO_IMAGE), str(DEMO_AUDIO), duration=0.4, min_resolution=256)
        videos.append(np.stack(list(video)).astype(np.float32))
    assert len(videos[0]) == 10 and np.abs(videos[0] - videos[1]).mean() < 0.1


@pytest.mark.parametrize("kept", [{"layers.0.tails": 1}, {"layers.0.heads": 5}, {"layers.0.heads": 0}])
def test_a_config_that_keeps_what_is_not_there(kept):
    with pytest.raises(WeightsError, match=r"kept: layers\.0"):
        cells.empty(dataclasses.replace(SMALL["whisper"], kept=kept), "whisper")


@pytest.mark.parametrize(
    ("kept", "words"),
    [([1], "kept is .*; expected a mapping"), ({"layers.0.heads": "x"}, "kept: layers.0.heads is 'x'; expected int")],
)
def test_a_config_whose_numbers_are_none(kept, words):
    sizes = {"d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 8, "kept": kept}
    with pytest.raises(WeightsError, match=words):
        config_from_fields(WhisperConfig, sizes, "config.json")
