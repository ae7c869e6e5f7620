"""sonic-edge from a bundle: the same video on each engine, and none of MindSpore where the engine needs none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.cli import main
from sonic_ms.deploy.bundle import file_entry, write_manifest
from sonic_ms.deploy.verify import verify
from sonic_ms.edge.graphs import sample_inputs
from sonic_ms.edge.shipped import GRAPHS, open_shipped
from sonic_ms.edge.units import EDGE_BATCH, LIVE_SIDES, edge_units
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.audio import load_audio
from sonic_ms.media.video import read_video
from sonic_ms.pipeline import load_model
from sonic_ms.runtime.cells import MindSporeEngine
from sonic_ms.runtime.ort import OnnxEngine
from tests.support.acl_double import AclDouble
from tests.support.deploy_toys import MIN_PSNR, WITHOUT_MINDSPORE, frames_of, psnr
from tests.support.live_speech import SteppedClock

pytestmark = [pytest.mark.slow]

SIDE = 512  # pixels of the moving square, which with this much room around the face is the whole picture
OPTIONS = ["--image", str(DEMO_IMAGE), "--audio", str(DEMO_AUDIO), "--duration", "1.2", "--expand-ratio", "1.0"]
OPTIONS += ["--min-resolution", str(SIDE)]


@pytest.mark.needs("lite")
def test_all_units_agree(edge_bundle):
    rows = verify(edge_bundle, ["onnxruntime", "lite"], sample_inputs)
    outputs = ["heard", "square", "patch", "square", "patch"]
    assert [(row["engine"], row["output"]) for row in rows] == [
        (engine, output) for engine in ("onnxruntime", "lite") for output in outputs
    ]
    assert all(row["relative_l2"] <= 1e-5 for row in rows)  # lite may be off by 1e-3, but is not


@pytest.mark.needs("lite")
def test_one_video_from_every_engine(edge_bundle, tmp_path):
    cells, mindir, onnx, lite = (tmp_path / f"{name}.mp4" for name in ("cells", "mindir", "onnx", "lite"))
    bundle = ["--bundle", str(edge_bundle.folder)]
    assert main(["generate", *OPTIONS, "--output", str(cells)]) == 0
    assert main(["generate", *OPTIONS, *bundle, "--engine", "mindspore", "--output", str(mindir)]) == 0
    command = [sys.executable, "-c", WITHOUT_MINDSPORE, "generate", *OPTIONS, *bundle]
    for engine, path in (("onnxruntime", onnx), ("lite", lite)):
        arguments = ["--engine", engine, "--output", str(path)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr
    expected = frames_of(cells)
    assert expected.shape == (30, SIDE, SIDE, 3)
    for path in (mindir, onnx, lite):
        assert psnr(frames_of(path), expected) >= MIN_PSNR, path.name


def test_a_square_the_bundle_has_no_graph_for(edge_bundle, tmp_path, capsys):
    """A larger photo is worked on at the size that there is."""
    options = [*OPTIONS[:-2], "--min-resolution", "768", "--bundle", str(edge_bundle.folder)]
    assert main(["generate", *options, "--duration", "0.4", "--output", str(tmp_path / "v.mp4")]) == 0
    assert next(iter(read_video(tmp_path / "v.mp4"))).shape[0] == 768


def test_model_and_bundle_exclude_each_other(edge_bundle, tmp_path):
    options = [*OPTIONS, "--bundle", str(edge_bundle.folder), "--model", "sonic-edge"]
    assert main(["generate", *options, "--output", str(tmp_path / "v.mp4")]) != 0


def test_the_graphs_are_those_of_an_export(edge_bundle):
    """A Cell that changed without `python -m bench.make_graphs` shows something else."""
    exported = OnnxEngine(edge_bundle)
    ours = open_shipped()
    assert {path.stem for path in GRAPHS.glob("*.onnx")} == set(edge_units(live=LIVE_SIDES))
    for name, unit in edge_bundle.units.items():
        inputs = sample_inputs(unit)
        found, expected = ours.run(name, inputs), exported.run(name, inputs)
        assert list(found) == [tensor.name for tensor in unit.outputs]
        for output in found:
            np.testing.assert_array_equal(found[output], expected[output])


def test_the_graphs_of_single_frames_compute_the_same():
    ours, units = open_shipped(), edge_units(live=LIVE_SIDES)
    for side in LIVE_SIDES:
        inputs = sample_inputs(units[f"edge_render_{side}"])
        eight = ours.run(f"edge_render_{side}", inputs)
        one = ours.run(f"edge_live_{side}", {**inputs, "parameters": inputs["parameters"][3:4]})
        np.testing.assert_allclose(one["patch"][0], eight["patch"][3], atol=0.01)  # of 255
        assert (one["square"][0] != eight["square"][3]).mean() < 1e-3  # a texel on the edge of two
    assert len(eight["square"]) == EDGE_BATCH
    inputs = sample_inputs(units["edge_live_audio"])
    cell = MindSporeEngine(units).run("edge_live_audio", inputs)["heard"]
    np.testing.assert_allclose(ours.run("edge_live_audio", inputs)["heard"], cell, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def live_frames(edge_bundle):
    """Frames 15 to 22 of a live session on the bundle in onnxruntime."""
    return speak_live(load_model(bundle=edge_bundle.folder, engine="onnxruntime"))


def speak_live(model):
    samples = load_audio(DEMO_AUDIO)
    with model.live(str(DEMO_IMAGE), clock=SteppedClock(), min_resolution=128, watermark=False) as session:
        session.push(samples[: 2 * 16000])
        return [frame.image for frame in (session.pull() for _ in range(23))][15:]


@pytest.mark.parametrize("engine", ["mindspore", pytest.param("lite", marks=pytest.mark.needs("lite"))])
def test_a_live_session_on_the_graphs_of_a_bundle(edge_bundle, live_frames, engine):
    """They draw eight frames at once and hear eight seconds: slow, but the same face."""
    found = speak_live(load_model(bundle=edge_bundle.folder, engine=engine))
    for image, expected in zip(found, live_frames):
        assert np.abs(image.astype(int) - expected).max() <= 2
    assert max(np.abs(image.astype(int) - live_frames[0]).max() for image in live_frames) > 20


def test_a_live_session_on_the_double_of_acl(edge_bundle, live_frames, tmp_path, monkeypatch):
    """The protocol of a chip, frame by frame; the double's programs are the ONNX graphs."""
    graphs = OnnxEngine(edge_bundle)

    def program(unit):
        names = [tensor.name for tensor in unit.inputs]
        return lambda arrays: list(graphs.run(unit.name, dict(zip(names, arrays))).values())

    acl = AclDouble({name: program(unit) for name, unit in edge_bundle.units.items()})
    monkeypatch.setitem(sys.modules, "acl", acl)
    folder = Path(shutil.copytree(edge_bundle.folder, tmp_path / "bundle"))
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, unit in edge_bundle.units.items():
        sides = {
            side: [
                {"name": one.name, "dims": list(one.shape), "dtype": 3 if one.dtype == "int32" else 0}
                for one in getattr(unit, side)
            ]
            for side in ("inputs", "outputs")
        }
        path = folder / f"{name}.om"
        path.write_text(json.dumps({"program": name, **sides}))
        manifest["units"][name]["om"] = file_entry(folder, path, ())
    (folder / "manifest.json").unlink()
    write_manifest(folder, manifest)
    model = load_model(bundle=folder, engine="acl")
    found = speak_live(model)
    model.generator.engine.close()
    assert not acl.leaks()
    for image, expected in zip(found, live_frames):
        np.testing.assert_array_equal(image, expected)
