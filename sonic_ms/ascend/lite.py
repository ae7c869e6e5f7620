"""MINDIR graphs of a bundle -> MINDIR for MindSpore Lite on Ascend, by converter_lite.

The chip is named by ge.socVersion in the configuration: on a host without an NPU the converter knows no other. Not
verified on hardware or with a real converter for Ascend.
"""

import shlex
from pathlib import Path

from sonic_ms.ascend.atc import audit_file, input_shapes
from sonic_ms.ascend.build import Job, find_tool, installed_cann, pick_units, run_plans
from sonic_ms.ascend.facts import find_chip, read
from sonic_ms.deploy.bundle import Bundle
from sonic_ms.errors import UsageError

PRECISIONS = {"fp16": "enforce_fp16", "fp32": "preferred_fp32", "origin": "enforce_origin"}


def ini_text(chip, precision, external_weights=False, extra=()):
    """Configuration file of the converter.

    precision: one of atc_flags.yaml's lite_precision; extra: (key, value) pairs of [ascend_context] that win over ours.
    Raises UsageError for keys and values the converter would refuse.
    """
    table = read("atc_flags")
    context = {"input_format": "NCHW", "precision_mode": precision, "op_select_impl_mode": "high_precision"}
    context |= dict(extra)
    unknown = [key for key in context if key not in table["lite_ascend_context"]]
    if unknown:
        known = ", ".join(table["lite_ascend_context"])
        raise UsageError(f"{', '.join(unknown)}: no key of [ascend_context]; the converter knows {known}")
    if context["precision_mode"] not in table["lite_precision"]:
        known = ", ".join(table["lite_precision"])
        raise UsageError(f"precision_mode {context['precision_mode']!r}; expected one of {known}")
    lines = ["[ascend_context]", *(f"{key}={value}" for key, value in context.items())]
    lines += ["[acl_init_options]", f"ge.socVersion={chip.soc}"]
    if external_weights:
        lines += ["[acl_build_options]", "ge.externalWeight=1"]
    return "\n".join(lines) + "\n"


def lite_plan(bundle, name, chip, precision=None, converter="converter_lite", extra=()):
    """Job that converts one unit.

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
    text = ini_text(chip, PRECISIONS[precision], bool(entry.get("data")), extra)
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
    return Job(name, "lite", "mindir", chip.soc, argv, folder, {"converter.ini": text}, ".mindir")


def build_lite(folder, soc, units=None, precision=None, cann=None, extra=(), dry_run=False, report=print):
    """Convert the units of the bundle in `folder` for a chip. Returns the units converted now.

    extra: (key, value) pairs for the converter's [ascend_context], such as plugin_custom_ops.
    dry_run: only report the configuration and command lines. Raises UsageError, EngineError.
    """
    chip, bundle = find_chip(soc, cann), Bundle.load(Path(folder))
    names = pick_units(bundle, units, "mindir")
    if dry_run:
        for name in names:
            plan = lite_plan(bundle, name, chip, precision, extra=extra)
            report(plan.written["converter.ini"] + shlex.join(plan.argv))
        return []
    hint = "unpack MindSpore Lite 2.7 or newer and put tools/converter/converter on PATH, or try --dry-run"
    converter = find_tool("converter_lite", hint)
    version = installed_cann(chip)
    plans = [lite_plan(bundle, name, chip, precision, converter, extra) for name in names]
    return run_plans(bundle, plans, cann or version, report)
