"""sonic-edge in onnxruntime by the graphs that come with the package."""

import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from sonic_ms.edge import generator
from sonic_ms.edge.graphs import sample_inputs
from sonic_ms.edge.shipped import check_weights, fits, open_shipped
from sonic_ms.edge.units import EDGE_FOLDER, NETWORKS, edge_units
from sonic_ms.errors import EngineError, WeightsError
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.files.weights import MODEL_FILE, TensorFile, write_tensors
from sonic_ms.pipeline import load_model
from sonic_ms.runtime.cells import MindSporeEngine
from sonic_ms.runtime.engine import runs_at_once
from sonic_ms.runtime.ort import OnnxEngine


def changed_model(folder, change):
    """A copy of the shipped model with every tensor through change(name, array)."""
    for network in NETWORKS:
        shutil.copytree(EDGE_FOLDER / network, folder / network)
        with TensorFile(EDGE_FOLDER / network / MODEL_FILE) as file:
            arrays = {name: np.asarray(change(name, np.float32(file.read(name))), np.float32) for name in file.shapes}
        entries = [(name, "F32", array.shape, lambda array=array: array) for name, array in arrays.items()]
        write_tensors(folder / network / MODEL_FILE, entries)
    return folder


def test_as_many_graph_calls_at_once_as_threads_make_the_same_frames(monkeypatch):
    """One call takes one thread; they come back in order, also where the last ones are fewer than wanted."""
    running, most, lock = 0, [], threading.Lock()

    def counted(self, unit, inputs, run=OnnxEngine._run):
        nonlocal running
        with lock:
            running += 1
            most[-1] = max(most[-1], running)
        try:
            return run(self, unit, inputs)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(OnnxEngine, "_run", counted)
    found = {}
    for threads in ("1", "3", "9"):
        monkeypatch.setenv("SONIC_MS_THREADS", threads)
        most.append(0)
        model = load_model(engine="onnxruntime")
        assert runs_at_once(model.generator.engine, "edge_render_256") == min(int(threads), 4)
        assert runs_at_once(model.generator.engine, "edge_audio") == 1
        video = model.generate(str(DEMO_IMAGE), str(DEMO_AUDIO), duration=2.0, min_resolution=128)
        found[threads] = np.stack(list(video))
    assert len(found["1"]) == 50 and found["1"].std(0).max() > 10
    assert all(np.array_equal(frames, found["1"]) for frames in found.values())
    assert most[0] == 1 and 1 < most[1] <= 3 and 1 < most[2] <= 4


@pytest.mark.slow
def test_no_weight_is_baked_into_a_graph(tmp_path):
    """Other weights in every tensor: onnxruntime shows what MindSpore's Cells show."""
    rng = np.random.default_rng(0)

    def change(name, array):
        if "variance" in name:
            return array * rng.uniform(0.5, 2, array.shape)
        return array * rng.uniform(0.8, 1.2, array.shape) + 0.01 * rng.standard_normal(array.shape)

    folder = changed_model(tmp_path, change)
    ours, theirs = open_shipped(folder), MindSporeEngine(edge_units(folder))
    for name, output in (("edge_audio", "heard"), ("edge_render_256", "patch")):
        inputs = sample_inputs(edge_units(folder)[name])
        found, expected = ours.run(name, inputs)[output], theirs.run(name, inputs)[output]
        assert np.abs(found - expected).max() <= 2e-4 * np.abs(expected).max()
        before = open_shipped().run(name, inputs)[output]
        assert np.abs(before - expected).max() > 1e-2 * np.abs(expected).max()


def test_nothing_imports_mindspore():
    code = (
        "import sys; from sonic_ms.pipeline import load_model; from sonic_ms.files.shipped import *\n"
        "video = load_model().generate(str(DEMO_IMAGE), str(DEMO_AUDIO), duration=0.4, min_resolution=256)\n"
        "assert sum(1 for _ in video) == 10 and video.timings['frames'] > 0\n"
        "print('mindspore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


class Cells:
    """Instead of MindSporeEngine."""

    def __init__(self, units, about):
        self.units = units

    def build(self, unit):
        pass


@pytest.fixture
def no_compiling(monkeypatch):
    monkeypatch.setattr("sonic_ms.runtime.cells.MindSporeEngine", Cells)


def chosen(**more):
    return type(generator.open_folder(**more).engine)


class TestAuto:
    def test_a_cpu_takes_onnxruntime(self, no_compiling):
        assert chosen() is OnnxEngine and chosen(engine="mindspore") is Cells
        assert chosen(precision="fp16") is Cells

    def test_an_npu_takes_mindspore(self, no_compiling, monkeypatch):
        monkeypatch.setattr(generator, "has_npu", lambda: True)
        assert chosen() is Cells

    def test_without_onnxruntime_one_line(self, no_compiling, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.warns(UserWarning, match="onnxruntime cannot be imported.*pip install.*MindSpore runs instead"):
            assert chosen() is Cells

    def test_other_sizes_take_mindspore(self, no_compiling, tmp_path):
        folder = changed_model(tmp_path, lambda name, array: array[:8] if name == "leave.bias" else array)
        assert not fits(folder) and chosen(folder=folder) is Cells
        with pytest.raises(WeightsError, match="other sizes than the shipped"):
            generator.open_folder(folder, engine="onnxruntime")


def test_values_that_are_not_finite(tmp_path):
    folder = changed_model(tmp_path, lambda name, array: array * np.nan if name == "head.bias" else array)
    with pytest.raises(WeightsError, match=r"not finite: head\.bias"):
        check_weights(folder)


def test_what_needs_a_bundle():
    with pytest.raises(EngineError, match="fp16 in onnxruntime needs a bundle"):
        load_model(engine="onnxruntime", precision="fp16")
    with pytest.raises(EngineError, match="engine lite runs exported graphs"):
        load_model(engine="lite")
