"""The engines onnxruntime and mindspore on small graphs, and how an engine is chosen."""

import importlib.util
import sys

import numpy as np
import pytest

from sonic_ms.errors import EngineError, UsageError
from sonic_ms.runtime.choose import check_engine, open_engine
from sonic_ms.runtime.unit import Tensor, Unit

UNIT = Unit(
    "mix", (Tensor("x", (2, 5)), Tensor("y", (2, 5))), (Tensor("difference", (2, 5)), Tensor("sum", (2,))), None
)
INPUTS = {"x": np.arange(10, dtype=np.float32).reshape(2, 5), "y": np.full((2, 5), 0.25, np.float32)}
NODES = [("Sub", ("x", "y"), "difference", {}), ("ReduceSum", ("x",), "sum", {"axes": [1], "keepdims": 0})]


@pytest.fixture
def onnx_bundle(make_bundle, write_onnx, tmp_path):
    return make_bundle((UNIT,), {"mix": {"onnx": write_onnx(tmp_path / "mix.onnx", UNIT, NODES, {})}})


@pytest.fixture(scope="module")
def mindir(tmp_path_factory):
    import mindspore as ms
    from mindspore import nn, ops

    class Mix(nn.Cell):
        def construct(self, x, y):
            return x - y, ops.reduce_sum(x, 1)

    ms.set_context(mode=ms.GRAPH_MODE)
    path = tmp_path_factory.mktemp("mindir") / "mix"
    ms.export(Mix(), *[ms.Tensor(array) for array in INPUTS.values()], file_name=str(path), file_format="MINDIR")
    return path.with_suffix(".mindir")


@pytest.fixture
def mindir_bundle(make_bundle, mindir, tmp_path):
    (tmp_path / "mix.mindir").write_bytes(mindir.read_bytes())
    return make_bundle((UNIT,), {"mix": {"mindir": tmp_path / "mix.mindir"}})


def check(engine):
    engine.prepare("mix")
    for shift in (0, 1):  # twice: a second run must see its own inputs
        outputs = engine.run("mix", {"x": INPUTS["x"] + np.float32(shift), "y": INPUTS["y"]})
        assert list(outputs) == ["difference", "sum"]
        np.testing.assert_allclose(outputs["difference"], INPUTS["x"] + shift - 0.25)
        np.testing.assert_allclose(outputs["sum"], [10 + 5 * shift, 35 + 5 * shift])
    with pytest.raises(EngineError, match=r"inputs \['x'\], expected \['x', 'y'\]"):
        engine.run("mix", {"x": INPUTS["x"]})
    with pytest.raises(EngineError, match=r"input y is float32 \(5, 2\), expected float32 \(2, 5\)"):
        engine.run("mix", {**INPUTS, "y": INPUTS["y"].T})


def test_onnxruntime(onnx_bundle):
    engine = open_engine("onnxruntime", onnx_bundle)
    check(engine)
    assert engine.info()["engine"] == "onnxruntime" and engine.info()["device"] == "CPUExecutionProvider"
    engine.close()


def test_mindir(mindir_bundle):
    engine = open_engine("mindspore", mindir_bundle)
    check(engine)
    assert engine.info()["engine"] == "mindspore" and engine.info()["graphs"] == "MINDIR"
    engine.close()


def test_onnxruntime_takes_the_npu_when_its_build_has_it(onnx_bundle, monkeypatch):
    import onnxruntime

    asked = []
    available = ["CANNExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, providers: asked.append(providers))
    engine = open_engine("onnxruntime", onnx_bundle)
    engine.prepare("mix")
    assert asked == [["CANNExecutionProvider", "CPUExecutionProvider"]]
    assert engine.info()["device"] == "CANNExecutionProvider"


def test_a_graph_onnxruntime_refuses(make_bundle, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    engine = open_engine("onnxruntime", make_bundle((UNIT,), {"mix": {"onnx": tmp_path / "bad.onnx"}}))
    with pytest.raises(EngineError, match=r"onnxruntime refuses .*bad.onnx"):
        engine.prepare("mix")


def test_a_graph_of_another_shape_than_its_unit(make_bundle, write_onnx, tmp_path):
    other = Unit("mix", (Tensor("x", (2, 6)), Tensor("y", (2, 6))), UNIT.outputs, None)
    path = write_onnx(tmp_path / "other.onnx", other, NODES[1:], {})
    engine = open_engine("onnxruntime", make_bundle((UNIT,), {"mix": {"onnx": path}}))
    with pytest.raises(EngineError, match=r"onnxruntime (fails on unit mix|refuses)"):
        engine.run("mix", INPUTS)


@pytest.mark.parametrize("name", ["onnxruntime", "mindspore"])
def test_a_runtime_that_is_not_installed(name, onnx_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=f"(?i){name} cannot be imported .*pip install"):
        open_engine(name, onnx_bundle)


def test_auto_takes_what_is_installed_and_has_graphs(onnx_bundle, mindir_bundle, monkeypatch):
    # both bundles are one folder: its manifest names the MINDIR only, onnx_bundle was read before
    assert open_engine("auto", onnx_bundle).info()["engine"] == "onnxruntime"
    assert open_engine("auto", mindir_bundle).info()["engine"] == "mindspore"
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mindspore" else find(name))
    with pytest.raises(EngineError, match="nothing installed runs"):
        open_engine("auto", mindir_bundle)


def test_names_of_engines():
    with pytest.raises(UsageError, match="engine 'tensorrt' is not known; expected one of auto, mindspore"):
        check_engine("tensorrt")
    with pytest.raises(EngineError, match="engine lite runs exported graphs"):
        check_engine("lite", ("auto", "mindspore"))
    check_engine("mindspore")
