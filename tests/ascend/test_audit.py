"""What float16 breaks, found on graphs where it is known."""

import json

import numpy as np
import pytest
from onnx import TensorProto, save_model

from sonic_ms.ascend import audit as audit_module
from sonic_ms.ascend.atc import atc_plan
from sonic_ms.ascend.audit import OUTPUT_ERROR, audit_bundle, audit_graph, format_audit, write_audit
from sonic_ms.ascend.facts import find_chip
from sonic_ms.errors import EngineError
from sonic_ms.runtime.unit import relative_error
from tests.support.ascend_toys import conv_model, model, node, write_bundle


def audit(tmp_path, proto, **feed):
    path = tmp_path / "graph.onnx"
    save_model(proto, path)
    return audit_graph(path, {name: np.asarray(array, np.float32) for name, array in feed.items()}, "toy")


def kept(result):
    return {layer.name: layer.reason for layer in result.kept}


def constants(**values):
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


def test_an_overflow_stays_in_float32(tmp_path):
    nodes = [node("Mul", "x x", "square"), node("Mul", "square small", "y"), node("Tanh", "y", "z")]
    proto = model(nodes, {"x": (4,)}, {"z": (4,)}, constants(small=1e-6))
    result = audit(tmp_path, proto, x=[300, 500, 700, 1000])
    assert kept(result) == {"the_Mul_square": "largest value 1000000", "the_Mul_y": kept(result)["the_Mul_y"]}
    assert result.all_fp16_error["z"] > 1  # tanh of infinity
    assert result.good and result.output_error["z"] < 1e-3
    assert next(layer for layer in result.layers if layer.name == "the_Mul_square").largest == 1e6


def test_values_near_the_limit_count_as_overflow(tmp_path):
    nodes = [node("Mul", "x small", "y")]
    fine = audit(tmp_path, model(nodes, {"x": (2,)}, {"y": (2,)}, constants(small=1)), x=[1, 32000])
    near = audit(tmp_path, model(nodes, {"x": (2,)}, {"y": (2,)}, constants(small=1)), x=[1, 40000])
    assert (kept(fine), list(kept(near))) == ({}, ["the_Mul_y"])


def test_a_harmless_graph_keeps_nothing(tmp_path):
    result = audit(tmp_path, conv_model(), x=np.random.default_rng(0).normal(size=(1, 3, 8, 6)))
    assert kept(result) == {} and result.good
    assert 1e-5 < result.output_error["y"] < 2e-3  # that of float16: 2^-11 and sums of it
    assert result.output_error == result.all_fp16_error


def test_indices_and_all_they_come_from_stay_in_float32(tmp_path):
    """Texel 3001 has no float16. The colours looked up may be float16, and so may what is done with them."""
    nodes = [
        node("Mul", "x scale", "place"),
        node("Floor", "place", "whole"),
        node("Cast", "whole", "index", to=TensorProto.INT32),
        node("Gather", "table index", "colour", axis=0),
        node("Mul", "colour half", "y"),
    ]
    table = np.random.default_rng(0).uniform(0, 1, 4096).astype(np.float32)
    weights = constants(scale=4096.0, half=0.5) | {"table": table}
    places = np.array([3001.5, 17.2, 2049.3]) / 4096
    result = audit(tmp_path, model(nodes, {"x": (3,)}, {"y": (3,)}, weights), x=places)
    assert set(kept(result)) == {"the_Mul_place", "the_Floor_whole", "the_Cast_index"}
    assert result.all_fp16_error["y"] > 0.05 and result.output_error["y"] < 1e-3


@pytest.mark.parametrize(
    ("places", "stays"), [((300, 17, 1024), set()), ((300, 17, 3000), {"place", "whole", "index"})]
)
def test_what_an_index_comes_from_may_be_float16_where_it_counts(tmp_path, places, stays):
    """Texels 300 and 3000 both have a float16, but with another recording 3000 would be 3001."""
    nodes = [
        node("Mul", "x scale", "place"),
        node("Floor", "place", "whole"),
        node("Cast", "whole", "index", to=TensorProto.INT32),
        node("Gather", "table index", "y", axis=0),
    ]
    table = np.random.default_rng(0).uniform(0, 1, 4096).astype(np.float32)
    result = audit(
        tmp_path,
        model(nodes, {"x": (3,)}, {"y": (3,)}, constants(scale=4096.0) | {"table": table}),
        x=np.array(places) / 4096,
    )
    assert {name.rsplit("_")[-1] for name in kept(result)} == stays
    assert result.good and result.output_error["y"] < 1e-3


def test_layers_that_matter_little_go_back_to_float16(tmp_path):
    """Half of the layers before an index hardly move it; the sum far from zero does."""
    fine = [node("Mul", f"{'x' if i == 0 else f'f{i - 1}'} one", f"f{i}") for i in range(8)]
    nodes = [
        *fine,
        node("Add", "f7 big", "far"),
        node("Sub", "far big", "near"),
        node("Mul", "near scale", "place"),
        node("Floor", "place", "whole"),
        node("Cast", "whole", "index", to=TensorProto.INT32),
        node("Gather", "table index", "y", axis=0),
    ]
    table = np.linspace(1, 2, 1025, dtype=np.float32)  # smooth: the next texel is nearly the same
    weights = constants(one=1.0, big=1000.0, scale=1024.0) | {"table": table}
    places = np.random.default_rng(0).uniform(0, 1, 64)
    result = audit(tmp_path, model(nodes, {"x": (64,)}, {"y": (64,)}, weights), x=places)
    assert set(kept(result)) == {"the_Add_far", "the_Sub_near"}
    assert 0 < result.output_error["y"] <= audit_module.PRUNED_ERROR < result.all_fp16_error["y"]


def test_a_difference_of_large_numbers_is_found_by_its_error(tmp_path):
    nodes = [node("Add", "x big", "far"), node("Sub", "far big", "near"), node("Mul", "near ten", "y")]
    proto = model(nodes, {"x": (64,)}, {"y": (64,)}, constants(big=1000, ten=10))
    result = audit(tmp_path, proto, x=np.random.default_rng(0).uniform(0, 1, 64))
    assert {"the_Add_far", "the_Sub_near"} <= set(kept(result))
    assert "of error" in kept(result)["the_Sub_near"]
    assert result.all_fp16_error["y"] > 0.1 > OUTPUT_ERROR > result.output_error["y"]


def test_pieces_find_what_the_whole_finds(tmp_path, monkeypatch):
    """A long graph in pieces of one operator: the same layers and errors, and one tensor a run."""
    nodes = [
        node("Mul", "x scale", "place"),
        node("Floor", "place", "whole"),
        node("Cast", "whole", "index", to=TensorProto.INT32),
        node("Gather", "table index", "colour", axis=0),
        node("Add", "colour big", "far"),
        node("Sub", "far big", "near"),
        node("Add", "near x", "y"),  # x comes from the very beginning
    ]
    table = np.random.default_rng(0).uniform(0, 1, 4096).astype(np.float32)
    proto = model(nodes, {"x": (64,)}, {"y": (64,)}, constants(scale=4096.0, big=1000.0) | {"table": table})
    places = np.random.default_rng(1).uniform(0, 4000, 64) / 4096
    whole = audit(tmp_path, proto, x=places)
    assert "the_Sub_near" in kept(whole) and "the_Floor_whole" in kept(whole)
    outputs, run = [], audit_module._run
    monkeypatch.setattr(audit_module, "_run", lambda m, feed: outputs.append(len(m.graph.output)) or run(m, feed))
    monkeypatch.setattr(audit_module, "PIECE_BYTES", 64 * 4)
    assert audit(tmp_path, proto, x=places) == whole
    assert max(outputs) == 1 and len(outputs) >= 3 * 2 * len(nodes)


def test_weights_beside_the_file(tmp_path):
    save_model(conv_model(), tmp_path / "g.onnx", save_as_external_data=True, location="g.data", size_threshold=16)
    feed = {"x": np.random.default_rng(0).normal(size=(1, 3, 8, 6)).astype(np.float32)}
    assert (tmp_path / "g.data").stat().st_size > 0
    assert audit_graph(tmp_path / "g.onnx", feed).output_error == audit(tmp_path, conv_model(), **feed).output_error


def test_names_must_be_unique(tmp_path):
    nodes = [node("Relu", "x", "y"), node("Relu", "y", "z")]
    nodes[1].name = nodes[0].name
    with pytest.raises(EngineError, match="unique names"):
        audit(tmp_path, model(nodes, {"x": (2,)}, {"z": (2,)}), x=[1, 2])


def test_the_list_reaches_atc(tmp_path):
    nodes = [
        node("Relu", "x", "positive"),
        node("Mul", "positive positive", "square"),
        node("Mul", "square small", "y"),
    ]
    proto = model(nodes, {"x": (4,)}, {"y": (4,)}, constants(small=1e-6))
    bundle = write_bundle(tmp_path / "bundle", {"toy": proto})
    result = audit(tmp_path, proto, x=[300, 500, 700, 1000])
    path = write_audit(bundle, result)
    assert path.read_text().split() == ["the_Mul_square", "the_Mul_y"]
    report = json.loads(path.with_name("toy.json").read_text())
    assert report["layers"][1]["largest"] == 1e6 and report["output_error"]["y"] < OUTPUT_ERROR
    plan = atc_plan(bundle, "toy", find_chip("Ascend310P3"), "fp16")
    assert plan.written == {"keep_dtype.cfg": path.read_text()}
    assert f"--keep_dtype={bundle.folder}/om/Ascend310P3/toy/keep_dtype.cfg" in plan.argv


def test_text(tmp_path):
    nodes = [node("Mul", "x x", "y")]
    result = audit(tmp_path, model(nodes, {"x": (2,)}, {"y": (2,)}), x=[1, 300])
    text = format_audit(result)
    assert "1 of 1 layers stay in float32" in text and "all in float16: inf" in text
    assert "largest: the_Mul_y Mul max 9e+04" in text


def test_half_precision_bundles_are_refused(bundle):
    bundle.manifest["precision"] = "fp16"
    with pytest.raises(EngineError, match="needs an fp32 bundle"):
        next(audit_bundle(bundle))


def test_relative_error():
    assert relative_error(np.array([3.0, 4.0]), np.array([3.0, 5.0])) == pytest.approx(1 / 34**0.5)
    assert relative_error(np.array([np.nan]), np.array([1.0])) == float("inf")
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
