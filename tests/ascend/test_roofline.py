"""Operations and bytes, counted by hand."""

import numpy as np
import pytest
from onnx import TensorProto, shape_inference

from sonic_ms.ascend.facts import find_chip
from sonic_ms.ascend.graph import from_onnx
from sonic_ms.ascend.roofline import (
    bundle_costs,
    calls_per_second,
    cheaper_calls,
    format_cheaper,
    format_prediction,
    predict,
    seconds,
    unit_cost,
)
from sonic_ms.base.units import BaseGear, base_units
from sonic_ms.edge.units import edge_units
from sonic_ms.errors import WeightsError
from sonic_ms.runtime.unit import Tensor, Unit
from tests.support.ascend_toys import conv_model, graph, node, write_bundle


def cost(*arguments, **options):
    return unit_cost(graph(*arguments, **options))


def test_a_convolution():
    one = unit_cost(from_onnx(shape_inference.infer_shapes(conv_model((1, 3, 8, 6), filters=4))))
    x, w, c = 3 * 8 * 6, 4 * 3 * 3 * 3, 4 * 8 * 6
    assert one.operators == ((2 * c * 27, 2 * (x + w + c)), (c, 2 * (c + c)))  # and the Relu
    assert one.operations == 2 * c * 27 + c
    assert one.outside_bytes == 2 * (x + w + c)  # y is as large as c


def test_depthwise_and_transposed_convolutions():
    depthwise = cost([node("Conv", "x w", "y", group=4)], {"x": (1, 4, 5, 5)}, {"y": None},
                     {"w": np.ones((4, 1, 3, 3), np.float32)})  # fmt: skip
    assert depthwise.operations == 2 * (4 * 3 * 3) * 9
    transposed = cost([node("ConvTranspose", "x w", "y", strides=[2, 2])], {"x": (1, 3, 5, 5)}, {"y": None},
                      {"w": np.ones((3, 8, 2, 2), np.float32)})  # fmt: skip
    assert transposed.operations == 2 * (3 * 5 * 5) * 8 * 2 * 2


def test_products():
    batched = cost([node("MatMul", "a b", "y")], {"a": (2, 3, 4, 5), "b": (2, 3, 5, 6)}, {"y": None})
    assert batched.operations == 2 * (2 * 3 * 4 * 6) * 5
    gemm = cost([node("Gemm", "a b", "y", transA=1)], {"a": (5, 4), "b": (5, 6)}, {"y": None})
    assert gemm.operations == 2 * (4 * 6) * 5


def test_reductions_views_and_lookups():
    mean = cost([node("ReduceMean", "x", "m", axes=[1]), node("Squeeze", "m", "y", axes=[1])],
                {"x": (4, 100)}, {"y": None})  # fmt: skip
    assert mean.operations == 400 and len(mean.operators) == 1
    table = {"table": np.ones((1000, 3), np.float32)}
    looked_up = cost([node("Gather", "table i", "y", axis=0)], {"i": (TensorProto.INT32, (7,))}, {"y": None}, table)
    assert looked_up.operators[0][1] == 2 * (2 * 21 + 7)  # not the table


def test_seconds_are_the_slower_of_both_limits():
    chip = find_chip("Ascend310B4")
    one = unit_cost(from_onnx(shape_inference.infer_shapes(conv_model((1, 64, 64, 64), filters=64))))
    best, unfused = seconds(one, chip)
    moved = [amount / 25.6e9 for _, amount in one.operators]
    assert one.operations / chip.peak > one.outside_bytes / 25.6e9
    assert best == one.operations / chip.peak
    assert unfused == pytest.approx(max(one.operators[0][0] / chip.peak, moved[0]) + moved[1])
    small = unit_cost(from_onnx(shape_inference.infer_shapes(conv_model((1, 1, 64, 64), filters=1))))
    assert seconds(small, chip)[0] == small.outside_bytes / 25.6e9


def test_runs_for_a_second_of_video():
    assert calls_per_second(edge_units(sides=(256, 512))) == {"edge_audio": 25 / 200, "edge_render_512": 25 / 8}
    assert "edge_render_256" in calls_per_second(edge_units(sides=(256,)))
    from sonic_ms.base.check import PUBLISHED

    one = calls_per_second(base_units(PUBLISHED, BaseGear(512, 512), None))
    assert one["unet"] == 25 * 3 * 12.5 / 25  # steps * branches * frames a second / frames of a window
    assert calls_per_second(base_units(PUBLISHED, BaseGear(512, 512, branches=3), None))["unet"] == 25 * 12.5 / 25
    assert (one["rife"], one["vae_decoder"], one["whisper"]) == (12.5, 12.5 / 8, 1 / 30)
    assert "clip" not in one and "vae_encoder" not in one


def test_table(tmp_path):
    renamed = Unit("edge_audio", (Tensor("x", (1, 3, 8, 6)),), (Tensor("y", (1, 4, 8, 6)),), None)
    bundle = write_bundle(tmp_path / "bundle", {"edge_audio": conv_model(), "edge_render_256": conv_model()})
    assert bundle.units["edge_audio"] == renamed
    costs = bundle_costs(bundle)
    rows = predict(costs, ["Ascend310P3", "Ascend910B3"])
    chip, best, unfused = rows[0]
    runs = {"edge_audio": 25 / 6, "edge_render_256": 25 / 1}  # the first side of an output counts frames
    each = seconds(costs["edge_audio"][1], chip)
    assert best == pytest.approx(sum(runs.values()) * each[0])
    assert unfused == pytest.approx(sum(runs.values()) * each[1])
    text = format_prediction(rows, costs)
    assert "Predicted, never measured" in text
    assert f"| Ascend310P3 | 69.5 | 204 | {best:.3g} | {unfused:.3g} |" in text
    del bundle.manifest["units"]["edge_audio"]["onnx"]
    with pytest.raises(WeightsError, match="has no onnx of edge_audio"):
        bundle_costs(bundle)


def test_ways_to_save_work_are_columns():
    from sonic_ms.base.check import PUBLISHED

    units = base_units(PUBLISHED, BaseGear(512, 512, cache_branches=(0,)), None)
    ways = cheaper_calls(units)
    assert "quality fast" in ways and "quality balanced" not in ways  # which is of the other branch
    once = 12.5 / 25  # windows for a second
    assert ways["guidance_reuse 2"]["unet"] == once * (13 * 3 + 12 * 2)
    cached = ways["feature_cache 2, branch 0"]
    assert (cached["unet_features0"], cached["unet_shallow0"]) == (
        once * 13 * 3,
        once * 12 * 3,
    ) and "unet" not in cached
    assert cached["rife"] == 12.5
    assert set(cheaper_calls(base_units(PUBLISHED, BaseGear(512, 512), None))) == {
        "guidance_reuse 2", "image interval 0,0.6"
    }  # fmt: skip
    assert cheaper_calls(base_units(PUBLISHED, BaseGear(512, 512, branches=3), None)) == {}
    assert cheaper_calls(edge_units(sides=(256,))) == {}
    one = unit_cost(from_onnx(shape_inference.infer_shapes(conv_model())))
    costs, fewer = {"unet": (37.5, one)}, {"half": {"unet": (18.75, one)}}
    lines = format_cheaper(costs, fewer, ["Ascend310P3"]).splitlines()
    best, plain = seconds(one, find_chip("Ascend310P3"))
    assert lines[-3] == "| chip | everything | half |"
    numbers = [f"{count * best:.3g} / {count * plain:.3g}" for count in (37.5, 18.75)]
    assert lines[-1] == f"| Ascend310P3 | {numbers[0]} | {numbers[1]} |"
    assert format_cheaper(costs, {}) == ""
