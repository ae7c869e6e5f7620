"""Chips that do not exist and flags that ATC would refuse or ignore, before anything is started."""

import pytest

from sonic_ms.ascend.facts import FAMILIES, chips, default_soc, find_chip
from sonic_ms.ascend.flags import flag_problems
from sonic_ms.errors import UsageError

GOOD = {
    "framework": "5",
    "model": "/b/onnx/unet.onnx",
    "output": "/b/om/unet",
    "soc_version": "Ascend310P3",
    "input_shape": "sample:1,8,40,40;time:1,320",
    "precision_mode": "force_fp16",
}


def test_good_flags_have_no_problem():
    assert flag_problems(GOOD) == []
    assert flag_problems(GOOD | {"keep_dtype": "/b/keep.cfg", "external_weight": "1", "log": "error"}) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"presicion_mode": "fp16"}, "is not a flag"),
        ({"auto_tune_mode": "RL"}, "is not a flag"),  # parsed by ATC, without effect
        ({"precision_mode": "fp16"}, "expected one of force_fp16"),
        ({"framework": "2"}, "expected one of 0, 1, 3, 5"),
        ({"external_weight": "yes"}, "expected one of 0, 1, 2"),
        ({"host_env_cpu": "arm64"}, "aarch64"),
        ({"precision_mode_v2": "fp16"}, "--precision_mode and --precision_mode_v2 exclude"),
        ({"dynamic_batch_size": "1,2", "dynamic_image_size": "8,8;9,9"}, "exclude each other"),
        ({"insert_op_conf": "a.cfg", "dynamic_dims": "1;2", "input_format": "ND"}, "exclude each other"),
        ({"model": "/b/mindir/unet.mindir"}, "never reads MINDIR"),
        ({"model": "/b/mindir/unet.mindir", "framework": "1"}, "never reads MINDIR"),
        ({"model": "/b/unet.pb"}, "--framework=5 reads ONNX"),
        ({"weight": "w.caffemodel"}, "Caffe"),
        ({"output": "/b/om/unet.om"}, "without the suffix"),
        ({"output": "/my bundle/unet"}, "in paths"),
        ({"input_shape": "sample:-1,8,40,40"}, "needs gears"),
        ({"dynamic_dims": "1;2"}, "needs --input_format=ND"),
        ({"dynamic_batch_size": "4"}, "1 gears, expected 2 to 100"),
        ({"dynamic_batch_size": ",".join("1" * 101)}, "101 gears"),
        ({"modify_mixlist": "mix.json"}, "needs a mixed precision mode"),
        ({"keep_dtype": "keep.cfg", "precision_mode": "must_keep_origin_dtype"}, "no effect"),
        ({"op_precision_mode": "p.ini", "op_select_implmode": "high_precision"}, "overrides"),
        ({"precision_mode": "allow_mix_precision_bf16"}, "Ascend310P3 has no bfloat16"),
        ({"precision_mode": "allow_fp32_to_bf16", "soc_version": "Ascend310"}, "Ascend310 has no bfloat16"),
        ({"precision_mode": "allow_fp32_to_bf16", "soc_version": "Ascend910A"}, "Ascend910A has no bfloat16"),
        ({"allow_hf32": "true"}, "Atlas A2"),
        ({"sparsity": "1"}, "not for Ascend310P3"),
        ({"soc_version": "Ascend910B"}, "first-generation"),
        ({"soc_version": "Ascend310", "dynamic_batch_size": "1,2"}, "static shapes only"),
        ({"soc_version": "Ascend310B4", "input_shape": "sample:1~4,8,40,40"}, "no shape ranges"),
    ],
)
def test_each_bad_flag_is_named(change, problem):
    problems = flag_problems(GOOD | change)
    assert any(problem in one for one in problems), problems


def test_hif8_is_for_a_newer_chip():
    flags = {name: value for name, value in GOOD.items() if name != "precision_mode"}
    assert "Ascend950 only" in flag_problems(flags | {"precision_mode_v2": "mixed_hif8"})[0]


def test_missing_chip():
    assert flag_problems({"framework": "5", "model": "a.onnx"}) == ["--soc_version is missing"]


@pytest.mark.parametrize("soc", ["Ascend310B4", "Ascend910B3"])
def test_bfloat16_where_there_is_some(soc):
    assert flag_problems(GOOD | {"soc_version": soc, "precision_mode": "allow_mix_precision_bf16"}) == []


@pytest.mark.parametrize(
    ("soc", "cann", "message"),
    [
        ("Ascend910B", None, "first-generation 910"),
        ("Ascend310", "8.3", "gone from CANN 8.3"),
        ("Ascend310", "9.0.0", "gone from CANN 9.0.0"),
        ("Ascend310", "8.10", "gone from CANN 8.10"),  # numbers, not text
        ("310P3", None, "is not a chip"),
        ("Ascend310b4", None, "is not a chip"),
        ("Ascend910B5", None, "is not a chip"),
        ("Ascend310", "newest", "is not a version"),
    ],
)
def test_chips_that_are_refused(soc, cann, message):
    with pytest.raises(UsageError, match=message):
        find_chip(soc, cann)


def test_chips_that_exist():
    assert find_chip("Ascend310", "8.2.RC1").family == "310"
    assert {find_chip(default_soc(family)).family for family in FAMILIES} == set(FAMILIES)
    assert all(chip.memory_gb > chip.reserved_gb > 0 for chip in chips().values())
    # what the makers print: 8 TFLOPS for Ascend310, 4 for Atlas 200I DK A2
    assert find_chip("Ascend310").peak == pytest.approx(8e12, rel=0.05)
    assert find_chip("Ascend310B4").peak == pytest.approx(4e12, rel=0.05)
