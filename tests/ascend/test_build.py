"""Compiling a bundle for a chip, through doubles of ATC and converter_lite, and through the scripts by bash.

What the real tools make of these command lines was never tried.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sonic_ms.ascend import atc
from sonic_ms.ascend.atc import atc_plan, build_om
from sonic_ms.ascend.facts import find_chip, read
from sonic_ms.ascend.lite import build_lite, ini_text
from sonic_ms.deploy.bundle import Bundle
from sonic_ms.errors import EngineError, UsageError, WeightsError
from sonic_ms.files.digest import sha256_of

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "atc"
CHIP = find_chip("Ascend310P3")


def quiet(line):
    pass


def entry(bundle, unit, kind="om"):
    return json.loads((bundle.folder / "manifest.json").read_text())["units"][unit][kind]


def test_dry_run_needs_nothing_installed(audited, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("ASCEND_OPP_PATH", raising=False)
    lines = []
    assert build_om(audited.folder, "Ascend310B4", dry_run=True, report=lines.append) == []
    folder = audited.folder / "om" / "Ascend310B4"
    assert lines[0] == (
        f"atc --framework=5 --model={audited.folder}/onnx/first.onnx --output={folder}/first/first "
        "--soc_version=Ascend310B4 --input_format=NCHW --input_shape=x:1,3,8,6 --precision_mode=force_fp16 --log=error "
        f"--keep_dtype={folder}/first/keep_dtype.cfg"
    )
    assert "keep_dtype" not in lines[1]  # its audit named no layer
    assert not (audited.folder / "om").exists()


def test_a_build_and_its_record(audited, cann):
    assert build_om(audited.folder, "Ascend310P3", report=quiet) == ["first", "second"]
    found = entry(audited, "first")
    om = audited.folder / found["path"]
    assert found["path"] == "om/Ascend310P3/first/first.om" and found["sha256"] == sha256_of(om)
    assert (found["soc"], found["version"]) == ("Ascend310P3", "8.2.RC1")
    assert (
        found["command"].startswith(f"{cann.bin}/atc --framework=5 ")
        and "--soc_version=Ascend310P3" in found["command"]
    )
    assert (om.parent / "log.txt").read_text() == "ATC run success\n"
    assert (om.parent / "keep_dtype.cfg").read_text() == "the_Conv_c\n"
    assert (om.parent / "kernel_meta").is_dir()  # what ATC leaves behind stays in the unit's folder
    assert Bundle.load(audited.folder).path("first", "om") == om


@pytest.mark.slow
def test_finished_units_are_not_built_again(audited, cann):
    build_om(audited.folder, "Ascend310P3", report=quiet)
    assert build_om(audited.folder, "Ascend310P3", report=quiet) == []
    assert cann.calls() == ["first", "second"]
    (audited.folder / "om/Ascend310P3/second/second.om").write_bytes(b"damaged")
    assert build_om(audited.folder, "Ascend310P3", report=quiet) == ["second"]
    (audited.folder / "audit/first.keep_dtype.cfg").write_text("the_Relu_y\n")
    assert build_om(audited.folder, "Ascend310P3", report=quiet) == ["first"]
    (cann.folder / "version.info").write_text("Version=8.1.RC1\n")
    assert build_om(audited.folder, "Ascend310P3", report=quiet) == ["first", "second"]
    assert build_om(audited.folder, "Ascend310P3", extra=[("op_debug_level", "1")], units=["first"], report=quiet)


def test_a_failed_unit_keeps_the_ones_before_it(audited, cann):
    build_om(audited.folder, "Ascend310P3", units=["first"], report=quiet)
    cann.broken.touch()
    with pytest.raises(EngineError, match=r"unit second: atc failed \(1\): EZ3002.*; see .*second/log.txt"):
        build_om(audited.folder, "Ascend310P3", report=quiet)
    assert "om" not in json.loads((audited.folder / "manifest.json").read_text())["units"]["second"]
    cann.broken.unlink()
    assert build_om(audited.folder, "Ascend310P3", report=quiet) == ["second"]
    assert cann.calls() == ["first", "second", "second"]


def test_another_host(audited, cann):
    build_om(audited.folder, "Ascend310P3", ["first"], host_cpu="aarch64", report=quiet)
    assert entry(audited, "first")["path"].endswith("first_linux_aarch64.om")
    with pytest.raises(UsageError, match="host_env_cpu=arm64"):
        build_om(audited.folder, "Ascend310P3", ["first"], host_cpu="arm64", report=quiet)


def test_big_graphs_keep_their_weights_outside(audited, cann, monkeypatch):
    assert "--external_weight=1" not in atc_plan(audited, "first", CHIP, "fp16").argv
    monkeypatch.setattr(atc, "EXTERNAL_WEIGHT_BYTES", 100)
    build_om(audited.folder, "Ascend310P3", ["first"], report=quiet)
    assert [one["path"] for one in entry(audited, "first")["data"]] == ["om/Ascend310P3/first/weight/weight_0"]


def test_precisions(bundle, audited):
    def mode(precision):
        argv = atc_plan(bundle, "first", find_chip("Ascend910B3"), precision).argv
        kept = any(one.startswith("--keep_dtype") for one in argv)
        return next(one for one in argv if "precision_mode" in one).partition("=")[2], kept

    assert mode("fp16") == ("force_fp16", True)
    assert mode("mixed") == ("allow_mix_precision", True)
    assert mode("bf16") == ("allow_mix_precision_bf16", True)
    assert mode("fp32") == ("allow_fp32_to_fp16", False)
    assert mode("origin") == ("must_keep_origin_dtype", False)
    with pytest.raises(UsageError, match="Ascend310P3 has no bfloat16"):
        atc_plan(bundle, "first", CHIP, "bf16")
    with pytest.raises(UsageError, match="precision 'int8'; expected one of fp16"):
        atc_plan(bundle, "first", CHIP, "int8")


def test_half_precision_bundles_stay_as_exported(bundle):
    bundle.manifest["precision"] = "fp16"
    (bundle.folder / "manifest.json").write_text(json.dumps(bundle.manifest))
    lines = []
    build_om(bundle.folder, "Ascend310P3", dry_run=True, report=lines.append)
    assert all("--precision_mode=must_keep_origin_dtype" in line for line in lines)


def test_refusals(bundle, cann, monkeypatch):
    def refused(kind, message, soc="Ascend310P3", **options):
        with pytest.raises(kind, match=message):
            build_om(bundle.folder, soc, report=quiet, **options)
        assert cann.calls() == [] and not (bundle.folder / "om").exists()

    refused(UsageError, "no audit in .*; run sonic-ms audit-fp16")
    options = {"precision": "fp32"}
    refused(UsageError, "first-generation", "Ascend910B", **options)
    refused(
        EngineError,
        r"no operators for Ascend910B3 .*ascend910b is missing\); install its ops",
        "Ascend910B3",
        **options,
    )
    refused(WeightsError, "no unit 'third'", units=["third"], **options)
    refused(UsageError, "--nonsense is not a flag", extra=[("nonsense", "1")], **options)
    refused(UsageError, "never reads MINDIR", extra=[("model", "a.mindir")], **options)
    (cann.folder / "version.info").write_text("Version=9.0.0\n")
    refused(UsageError, "Ascend310 is gone from CANN 9.0.0", "Ascend310", **options)
    monkeypatch.setenv("ASCEND_OPP_PATH", "/nowhere")
    refused(EngineError, "ASCEND_OPP_PATH is /nowhere; source", **options)
    monkeypatch.delenv("ASCEND_OPP_PATH")
    refused(EngineError, "ASCEND_OPP_PATH is not set; source CANN's set_env.sh", **options)
    monkeypatch.setenv("PATH", "/nowhere")
    refused(EngineError, "atc is not on PATH; install CANN", **options)


def test_a_damaged_graph_is_not_compiled(audited, cann):
    (audited.folder / "onnx/first.onnx").write_bytes(b"other")
    with pytest.raises(WeightsError, match="has changed since it was exported"):
        build_om(audited.folder, "Ascend310P3", report=quiet)
    assert cann.calls() == []


def test_the_double_refuses_what_atc_refuses(audited, cann, monkeypatch):
    """That a green build says something."""
    monkeypatch.setattr(atc, "input_shapes", lambda unit: "x:1,3,8,7")
    with pytest.raises(EngineError, match="E10002"):
        build_om(audited.folder, "Ascend310P3", report=quiet)
    monkeypatch.undo()
    run = subprocess.run([cann.bin / "atc", "--presicion=fp16"], capture_output=True, text=True)
    assert run.returncode == 1 and "E10001" in run.stderr


def test_lite(audited, cann):
    assert build_lite(audited.folder, "Ascend310P3", report=quiet) == ["first", "second"]
    found = entry(audited, "first", "lite")
    assert found["path"] == "lite/Ascend310P3/first/first.mindir" and found["soc"] == "Ascend310P3"
    ini = (audited.folder / "lite/Ascend310P3/first/converter.ini").read_text()
    assert "ge.socVersion=Ascend310P3" in ini and "precision_mode=preferred_fp32" in ini  # its audit named a layer
    ini = (audited.folder / "lite/Ascend310P3/second/converter.ini").read_text()
    assert "precision_mode=enforce_fp16" in ini and "externalWeight" not in ini
    assert build_lite(audited.folder, "Ascend310P3", report=quiet) == []
    assert Bundle.load(audited.folder).path("first", "lite").read_bytes() == b"lite"
    audited.manifest["units"]["first"]["lite"] = {"path": "../first.mindir", "sha256": ""}
    (audited.folder / "manifest.json").write_text(json.dumps(audited.manifest))
    with pytest.raises(WeightsError, match="leaves the bundle"):
        Bundle.load(audited.folder)


def test_lite_configuration():
    text = ini_text(CHIP, "enforce_fp16", True, [("plugin_custom_ops", "FlashAttention")])
    assert text.splitlines()[-2:] == ["[acl_build_options]", "ge.externalWeight=1"]
    assert "plugin_custom_ops=FlashAttention" in text
    assert "enforce_origin" in read("atc_flags")["lite_precision"]
    with pytest.raises(UsageError, match="plugin_ops: no key of"):
        ini_text(CHIP, "enforce_fp16", extra=[("plugin_ops", "All")])
    with pytest.raises(UsageError, match="precision_mode 'fp16'"):
        ini_text(CHIP, "fp16")
    with pytest.raises(UsageError, match="precision_mode 'force_fp16'"):  # ATC's word, not Lite's
        ini_text(CHIP, "enforce_fp16", extra=[("precision_mode", "force_fp16")])


def test_lite_refusals(bundle, cann, monkeypatch):
    with pytest.raises(UsageError, match="precision 'mixed'"):
        build_lite(bundle.folder, "Ascend310P3", precision="mixed", report=quiet)
    with pytest.raises(EngineError, match="no operators for Ascend310B4"):
        build_lite(bundle.folder, "Ascend310B4", report=quiet)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineError, match="converter_lite is not on PATH"):
        build_lite(bundle.folder, "Ascend310P3", report=quiet)


def bash(script, *arguments, **environment):
    environment = {**os.environ, "PYTHON": sys.executable} | environment
    command = ["bash", SCRIPTS / script, *arguments]
    return subprocess.run([str(one) for one in command], capture_output=True, text=True, env=environment, cwd="/")


@pytest.mark.parametrize(
    ("script", "soc"),
    [
        ("build_310.sh", "Ascend310"),
        ("build_310b.sh", "Ascend310B4"),
        ("build_310p.sh", "Ascend310P3"),
        ("build_910.sh", "Ascend910A"),
        ("build_910b.sh", "Ascend910B3"),
    ],
)
def test_scripts_name_their_chip(audited, script, soc):
    run = bash(script, "--bundle", audited.folder, "--dry-run")
    assert run.returncode == 0, run.stderr
    assert [f"--soc_version={soc} " in line for line in run.stdout.splitlines()] == [True, True]


def test_script_builds_records_and_resumes(audited, cann):
    run = bash("build_310p.sh", "--bundle", audited.folder, "--units", "second", SOC="Ascend310P1")
    assert run.returncode == 0, run.stderr
    assert entry(audited, "second")["soc"] == "Ascend310P1" and cann.calls() == ["second"]
    assert "finished before" in bash("build_om.sh", "--bundle", audited.folder, "--soc", "Ascend310P1",
                                     "--units", "second").stdout  # fmt: skip
    assert cann.calls() == ["second"]


def test_script_for_lite(audited, cann):
    run = bash("build_lite.sh", "--bundle", audited.folder, "--soc", "Ascend310P3",
               "--ascend-context", "plugin_custom_ops=All", "--dry-run")  # fmt: skip
    assert run.returncode == 0 and run.stdout.count("plugin_custom_ops=All") == 2
    assert run.stdout.count("converter_lite --fmk=MINDIR") == 2


def test_scripts_refuse_in_one_line(audited, bundle):
    run = bash("build_310p.sh", "--bundle", audited.folder, PATH="/usr/bin:/bin")
    assert (run.returncode, run.stdout) == (10, "")
    assert (
        run.stderr
        == "sonic-ms: atc is not on PATH; install CANN's toolkit and source its set_env.sh, or try --dry-run\n"
    )
    run = bash("build_910b.sh", "--bundle", audited.folder, "--dry-run", SOC="Ascend910B")
    assert run.returncode == 2 and "first-generation" in run.stderr
    assert bash("build_310p.sh").returncode == 2  # no bundle
