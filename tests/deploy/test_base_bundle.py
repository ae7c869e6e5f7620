"""sonic-base with tiny networks, from checkpoint to bundle: every graph on three engines, and the videos they make."""

import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest

from sonic_ms import pipeline
from sonic_ms.ascend.build import pick_units
from sonic_ms.ascend.facts import chips
from sonic_ms.ascend.lint import FITS, lint_bundle
from sonic_ms.base.configs import UNetConfig
from sonic_ms.base.graphs import sample_inputs
from sonic_ms.base.networks import open_bundle
from sonic_ms.cli import main
from sonic_ms.deploy import export as export_module
from sonic_ms.deploy.bundle import Bundle, file_entry, write_manifest
from sonic_ms.deploy.verify import verify
from sonic_ms.errors import EngineError
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.runtime.cells import MindirEngine
from sonic_ms.runtime.lite import LiteEngine
from sonic_ms.runtime.mindir import read_mindir
from sonic_ms.runtime.ms import start
from tests.support.deploy_toys import MIN_PSNR, WITHOUT_MINDSPORE, frames_of, psnr

pytestmark = [pytest.mark.slow]

ENGINES = ("mindspore", "onnxruntime", "lite")
SIDE, TICKS = 64, 11  # pixels, and frames of the video
OPTIONS = {
    "duration": 0.44,
    "min_resolution": SIDE,
    "inference_steps": 2,
    "crop": True,
    "expand_ratio": 0.5,
    "face_box": (150.0, 110.0, 200.0, 240.0),  # a random detector finds nothing
}
# dB between the frames of two engines before encoding: one value of 240 may be rounded to the other grey level. The
# encoder makes more of that, where its decisions flip.
MIN_FRAMES_PSNR = 72


def flags():
    """OPTIONS for the command line."""
    found = ["--image", str(DEMO_IMAGE), "--audio", str(DEMO_AUDIO), "--crop"]
    for name, value in OPTIONS.items():
        if name != "crop":
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            found += [f"--{name.replace('_', '-')}", text]
    return found


def make_frames(bundle, engine):
    """Frames of the clip before encoding, (TICKS, SIDE, SIDE, 3) uint8."""
    model = pipeline.load_model(bundle=str(bundle.folder), engine=engine)
    return np.stack(list(model.generate(str(DEMO_IMAGE), str(DEMO_AUDIO), **OPTIONS)))


@pytest.fixture
def open_once(base_engine, monkeypatch):
    """The pipeline finds the engines that are open already."""
    monkeypatch.setattr(pipeline, "open_engine", base_engine)


@pytest.fixture(scope="module")
def frames(base_bundle, base_engine):
    """{engine: frames before encoding}"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_engine", base_engine)
        return {engine: make_frames(base_bundle, engine) for engine in ENGINES}


@pytest.mark.needs("lite")
def test_all_units_agree(base_bundle, base_engine):
    rows = verify(base_bundle, ENGINES, sample_inputs, open_engine=base_engine)
    assert {row["unit"] for row in rows} == set(base_bundle.units) and len(base_bundle.units) == 10
    assert {row["engine"] for row in rows} == set(ENGINES)
    assert [row for row in rows if not row["passed"] or row["relative_l2"] > 1e-5] == []  # lite has 1e-3, needs less


def test_no_unit_is_dead(base_bundle, base_engine):
    """An output that does not depend on the inputs would agree with anything. Noise is noise to the tiny detector, so
    what counts is the change against how much the output varies."""
    engine = base_engine("onnxruntime", base_bundle)
    for name, unit in base_bundle.units.items():
        first, second = (engine.run(name, sample_inputs(unit, seed)) for seed in (0, 1))
        for output in first:
            assert np.abs(first[output] - second[output]).max() > 1e-3 * np.std(first[output]) > 0, (name, output)


def test_every_unit_fits_every_chip(base_bundle):
    """Operators, shapes and MINDIR primitives: those of the published size are the same but for the memory."""
    socs = [soc for soc in chips() if soc != "Ascend910B"]
    verdicts = lint_bundle(base_bundle, socs)
    assert len(verdicts) == len(base_bundle.units) * len(socs)
    assert [one for one in verdicts if one.verdict != FITS or one.findings] == []


@pytest.mark.needs("lite")
def test_the_same_frames_from_every_engine(frames):
    first = frames["mindspore"].astype(np.float64)
    assert first.shape == (TICKS, SIDE, SIDE, 3)
    square = np.ptp(first, axis=0).max(axis=-1) > 0  # the photo around it stands still
    assert square.any() and np.abs(np.diff(first, axis=0))[:, square].mean() > 1  # it moves,
    assert first.std(axis=(1, 2)).mean() > 4  # and shows something
    for engine in ENGINES[1:]:
        assert psnr(frames[engine], first) >= MIN_FRAMES_PSNR, engine


@pytest.mark.needs("lite")
def test_a_changed_weight_shows(base_bundle, frames, tmp_path):
    """One number of the UNet, of 2.3 million, is off: an engine that computed that would not pass. It makes 68 dB."""
    folder = shutil.copytree(base_bundle.folder, tmp_path / "bundle")
    path = folder / "onnx" / "unet.onnx"
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[values.size // 2] += 0.1
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    manifest = base_bundle.manifest | {"units": dict(base_bundle.manifest["units"])}
    manifest["units"]["unet"] = manifest["units"]["unet"] | {"onnx": file_entry(folder, path)}
    write_manifest(folder, manifest)
    assert psnr(make_frames(Bundle.load(folder), "onnxruntime"), frames["mindspore"]) < MIN_FRAMES_PSNR


@pytest.mark.needs("lite")
def test_one_video_from_every_engine(base_bundle, open_once, tmp_path):
    videos = {}
    for engine in ENGINES:
        path = tmp_path / f"{engine}.mp4"
        command = ["generate", *flags(), "--bundle", str(base_bundle.folder), "--engine", engine, "--output", str(path)]
        if engine == "onnxruntime":  # which needs no MindSpore
            command = [sys.executable, "-c", WITHOUT_MINDSPORE, *command]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
            assert done.returncode == 0, done.stderr
        else:
            assert main(command) == 0
        videos[engine] = frames_of(path)
        assert videos[engine].shape == (TICKS, SIDE, SIDE, 3)
    for engine in ENGINES[1:]:
        assert psnr(videos[engine], videos["mindspore"]) >= MIN_PSNR, engine


def test_networks_of_a_bundle(base_bundle, base_engine):
    """The pipeline's face of a bundle: arrays in the order of the table in, one array or a tuple out."""
    networks = open_bundle(base_bundle, base_engine("onnxruntime", base_bundle))
    assert isinstance(networks.configs["unet"], UNetConfig) and networks.gear.chunk == 2
    pictures = np.random.default_rng(0).uniform(0, 1, (2, 1, 3, SIDE, SIDE)).astype(np.float32)
    flow, mask, middle = networks.run("rife", *pictures)
    assert (flow.shape, mask.shape, middle.shape) == ((1, 4, SIDE, SIDE), (1, 1, SIDE, SIDE), (1, 3, SIDE, SIDE))
    assert networks.run("vae_encoder", pictures[0]).shape == (1, 4, SIDE // 8, SIDE // 8)


@pytest.mark.needs("lite")
def test_a_bundle_for_a_cpu(base_bundle, frames, tmp_path, monkeypatch):
    """The UNet alone is another graph, and the frames are the same. The other graphs are not exported again."""
    model, out, rearranged = base_bundle.folder.parent / "model", tmp_path / "bundle", []

    def export_unit(ms, unit, table, folder, *rest, export=export_module.export_unit):
        if unit.name in table.rearrange:
            rearranged.append(unit.name)
            return export(ms, unit, table, folder, *rest)
        entry = {kind: value for kind, value in base_bundle.manifest["units"][unit.name].items() if kind != "onnx"}
        shutil.copy(base_bundle.folder / entry["mindir"]["path"], folder / "mindir")
        return entry

    monkeypatch.setattr(export_module, "export_unit", export_unit)
    assert main(["export", "--model", str(model), "--gear", "64x64", "--decode-chunk-size", "2", "--for-cpu",
                 "--out", str(out)]) == 0  # fmt: skip
    bundle = Bundle.load(out)
    assert rearranged == ["unet"] and bundle.manifest["for_cpu"] and not base_bundle.manifest["for_cpu"]
    assert "Conv2DTranspose" in read_mindir(bundle.path("unet", "mindir")).primitives
    assert bundle.manifest["units"]["unet"]["mindir"]["relative_l2"] < 5e-6 and not bundle.has("unet", "onnx")
    assert psnr(make_frames(bundle, "auto"), frames["mindspore"]) > MIN_FRAMES_PSNR

    monkeypatch.setattr(start(), "get_context", lambda name: "Ascend")
    monkeypatch.setenv("SONIC_MS_LITE_TARGET", "ascend")
    for refused in (MindirEngine, LiteEngine, lint_bundle, lambda bundle: pick_units(bundle, (), "mindir")):
        with pytest.raises(EngineError, match="exported --for-cpu, not for Ascend"):
            refused(bundle)


def test_sonic_edge_has_no_feature_cache(tmp_path, capsys):
    assert main(["export", "--feature-cache-branch", "0", "--out", str(tmp_path / "bundle")]) == 2
    assert "--feature-cache-branch is for sonic-base" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [["--dtype", "fp16"], ["--format", "mindir,onnx"], ["--model", "sonic-edge"]])
def test_what_is_not_for_a_cpu(base_bundle, tmp_path, capsys, extra):
    model = str(base_bundle.folder.parent / "model")
    assert main(["export", "--for-cpu", "--model", model, "--out", str(tmp_path / "bundle"), *extra]) == 2
    assert "--for-cpu is " in capsys.readouterr().err
