"""One graph that breaks each rule, and one that does not."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, shape_inference

from sonic_ms.ascend.facts import FAMILIES, default_soc, find_chip
from sonic_ms.ascend.graph import Graph, from_onnx, peak_memory, read_onnx
from sonic_ms.ascend.rules import NEVER, UNKNOWN, memory_findings, mindir_findings, onnx_findings
from sonic_ms.errors import WeightsError
from sonic_ms.runtime.mindir import Mindir
from tests.support.ascend_toys import conv_model, graph, model, node

SOCS = [default_soc(family) for family in FAMILIES]
P310, B310, P3, A910, A2 = (find_chip(soc) for soc in SOCS)


def unary(op, shape=(1, 2, 4, 4), opset=11, **attributes):
    return graph([node(op, "x", "y", **attributes)], {"x": shape}, {"y": None}, opset=opset)


def conv(*arguments, **options):
    return from_onnx(shape_inference.infer_shapes(conv_model(*arguments, **options)))


def transposed(side):
    nodes = [node("ConvTranspose", "x w", "y", strides=[2, 2])]
    return graph(nodes, {"x": (1, 1, side, 4)}, {"y": None}, {"w": np.ones((1, 1, 2, 2), np.float32)})


def with_weight(op, weight, opset=11, **attributes):
    shape = (1, 2) + (4,) * (weight.ndim - 2 if weight.ndim > 3 else 2)
    return graph([node(op, "x w", "y", **attributes)], {"x": shape}, {"y": None}, {"w": weight}, opset=opset)


def resize():
    scales = {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    return graph([node("Resize", "x roi scales", "y")], {"x": (1, 2, 4, 4)}, {"y": None}, scales)


def branch():
    inner = helper.make_graph([node("Relu", "x", "z")], "then", [], [helper.make_tensor_value_info("z", 1, (2,))])
    nodes = [node("If", "flag", "y", then_branch=inner, else_branch=inner)]
    return graph(nodes, {"flag": (TensorProto.BOOL, ()), "x": (2,)}, {"y": (2,)})


def expanded(*shape):
    return graph([node("Expand", "x s", "y")], {"x": (1, 1)}, {"y": None}, {"s": np.array(shape, np.int64)})


def typed(kind, shape=(2, 3)):
    return graph([node("Cast", "x", "y", to=TensorProto.FLOAT)], {"x": (kind, shape)}, {"y": shape})


CASES = [
    # what is wrong, the graph, on which chips, rule, verdict, a word of the reason
    ("opset too old", unary("Relu", opset=10), SOCS, "opset", NEVER, "opset 10"),
    ("opset too new", unary("Relu", opset=19), SOCS, "opset", NEVER, "opset 19"),
    ("int64 input", typed(TensorProto.INT64), SOCS, "input dtype", NEVER, "int64"),
    ("int32 input", typed(TensorProto.INT32), SOCS, "input dtype", UNKNOWN, "int32"),
    ("bfloat16", typed(TensorProto.BFLOAT16), ["Ascend310", "Ascend310P3", "Ascend910A"], "bfloat16", NEVER, "x"),
    ("dynamic input", unary("Relu", (1, None)), SOCS, "static shapes", NEVER, "None"),
    ("size known only when run", unary("NonZero"), SOCS, "static shapes", UNKNOWN, "y"),
    ("a side of 0", expanded(0, 4), SOCS, "empty tensor", NEVER, "(0, 4)"),
    ("2^31 elements", expanded(65536, 32768), SOCS, "elements", NEVER, "2147483648"),
    ("control flow", branch(), SOCS, "control flow", NEVER, "If"),
    ("unknown to ATC", unary("CenterCropPad", opset=18), SOCS, "operator", NEVER, "CenterCropPad"),
    ("newer than Ascend310", unary("IsNaN", opset=13), ["Ascend310"], "operator", NEVER, "newer"),
    ("resize", resize(), ["Ascend310B4"], "operator", NEVER, "Resize"),
    ("PReLU", with_weight("PRelu", np.ones((2, 1, 1), np.float32)), ["Ascend310B4"], "operator", NEVER, "PRelu"),
    ("transposed", transposed(4), ["Ascend310B4"], "operator", NEVER, "transposed"),
    ("width", conv((1, 1, 2, 4097)), SOCS, "conv size", NEVER, "2 x 4097"),
    ("height", conv((1, 1, 100001, 2)), SOCS, "conv size", NEVER, "100001 x 2"),
    ("height on 310P", conv((1, 1, 4097, 2)), ["Ascend310P3"], "conv size", NEVER, "4097 x 2"),
    ("kernel", conv((1, 1, 300, 300), kernel=257), SOCS, "conv kernel", NEVER, "257x257"),
    ("stride", conv((1, 1, 300, 300), strides=[64, 1]), SOCS, "conv stride", NEVER, "64x1"),
    ("pad", conv((1, 1, 8, 8), pads=[0, 256, 0, 0]), SOCS, "conv pad", NEVER, "0x256x0x0"),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "socs", "rule", "verdict", "word"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_each_rule_finds_its_graph_on_its_chips_alone(graph, socs, rule, verdict, word):
    for soc in SOCS:
        found = [one for one in onnx_findings(graph, find_chip(soc)) if one.rule == rule]
        assert bool(found) == (soc in socs), f"{soc}: {found}"
        assert not found or (found[0].verdict == verdict and word in found[0].reason)


def test_limits_are_not_one_too_low():
    for shape, options in (
        ((1, 1, 2, 4096), {}),
        ((1, 1, 4096, 2), {}),
        ((1, 1, 300, 300), {"kernel": 255}),
        ((1, 1, 300, 300), {"strides": [63, 63]}),
        ((1, 1, 8, 8), {"pads": [255] * 4}),
    ):
        for soc in SOCS:
            assert onnx_findings(conv(shape, **options), find_chip(soc)) == []
    assert [one.rule for one in onnx_findings(expanded(65536, 32767), P3)] == []
    for opset in (11, 18):
        assert onnx_findings(unary("Relu", opset=opset), P3) == []
    for kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8):
        assert onnx_findings(typed(kind), P3) == []


def test_transposed_convolutions_have_limits_of_their_own():
    rules = [one.rule for one in onnx_findings(transposed(2049), A2)]  # 4098 high after it
    assert rules == ["conv size"]
    assert onnx_findings(transposed(2048), A2) == []


def test_what_is_doubted_is_not_refused():
    nodes = [node("GridSample", "x g", "y")]
    warped = graph(nodes, {"x": (1, 2, 4, 4), "g": (1, 4, 4, 2)}, {"y": None}, opset=16)
    verdicts = [{one.verdict for one in onnx_findings(warped, find_chip(soc))} for soc in SOCS]
    assert verdicts == [{NEVER}, {NEVER}, {UNKNOWN}, {NEVER}, set()]
    volume = with_weight("Conv", np.ones((2, 2, 1, 1, 1), np.float32))
    verdicts = [{one.verdict for one in onnx_findings(volume, find_chip(soc))} for soc in SOCS]
    assert verdicts == [{NEVER}, {NEVER}, {UNKNOWN}, {UNKNOWN}, set()]


@pytest.mark.parametrize(
    ("mindir", "socs", "rule", "verdict"),
    [
        (Mindir(("Conv2D",), 0, 4), SOCS, "mindir version", NEVER),
        (Mindir(("GroupNorm",), 0, 3), SOCS, "adapter", NEVER),
        (Mindir(("UpsampleNearest2D",), 0, 3), SOCS, "adapter", NEVER),
        (Mindir(("Switch",), 1, 3), SOCS, "control flow", NEVER),
        (Mindir(("Add",), 2, 3), SOCS, "functions", UNKNOWN),
        (Mindir(("PReLU",), 0, 3), ["Ascend310B4"], "operator", NEVER),
        (Mindir(("ResizeNearestNeighborV2",), 0, 3), ["Ascend310B4"], "operator", NEVER),
        (Mindir(("SiLU",), 0, 3), ["Ascend310B4"], "operator", UNKNOWN),
        (Mindir(("FlashAttentionScore",), 0, 3), SOCS[:4], "operator", NEVER),
        (Mindir(("PromptFlashAttention",), 0, 3), ["Ascend310", "Ascend310B4", "Ascend910A"], "operator", NEVER),
    ],
)
def test_primitives(mindir, socs, rule, verdict):
    for soc in SOCS:
        found = [one for one in mindir_findings(mindir, find_chip(soc)) if one.rule == rule]
        assert bool(found) == (soc in socs), f"{soc}: {found}"
        assert all(one.verdict == verdict for one in found)


def test_primitives_that_lite_rewrites_and_helpers_are_fine():
    good = Mindir(("Dense", "SumExt", "MatMulExt", "MakeTuple", "TupleGetItem", "UpdateState", "Conv2D"), 0, 3)
    assert all(list(mindir_findings(good, find_chip(soc))) == [] for soc in SOCS)


def test_memory_of_a_board():
    assert list(memory_findings(1e9, 1.4e9, B310)) == []  # 4 GB, 1.5 of them taken
    (found,) = memory_findings(1e9, 1.6e9, B310)
    assert found.verdict == NEVER and "Atlas 200I DK A2" in found.reason and "2.5 of 4 GB" in found.reason
    assert list(memory_findings(1e9, 1.6e9, B310, memory_gb=8)) == []
    (found,) = memory_findings(23e9, 0.1e9, P3)
    assert "Atlas 300I Pro" in found.reason


def test_memory_says_how_many_frames_fit():
    """2.5 GB are free: 0.2 of weights leave 2.3 for frames of 0.4 each."""
    (found,) = memory_findings(0.2e9, 8 * 0.4e9, B310, chunk=8)
    assert found.reason.endswith("--decode-chunk-size 5")
    (found,) = memory_findings(2.2e9, 8 * 0.4e9, B310, chunk=8)
    assert found.reason.endswith("no frame fits alone")
    assert list(memory_findings(0.2e9, 5 * 0.4e9, B310, chunk=5)) == []


def test_peak_memory_counts_what_lives_at_the_same_time():
    # x (64 values) -> a -> b, and x is read again by the last: x, a, b live at once, then x, b, y
    nodes = [node("Relu", "x", "a"), node("Relu", "a", "b"), node("Add", "b x", "c"), node("Mul", "c w", "y")]
    weights, activations = peak_memory(graph(nodes, {"x": (64,)}, {"y": (64,)}, {"w": np.ones(64, np.float32)}))
    assert (weights, activations) == (64 * 4, 3 * 64 * 4)
    halves = [node("Relu", "x", "y")]
    kind = TensorProto.FLOAT16
    assert peak_memory(graph(halves, {"x": (kind, (64,))}, {"y": (kind, (64,))})) == (0, 2 * 64 * 2)


def test_weights_kept_beside_the_file_are_not_needed(tmp_path):
    import onnx

    path = tmp_path / "big.onnx"
    onnx.save_model(conv_model(), path, save_as_external_data=True, location="big.data", size_threshold=0)
    (tmp_path / "big.data").unlink()
    assert read_onnx(path).shapes["c"] == (1, 4, 8, 6)


def test_a_file_that_is_not_onnx(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x00\x01garbage")
    with pytest.raises(WeightsError, match="cannot be read as ONNX"):
        read_onnx(tmp_path / "a.onnx")


def test_a_graph_is_plain_data():
    plain = from_onnx(model([node("Relu", "x", "y")], {"x": (2,)}, {"y": (2,)}))
    assert isinstance(plain, Graph) and plain.size("x") == 2
    assert replace(plain, shapes={"x": (2, None)}).size("x") is None
