"""Which unit of a bundle fits which chip, and why not: `sonic-ms lint BUNDLE --soc CHIP`."""

from dataclasses import dataclass

from sonic_ms.ascend.atc import atc_flags, default_precision
from sonic_ms.ascend.facts import FAMILIES, default_soc, find_chip
from sonic_ms.ascend.flags import flag_problems
from sonic_ms.ascend.graph import peak_memory, read_onnx
from sonic_ms.ascend.rules import NEVER, UNKNOWN, Finding, memory_findings, mindir_findings, onnx_findings
from sonic_ms.runtime.mindir import read_mindir

FITS = "fits"
CHUNKED = "vae_decoder"  # the unit whose export may take fewer frames, which are its first axis


@dataclass(frozen=True)
class Verdict:
    """One unit on one chip. findings: tuple of Finding; gigabytes: of weights and live
    activations, in the types of the exported graph."""

    unit: str
    soc: str
    verdict: str
    findings: tuple
    gigabytes: float | None


def worst(findings):
    """FITS, UNKNOWN or NEVER."""
    verdicts = {one.verdict for one in findings}
    return NEVER if NEVER in verdicts else UNKNOWN if UNKNOWN in verdicts else FITS


def lint_bundle(bundle, socs=None, cann=None, memory_gb=None, precision=None, extra=()):
    """[Verdict] of every unit on every chip, with the flags ATC would get from `build_om`.

    socs: soc_version strings, None for the usual chip of each family; cann: version, to refuse what it lacks;
    memory_gb: of the board, when it is not the usual one; precision, extra: see build_om. Raises UsageError for a chip
    or precision that does not exist, EngineError for a bundle that is for CPUs.
    """
    bundle.check_device("Ascend")
    chips = [find_chip(soc, cann) for soc in socs or map(default_soc, FAMILIES)]
    precision = precision or default_precision(bundle)
    verdicts = []
    for name in bundle.units:
        graph = read_onnx(bundle.path(name, "onnx")) if bundle.has(name, "onnx") else None
        mindir = read_mindir(bundle.path(name, "mindir")) if bundle.has(name, "mindir") else None
        for chip in chips:
            problems = []
            if graph:
                problems = flag_problems(atc_flags(bundle, name, chip, precision) | dict(extra), cann)
            findings = [Finding(NEVER, "flags", problem) for problem in problems]
            verdicts.append(lint_unit(bundle.units[name], graph, mindir, chip, memory_gb, findings))
    return verdicts


def lint_unit(unit, graph, mindir, chip, memory_gb=None, findings=()):
    """Verdict on a units.Unit with its graph.Graph and mindir.Mindir, either of them None."""
    findings, size = list(findings), None
    if graph:
        memory = peak_memory(graph)
        size = sum(memory) / 1e9
        chunk = unit.inputs[0].shape[0] if unit.name == CHUNKED else None
        findings += [*_interface(unit, graph), *onnx_findings(graph, chip)]
        findings += memory_findings(*memory, chip, memory_gb, chunk)
    if mindir:
        findings += mindir_findings(mindir, chip)
    if not graph and not mindir:
        findings.append(Finding(UNKNOWN, "no graph", "neither ONNX nor MINDIR in the bundle"))
    return Verdict(unit.name, chip.soc, worst(findings), tuple(findings), size)


def _interface(unit, graph):
    """The graph's inputs and outputs have to be those of the manifest: engines and ATC's --input_shape rely on it."""
    for side, tensors, names in (("input", unit.inputs, graph.inputs), ("output", unit.outputs, graph.outputs)):
        if {tensor.name for tensor in tensors} != set(names):
            expected = ", ".join(tensor.name for tensor in tensors)
            yield Finding(NEVER, "interface", f"{side}s are {', '.join(names)}; the manifest says {expected}")
            continue
        for tensor in tensors:
            shape, dtype = graph.shapes.get(tensor.name), graph.dtypes.get(tensor.name)
            if shape is not None and None not in shape and (shape, dtype) != (tensor.shape, tensor.dtype):
                reason = f"{side} {tensor.name} is {dtype} {shape}; the manifest says {tensor.dtype} {tensor.shape}"
                yield Finding(NEVER, "interface", reason)


def format_text(verdicts):
    """One line a unit and chip, reasons indented below."""
    lines = []
    for one in verdicts:
        size = "" if one.gigabytes is None else f"  {one.gigabytes:.3f} GB"
        lines.append(f"{one.unit:24} {one.soc:14} {one.verdict}{size}")
        lines += [f"    {finding.verdict}: [{finding.rule}] {finding.reason}" for finding in one.findings]
    return "\n".join(lines)


def format_markdown(verdicts):
    """Table units x chips, and below it every reason once."""
    socs = list(dict.fromkeys(one.soc for one in verdicts))
    rows = {}
    for one in verdicts:
        rows.setdefault(one.unit, {})[one.soc] = one
    lines = [f"| unit | GB | {' | '.join(socs)} |", "|---" * (2 + len(socs)) + "|"]
    for unit, row in rows.items():
        sizes = [one.gigabytes for one in row.values() if one.gigabytes is not None]
        size = f"{sizes[0]:.3f}" if sizes else "?"
        lines.append(f"| {unit} | {size} | {' | '.join(row[soc].verdict for soc in socs)} |")
    reasons = {}
    for one in verdicts:
        for finding in one.findings:
            reasons.setdefault((one.unit, finding.rule, finding.reason), []).append(one.soc)
    if reasons:
        lines.append("")
    lines += [f"- {unit}, {', '.join(where)}: {reason}" for (unit, _, reason), where in reasons.items()]
    return "\n".join(lines)
