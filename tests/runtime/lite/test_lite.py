"""The lite engine on the CPU, the real MindSpore Lite: what it computes, and graphs that are converted for it.

The real one is never skipped: without it these tests fail. Make it as the README says.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.errors import EngineError, OutputError
from sonic_ms.runtime import lite_process
from sonic_ms.runtime.lite import LiteEngine
from sonic_ms.runtime.ort import OnnxEngine
from sonic_ms.runtime.unit import Tensor, Unit
from tests.support.lite_graphs import MIX, SLOW, values

pytestmark = [pytest.mark.slow, pytest.mark.needs("lite")]


def test_the_real_lite_agrees_with_onnxruntime(engine, bundle):
    reference = OnnxEngine(bundle)
    engine.prepare("mix")
    for seed in range(3):
        inputs = values(MIX, seed)
        found, expected = engine.run("mix", inputs), reference.run("mix", inputs)
        np.testing.assert_allclose(found["difference"], inputs["left"] - inputs["right"], atol=1e-6)
        for name in expected:
            assert found[name].dtype == np.float32
            assert np.linalg.norm(found[name] - expected[name]) < 1e-5 * np.linalg.norm(expected[name])
    assert engine.info()["device"] == "CPU" and engine.info()["version"].startswith("2.")


def test_outputs_belong_to_the_caller_and_repeat_exactly(engine):
    first = engine.run("mix", values(MIX, 0))
    kept = {name: array.copy() for name, array in first.items()}
    engine.run("mix", values(MIX, 1))
    for name in kept:
        np.testing.assert_array_equal(first[name], kept[name])
    again = engine.run("mix", values(MIX, 0))
    for name in kept:
        np.testing.assert_array_equal(again[name], kept[name])


def test_units_share_a_worker_and_its_memory(engine):
    first = engine.run("mix", values(MIX))
    for number in (1, 2):
        np.testing.assert_array_equal(engine.run("twice", {"x": np.full(3, number, np.float32)})["y"], 2 * number)
        again = engine.run("mix", values(MIX))
        assert all((again[name] == first[name]).all() for name in first)


def test_wrong_inputs_never_reach_the_worker(engine):
    with pytest.raises(EngineError, match="input left is float64"):
        engine.run("mix", {**values(MIX), "left": np.zeros((2, 5))})


def test_a_graph_is_converted_once(bundle, monkeypatch):
    asked = []
    call = lite_process.Worker.call
    record = lambda self, *arguments, **request: asked.append(request["do"]) or call(self, *arguments, **request)  # noqa: E731
    monkeypatch.setattr(lite_process.Worker, "call", record)
    for _ in range(2):
        engine = LiteEngine(bundle)
        engine.run("mix", values(MIX))
        engine.close()
    assert asked == ["convert", "load", "run", "load", "run"]
    assert len(list(Path(os.environ["SONIC_MS_CACHE"]).rglob("*"))) == 3  # two folders and one file


def test_another_graph_or_another_lite_is_converted_again(bundle, engine, monkeypatch):
    path = engine._converted("mix")
    monkeypatch.setitem(bundle.manifest["units"]["mix"]["onnx"], "data", [{"path": "mix.onnx", "sha256": "1"}])
    assert engine._converted("mix") != path
    monkeypatch.delitem(bundle.manifest["units"]["mix"]["onnx"], "data")
    monkeypatch.setattr(engine._worker, "version", "2.1.0")
    assert engine._converted("mix") != path


def cached():
    """What lies in the cache of converted graphs."""
    return sorted(path.name for path in (Path(os.environ["SONIC_MS_CACHE"]) / "lite-graphs").iterdir())


def test_a_converter_that_writes_nothing_is_named(engine, monkeypatch):
    """Success without a file; nothing of it may stay in the cache."""
    call = lite_process.Worker.call
    skip = lambda self, *words, **request: None if request["do"] == "convert" else call(self, *words, **request)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(lite_process.Worker, "call", skip)
        with pytest.raises(EngineError, match=r"wrote no graph from .*mix.onnx, and did not say why"):
            engine.prepare("mix")
    assert cached() == []
    assert engine.run("mix", values(MIX))["features"].any()  # the next attempt converts


def test_all_files_of_a_converted_graph_are_kept(engine, monkeypatch):
    """Above 1 GB Lite writes the weights beside the graph; here something lies there that looks like it."""
    call = lite_process.Worker.call

    def beside(self, *words, **request):
        answer = call(self, *words, **request)
        if request["do"] == "convert":
            data = Path(f"{request['result']}_variables") / "data_0"
            data.parent.mkdir()
            data.write_bytes(b"weights")
        return answer

    monkeypatch.setattr(lite_process.Worker, "call", beside)
    assert engine.run("mix", values(MIX))["features"].any()
    graph = engine._converted("mix")
    assert (graph.parent / "graph_variables" / "data_0").read_bytes() == b"weights"
    assert cached() == [graph.parent.name]


def test_another_process_may_convert_the_same_graph_first(engine, monkeypatch):
    convert = LiteEngine._convert

    def slower(self, source, folder):
        convert(self, source, folder)
        shutil.copytree(folder, folder.parent.parent / name)

    name = engine._converted("mix").parent.name
    shutil.rmtree(Path(os.environ["SONIC_MS_CACHE"]) / "lite-graphs")
    monkeypatch.setattr(LiteEngine, "_convert", slower)
    assert engine.run("mix", values(MIX))["features"].any()
    assert cached() == [name]


def test_a_graph_lite_cannot_convert(make_bundle, write_onnx, tmp_path):
    nodes = [("NoSuchOperator", ("x",), "y", {})]
    engine = LiteEngine(make_bundle((SLOW,), {"slow": {"onnx": write_onnx(tmp_path / "a.onnx", SLOW, nodes, {})}}))
    with pytest.raises(EngineError, match=r"failed to convert .*a.onnx: .*NoSuchOperator"):
        engine.prepare("slow")
    engine.close()


def test_a_cache_that_cannot_be_written(engine, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SONIC_MS_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot keep a converted graph"):
        engine.prepare("mix")


def test_half_precision_bundles_run_in_float32(make_bundle, write_onnx, tmp_path):
    """Lite's converter turns the graph into float32; the engine keeps the types of the unit."""
    half = Unit("half", (Tensor("x", (3,), "float16"),), (Tensor("y", (3,), "float16"),), None)
    path = write_onnx(tmp_path / "half.onnx", half, [("Add", ("x", "x"), "y", {})], {})
    engine = LiteEngine(make_bundle((half,), {"half": {"onnx": path}}, precision="fp16"))
    found = engine.run("half", {"x": np.array([0.1, -2, 300], np.float16)})["y"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array([0.1, -2, 300], np.float16) * 2)
    engine.close()
