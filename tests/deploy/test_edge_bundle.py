"""sonic-edge from a bundle: the same video on each engine, and none of MindSpore where the engine needs none."""

import os
import subprocess
import sys

import numpy as np
import pytest

from sonic_ms.cli import main
from sonic_ms.deploy.verify import verify
from sonic_ms.edge.graphs import sample_inputs
from sonic_ms.edge.shipped import GRAPHS, open_shipped
from sonic_ms.edge.units import edge_units
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.video import read_video
from sonic_ms.runtime.ort import OnnxEngine
from tests.support.deploy_toys import MIN_PSNR, WITHOUT_MINDSPORE, frames_of, psnr

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
    assert {path.stem for path in GRAPHS.glob("*.onnx")} == set(edge_units())
    for name, unit in edge_bundle.units.items():
        inputs = sample_inputs(unit)
        found, expected = ours.run(name, inputs), exported.run(name, inputs)
        assert list(found) == [tensor.name for tensor in unit.outputs]
        for output in found:
            np.testing.assert_array_equal(found[output], expected[output])
