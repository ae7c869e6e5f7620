"""Exported files compute what their Cells compute, or there is no bundle."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from sonic_ms.base import graphs
from sonic_ms.deploy import export as export_module
from sonic_ms.deploy import onnx_fixes
from sonic_ms.errors import OutputError, UsageError
from sonic_ms.pipeline import unit_table
from sonic_ms.runtime.choose import open_engine
from sonic_ms.runtime.unit import normal_inputs
from tests.support.deploy_toys import export_toys, toy_units

pytestmark = [pytest.mark.slow]


def test_files_compute_what_the_cells_compute(toys):
    for name, unit in toy_units().items():
        inputs = normal_inputs(unit)
        expected = unit.build()(*[as_tensor(array) for array in inputs.values()])
        expected = expected if isinstance(expected, tuple) else (expected,)
        for engine in ("mindspore", "onnxruntime"):
            found = open_engine(engine, toys).run(name, inputs)
            for tensor, reference in zip(unit.outputs, expected):
                np.testing.assert_allclose(found[tensor.name], reference.asnumpy(), rtol=1e-5, atol=1e-6)
        assert toys.manifest["units"][name]["onnx"]["relative_l2"] < 1e-6


def as_tensor(array):
    import mindspore

    return mindspore.Tensor(array)


def test_manifest_says_where_it_comes_from(toys):
    import mindspore

    assert toys.manifest["mindspore"] == mindspore.__version__
    assert toys.manifest["mind_ir_version"] == 3
    assert toys.manifest["licence"] == "Apache-2.0"


@pytest.mark.parametrize("broken", ["fix_pads", "name_ends"])
def test_a_file_that_differs_makes_no_bundle(tmp_path, monkeypatch, broken):
    monkeypatch.setattr(onnx_fixes, broken, lambda *args: None)
    with pytest.raises(OutputError, match="unit padded"):
        export_toys(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_tolerance_is_enforced(tmp_path, monkeypatch):
    monkeypatch.setitem(export_module.TOLERANCE, "fp32", -1.0)
    with pytest.raises(OutputError, match="differs from its Cell"):
        export_toys(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_the_table_must_be_right(tmp_path):
    import dataclasses

    units = toy_units()
    output = dataclasses.replace(units["padded"].outputs[0], shape=(1, 3, 9, 7))
    units["padded"] = dataclasses.replace(units["padded"], outputs=(output,))
    with pytest.raises(OutputError, match=r"the table of units says float32 \(1, 3, 9, 7\)"):
        export_toys(tmp_path / "bundle", units=units)


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match="exists"):
        export_toys(tmp_path / "bundle")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_large_weights_go_beside_the_mindir_file(tmp_path, monkeypatch, precision):
    """As MindSpore writes them above 1 GB; they are read one by one then (see load_mindir)."""
    import mindspore

    monkeypatch.setattr("mindspore.train.serialization.TOTAL_SAVE", 0)
    loaded = []
    monkeypatch.setattr(mindspore, "load", lambda path, load=mindspore.load: loaded.append(path) or load(path))
    bundle = export_toys(tmp_path / "bundle", precision)  # compares the file's outputs with the Cell's
    path = bundle.path("padded", "mindir")
    assert path.name == "padded_graph.mindir"
    assert (path.parent / "padded_variables" / "data_0").stat().st_size > 3 * 2 * 3 * 3 * 2
    assert [Path(one).parent.name for one in loaded if "padded" in one] != ["mindir"]  # but a copy without weights


def test_large_weights_go_beside_the_onnx_file(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "INLINE_BYTES", 100)
    monkeypatch.setattr(export_module, "EXTERNAL_BYTES", 16)
    bundle = export_toys(tmp_path / "bundle")
    entry = bundle.manifest["units"]["padded"]["onnx"]
    assert [part["path"] for part in entry["data"]] == ["onnx/padded.data"]
    unit = bundle.units["padded"]
    found = [
        open_engine(name, bundle).run("padded", normal_inputs(unit))["map"] for name in ("onnxruntime", "mindspore")
    ]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_numbers_that_are_not_raw_stay_in_the_graph(tmp_path):
    """Beginnings of slices are written as int64_data; only the large weight moves."""
    start = onnx.helper.make_tensor("start", onnx.TensorProto.INT64, [1], [3])
    large = onnx.numpy_helper.from_array(np.arange(2048, dtype=np.float32), "large")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [start, large]))
    assert export_module._pack_weights(onnx, model, tmp_path, tmp_path / "g.data") == [tmp_path / "g.data"]
    found = {one.name: onnx.numpy_helper.to_array(one, str(tmp_path)) for one in model.graph.initializer}
    assert found["start"].tolist() == [3] and found["large"].tolist() == list(range(2048))


def test_half_precision(tmp_path):
    bundle = export_toys(tmp_path / "bundle", "fp16")
    model = onnx.load(bundle.path("padded", "onnx"))
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {onnx.TensorProto.FLOAT16}
    found = open_engine("onnxruntime", bundle).run("padded", normal_inputs(bundle.units["padded"]))["map"]
    assert found.dtype == np.float16


def test_pads_are_put_in_onnx_order():
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 2, 3, 4])
    graph = onnx.helper.make_graph([node], "g", [], [])
    model = onnx.helper.make_model(graph)
    onnx_fixes.fix_pads(model)
    assert list(model.graph.node[0].attribute[0].ints) == [1, 3, 2, 4]


@pytest.mark.parametrize(("rows", "times", "dropped"), [(1, 6, True), (2, 3, False)])
def test_only_tiles_that_broadcasting_replaces_are_dropped(rows, times, dropped):
    """Repeating two rows three times is no broadcast: three guidance branches share the positions of one like that."""
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("Tile", ["x", "times"], ["t"]), onnx.helper.make_node("Add", ["a", "t"], ["y"])]
    ends = [value("x", 1, [rows, 4]), value("a", 1, [6, 4])], [value("y", 1, [6, 4])]
    repeats = onnx.numpy_helper.from_array(np.int64([times, 1]), "times")
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *ends, [repeats]))
    onnx_fixes.drop_tiles(model)
    assert [node.op_type for node in model.graph.node] == (["Add"] if dropped else ["Tile", "Add"])
    onnx.checker.check_model(model, full_check=True)


def test_a_name_that_a_weight_has_already(toys):
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("Add", ["x", "map"], ["z"])]
    weight = onnx.numpy_helper.from_array(np.float32([7]), "map")
    graph = onnx.helper.make_graph(nodes, "g", [value("x", 1, [1])], [value("z", 1, [1])], [weight])
    model = onnx.helper.make_model(graph)
    onnx_fixes.name_ends(model, toy_units()["padded"])
    assert (list(model.graph.node[0].input), list(model.graph.node[0].output)) == (["image", "map_inner"], ["map"])
    assert model.graph.initializer[0].name == "map_inner"


def test_an_opset_that_atc_does_not_read():
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("x", 1, [1])],
            [onnx.helper.make_tensor_value_info("y", 1, [1])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
    )
    with pytest.raises(OutputError, match="opset 20"):
        onnx_fixes.fix_model(model, toy_units()["padded"])


@pytest.mark.parametrize(("gears", "message"), [(("300",), "sonic-edge has 256"), (("wide",), "sonic-edge has")])
def test_gears_of_edge(gears, message):
    with pytest.raises(UsageError, match=message):
        unit_table("sonic-edge", gears=gears)


@pytest.mark.parametrize("gears", [("512",), ("512x500",), ("512x512", "64x64")])
def test_gears_of_base(gears):
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        graphs._size(gears)


def test_frames_of_a_chunk():
    with pytest.raises(UsageError, match="does not decode in chunks"):
        unit_table("sonic-edge", chunk=4)


def test_onnx_may_be_imported_before_mindspore(tmp_path):
    """They want different implementations of protobuf; only MindSpore used to die of it."""
    code = (
        "import onnx; from tests.support.deploy_toys import export_toys\n"
        "from sonic_ms.runtime.ms import start; start()\n"
        f"b = export_toys({str(tmp_path / 'bundle')!r}); print(len(onnx.load(b.path('padded', 'onnx')).graph.node))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    environment.pop("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", None)  # which this process has from MindSpore
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
