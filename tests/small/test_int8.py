"""INT8 files: onnxruntime runs them, zeros stay zeros, and the lint says what they are on a chip."""

import dataclasses

import numpy as np
import onnx
import onnx.version_converter
import pytest
from onnx import TensorProto, helper, numpy_helper

from sonic_ms.ascend.facts import find_chip
from sonic_ms.ascend.flags import flag_problems
from sonic_ms.ascend.graph import read_onnx
from sonic_ms.ascend.rules import NEVER, UNKNOWN, onnx_findings
from sonic_ms.ascend.sparsity import is_sparse, sparsity_problems
from sonic_ms.cli import main
from sonic_ms.deploy.export import export
from sonic_ms.deploy.int8 import store_smaller, write_int8
from sonic_ms.deploy.verify import verify
from sonic_ms.edge.audio_features import hear
from sonic_ms.edge.shipped import open_shipped
from sonic_ms.errors import OutputError, UsageError, WeightsError
from sonic_ms.files.shipped import DEMO_AUDIO
from sonic_ms.media.audio import load_audio
from sonic_ms.pipeline import sample_inputs, unit_table
from sonic_ms.runtime.ort import OnnxEngine, open_session
from sonic_ms.runtime.unit import Tensor, Unit

UNIT = Unit("toy", (Tensor("x", (1, 8, 6, 6)),), (Tensor("y", (1, 16, 6, 6)),), None)
FLAGS = {"framework": "5", "model": "a.onnx", "output": "a", "sparsity": "1"}


def toy(path, weights):
    """x -> convolution -> a product with a constant matrix, opset 11 as MindSpore exports."""
    matrix = np.eye(6, dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("MatMul", ["h", "m"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in side]
            for side in (UNIT.inputs, UNIT.outputs)]  # fmt: skip
    stored = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(matrix, "m")]
    graph = helper.make_graph(nodes, "toy", *ends, stored)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), path)
    return path


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((16, 8, 3, 3)).astype(np.float32) * rng.uniform(0.1, 5, (16, 1, 1, 1)).astype("f4")
    values[:, ::2] = 0  # 4:2 sparse
    return values


@pytest.fixture
def samples():
    return [{"x": np.random.default_rng(i).standard_normal((1, 8, 6, 6)).astype(np.float32)} for i in range(3)]


def outputs(path, sample):
    return open_session(path).run(None, sample)[0]


def test_a_file_in_8_bits_computes_nearly_the_same(tmp_path, weights, samples):
    exact, path = toy(tmp_path / "exact.onnx", weights), toy(tmp_path / "int8.onnx", weights)
    write_int8(path, UNIT, ("Conv",), samples)
    expected, found = outputs(exact, samples[0]), outputs(path, samples[0])
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)
    model = onnx.load(path)
    assert model.opset_import[0].version == 13
    (stored,) = [numpy_helper.to_array(one) for one in model.graph.initializer if list(one.dims) == [16, 8, 3, 3]]
    assert stored.dtype == np.int8 and (stored[weights == 0] == 0).all()
    assert np.abs(stored).reshape(16, -1).max(1).tolist() == [64] * 16  # a scale for each output; 7 bits
    assert any(n.op_type == "MatMul" and n.input[1] == "m" for n in model.graph.node)  # not asked for: as it was


def test_what_computes_in_float32_is_stored_smaller(tmp_path, weights, samples):
    exact, path = toy(tmp_path / "exact.onnx", weights), toy(tmp_path / "small.onnx", weights)
    model = onnx.version_converter.convert_version(onnx.load(path), 13)
    store_smaller(onnx, model, halves=("m",))
    onnx.save_model(model, path)
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    assert stored["w_stored0"].dtype == np.int8 and (stored["w_stored0"][weights == 0] == 0).all()
    assert np.abs(stored["w_stored0"]).reshape(16, -1).max(1).tolist() == [127] * 16
    assert stored["m_stored0"].dtype == np.float16 and not {"w", "m"} & set(stored)
    expected, found = outputs(exact, samples[0]), outputs(path, samples[0])
    assert 0 < np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)


def test_a_graph_without_such_operators_is_said(tmp_path, weights, samples):
    with pytest.raises(OutputError, match="unit toy: it has no Gemm with weights"):
        write_int8(toy(tmp_path / "a.onnx", weights), UNIT, ("Gemm",), samples)


def test_the_lint_knows_int8(tmp_path, weights, samples):
    path = toy(tmp_path / "a.onnx", weights)
    write_int8(path, UNIT, ("Conv",), samples)
    findings = [f for f in onnx_findings(read_onnx(path), find_chip("Ascend310P3")) if f.rule == "int8"]
    assert [f.verdict for f in findings] == [NEVER, UNKNOWN]
    assert "AMCT's convert_qat_model" in findings[0].reason and "16 or fewer inputs" in findings[1].reason
    assert not any("DequantizeLinear" in f.reason and f.rule == "operator"
                   for f in onnx_findings(read_onnx(path), find_chip("Ascend310P3")))  # fmt: skip


@pytest.mark.parametrize(("soc", "fits"), [("Ascend910B4", True), ("Ascend310B4", True), ("Ascend310P3", False),
                                           ("Ascend910A", False)])  # fmt: skip
def test_sparsity_is_for_some_chips(soc, fits):
    problems = [one for one in flag_problems({**FLAGS, "soc_version": soc}) if "sparsity" in one]
    assert bool(problems) != fits


def test_sparsity_is_for_some_files(tmp_path, weights, samples):
    sparse, dense = toy(tmp_path / "sparse.onnx", weights), toy(tmp_path / "dense.onnx", weights + 1)
    assert is_sparse(weights) and not is_sparse(weights + 1) and not is_sparse(weights[:, :6])
    assert "none of the 2 layers" in sparsity_problems(dense)[0]
    assert "are not int8" in sparsity_problems(sparse)[0]
    write_int8(sparse, UNIT, ("Conv",), samples)
    assert sparsity_problems(sparse) == []


@pytest.mark.slow
def test_export_writes_a_bundle_that_runs(tmp_path):
    """sonic-edge's encoder in int8: a third of the bytes, and it hears the demo as the shipped one does."""
    table = unit_table("sonic-edge", gears=("256",))
    only = {"edge_audio": table.units["edge_audio"]}
    bundle = export(dataclasses.replace(table, units=only), tmp_path / "bundle", ("onnx",), "int8")
    assert bundle.path("edge_audio", "onnx").stat().st_size < 4.8e6 and bundle.precision == "int8"
    engines = (OnnxEngine(bundle), open_shipped())
    samples = load_audio(str(DEMO_AUDIO))
    found, expected = (hear(lambda mel, e=e: e.run("edge_audio", {"mel": mel})["heard"], samples) for e in engines)
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(found.T, expected.T)) > 0.998
    assert (np.abs(found - expected) > 0).any()
    with pytest.raises(WeightsError, match="no mindir"):  # nothing to compare with: one line
        verify(bundle, ["onnxruntime"], sample_inputs("sonic-edge"))


def test_int8_is_for_onnx_and_for_models_that_can(tmp_path, capsys):
    out = str(tmp_path / "b")
    assert main(["export", "--dtype", "int8", "--format", "mindir", "--out", out]) == 2
    assert "--dtype int8 is for ONNX" in capsys.readouterr().err
    table = dataclasses.replace(unit_table("sonic-edge", gears=("256",)), calibrate=None)
    with pytest.raises(UsageError, match="has no int8"):
        export(table, out, ("onnx",), "int8")
