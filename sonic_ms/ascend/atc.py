"""ONNX graphs of a bundle -> .om files, by CANN's ATC. The command lines are made here, scripts/atc/ only calls this.

ATC never reads MINDIR, so the way is always `--framework=5`. Not verified on hardware or with a real CANN.
"""

import shlex
from pathlib import Path

from sonic_ms.ascend.build import Job, find_tool, installed_cann, pick_units, run_plans
from sonic_ms.ascend.facts import find_chip
from sonic_ms.ascend.flags import flag_problems
from sonic_ms.ascend.sparsity import sparsity_problems
from sonic_ms.deploy.bundle import Bundle
from sonic_ms.errors import UsageError

# name -> ATC's precision_mode. fp16 lowers everything but the layers the audit names.
PRECISIONS = {
    "fp16": "force_fp16",
    "mixed": "allow_mix_precision",
    "fp32": "allow_fp32_to_fp16",  # float32 wherever the chip has a float32 kernel
    "bf16": "allow_mix_precision_bf16",
    "origin": "must_keep_origin_dtype",  # as exported; the right one for an fp16 bundle
}
LOWERING = ("fp16", "mixed", "bf16")  # that would lower the layers the audit names
KEEP_FILE = "keep_dtype.cfg"
EXTERNAL_WEIGHT_BYTES = 1 << 30  # bigger graphs keep their weights beside the .om


def input_shapes(unit):
    """ATC's and Lite's notation: "mel:1,80,1,816;time:1,320"."""
    return ";".join(f"{tensor.name}:{','.join(map(str, tensor.shape))}" for tensor in unit.inputs)


def audit_file(bundle, unit):
    """Where the fp16 audit lists the layers of a unit that stay in float32, one name a line."""
    return bundle.folder / "audit" / f"{unit}.keep_dtype.cfg"


def default_precision(bundle):
    return "origin" if bundle.precision == "fp16" else "fp16"


def output_folder(bundle, name, chip):
    return bundle.folder.resolve() / "om" / chip.soc / name


def atc_flags(bundle, name, chip, precision, host_cpu=None):
    """{flag: value} that compile one unit, but for the list of layers that stay in float32.

    precision: a key of PRECISIONS. Raises UsageError for another.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    unit, entry = bundle.units[name], bundle.manifest["units"][name]["onnx"]
    flags = {
        "framework": "5",
        "model": str(bundle.folder.resolve() / entry["path"]),
        "output": str(output_folder(bundle, name, chip) / name),
        "soc_version": chip.soc,
        # as public samples do: NCHW where a picture goes in, ND for sequences
        "input_format": "NCHW" if any(len(tensor.shape) == 4 for tensor in unit.inputs) else "ND",
        "input_shape": input_shapes(unit),
        "precision_mode": PRECISIONS[precision],
        "log": "error",
    }
    sizes = [(bundle.folder / part["path"]).stat().st_size for part in (entry, *entry.get("data", ()))]
    if sum(sizes) > EXTERNAL_WEIGHT_BYTES:
        flags["external_weight"] = "1"
    if host_cpu:
        flags |= {"host_env_os": "linux", "host_env_cpu": host_cpu}
    return flags


def atc_plan(bundle, name, chip, precision, host_cpu=None, atc="atc", cann=None, extra=()):
    """Job that compiles one unit. extra: (flag, value) pairs that win over ours.

    Raises UsageError for what ATC would refuse, and when the unit was never audited for the precision.
    """
    flags, folder, written = atc_flags(bundle, name, chip, precision, host_cpu), output_folder(bundle, name, chip), {}
    if precision in LOWERING and bundle.precision == "fp32":
        keep = audit_file(bundle, name)
        if not keep.is_file():
            raise UsageError(
                f"unit {name}: float32 graph, precision {precision}, and no audit in {keep}; run sonic-ms audit-fp16 "
                f"{bundle.folder} first, or build with --precision fp32"
            )
        text = keep.read_text(encoding="utf-8")
        if text.strip():
            written[KEEP_FILE] = text
            flags["keep_dtype"] = str(folder / KEEP_FILE)
    flags |= dict(extra)
    problems = flag_problems(flags, cann)
    if flags.get("sparsity") == "1" and not problems:
        problems = sparsity_problems(bundle.path(name, "onnx"))
    if problems:
        raise UsageError(f"unit {name}: {'; '.join(problems)}")
    argv = (atc, *(f"--{flag}={value}" for flag, value in flags.items()))
    return Job(name, "om", "onnx", chip.soc, argv, folder, written, ".om")


def build_om(folder, soc, units=None, precision=None, host_cpu=None, cann=None, extra=(), dry_run=False, report=print):
    """Compile the units of the bundle in `folder` for a chip. Returns the units compiled now.

    precision: a key of PRECISIONS; None is fp16, or origin for an fp16 bundle. extra: (flag, value) pairs for ATC.
    dry_run: only report the command lines; needs neither ATC nor CANN. Raises UsageError, EngineError.
    """
    chip, bundle = find_chip(soc, cann), Bundle.load(Path(folder))
    names = pick_units(bundle, units, "onnx")
    precision = precision or default_precision(bundle)
    if dry_run:
        for name in names:
            report(shlex.join(atc_plan(bundle, name, chip, precision, host_cpu, cann=cann, extra=extra).argv))
        return []
    atc = find_tool("atc", "install CANN's toolkit and source its set_env.sh, or try --dry-run")
    version = installed_cann(chip)
    plans = [atc_plan(bundle, name, chip, precision, host_cpu, atc, cann, extra) for name in names]
    return run_plans(bundle, plans, cann or version, report)
