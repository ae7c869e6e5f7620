"""MINDIR graphs of a bundle -> MINDIR for MindSpore Lite on Ascend, by converter_lite.

The chip is named by ge.socVersion in the configuration: on a host without an NPU the converter knows no other. Not
verified on hardware or with a real converter for Ascend.
"""

import shlex
from pathlib import Path

from sonic_ms.ascend.atc import audit_file, input_shapes
from sonic_ms.ascend.build import Plan, cann_version, find_tool, pick_units, require_operators, run_plans
from sonic_ms.ascend.facts import find_chip, read
from sonic_ms.bundle import Bundle
from sonic_ms.errors import UsageError

PRECISIONS = {"fp16": "enforce_fp16", "fp32": "preferred_fp32", "origin": "enforce_origin"}


def ini_text(chip, precision, external_weights=False):
    """Configuration file of the converter. precision: one of atc_flags.yaml's lite_precision. Raises UsageError."""
    if precision not in read("atc_flags")["lite_precision"]:
        raise UsageError(
            f"precision_mode {precision!r}; expected one of {', '.join(read('atc_flags')['lite_precision'])}"
        )
    context = {"input_format": "NCHW", "precision_mode": precision, "op_select_impl_mode": "high_precision"}
    lines = ["[ascend_context]", *(f"{key}={value}" for key, value in context.items())]
    lines += ["[acl_init_options]", f"ge.socVersion={chip.soc}"]
    if external_weights:
        lines += ["[acl_build_options]", "ge.externalWeight=1"]
    return "\n".join(lines) + "\n"


def ini_problems(text):
    """Keys of [ascend_context] the converter does not know; it refuses them."""
    known, section, problems = read("atc_flags")["lite_ascend_context"], None, []
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "ascend_context" and line.partition("=")[0] not in known:
            problems.append(f"{line.partition('=')[0]} is not a key of [ascend_context]")
    return problems


def lite_plan(bundle, name, chip, precision=None, converter="converter_lite"):
    """Plan that converts one unit.

    precision: a key of PRECISIONS; None is fp16, but float32 where possible for a unit whose audit names layers (the
    converter has no list of layers, only of operator kinds).
    """
    if precision is None:
        keep = audit_file(bundle, name)
        delicate = keep.is_file() and keep.read_text(encoding="utf-8").strip()
        precision = "origin" if bundle.precision == "fp16" else "fp32" if delicate else "fp16"
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    entry = bundle.manifest["units"][name]["mindir"]
    folder = bundle.folder.resolve() / "lite" / chip.soc / name
    text = ini_text(chip, PRECISIONS[precision], external_weights=bool(entry.get("data")))
    argv = (
        converter,
        "--fmk=MINDIR",
        f"--modelFile={bundle.folder.resolve() / entry['path']}",
        f"--outputFile={folder / name}",
        "--saveType=MINDIR",
        "--optimize=ascend_oriented",
        f"--configFile={folder / 'converter.ini'}",
        f"--inputShape={input_shapes(bundle.units[name])}",
    )
    return Plan(name, "lite", "mindir", chip.soc, argv, folder, {"converter.ini": text}, ".mindir")


def build_lite(folder, soc, units=None, precision=None, cann=None, dry_run=False, report=print):
    """Convert the units of the bundle in `folder` for a chip. Returns the units converted now.

    dry_run: only report the configuration and command lines. Raises UsageError, EngineError.
    """
    chip, bundle = find_chip(soc, cann), Bundle.load(Path(folder))
    names = pick_units(bundle, units, "mindir")
    if dry_run:
        for name in names:
            plan = lite_plan(bundle, name, chip, precision)
            report(plan.written["converter.ini"] + shlex.join(plan.argv))
        return []
    hint = "unpack MindSpore Lite 2.7 or newer and put tools/converter/converter on PATH, or try --dry-run"
    converter = find_tool("converter_lite", hint)
    opp = require_operators(chip)
    plans = [lite_plan(bundle, name, chip, precision, converter) for name in names]
    return run_plans(bundle, plans, cann or cann_version(opp), report)
