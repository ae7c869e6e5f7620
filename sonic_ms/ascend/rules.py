"""What one chip accepts of one graph. Each rule yields Findings; a graph without findings meets every known condition.

These conditions are necessary, not sufficient: only CANN's compiler on a real installation decides.
"""

from dataclasses import dataclass

from sonic_ms.ascend.facts import primitives, read

NEVER, UNKNOWN = "does not fit", "unknown"
INPUT_DTYPES = ("float32", "float16", "uint8")  # what ATC's page general_restrictions.md documents
MAX_ELEMENTS = 2**31
MINDIR_VERSION = 3  # what MindSpore 2.7 to 2.10 write and Lite of the same release reads
OPSETS = range(11, 19)  # ATC --framework=5
QDQ = ("QuantizeLinear", "DequantizeLinear")
FEWEST_INT8_INPUTS = 16  # CANN pads inputs to 16 and more (atlasag_25_0047)


@dataclass(frozen=True)
class Finding:
    """verdict: NEVER or UNKNOWN; rule: its short name; reason: one sentence with the values."""

    verdict: str
    rule: str
    reason: str


def onnx_findings(graph, chip):
    """Every Finding of an ONNX graph on a chip."""
    return [
        *_format(graph),
        *_inputs(graph),
        *_bfloat16(graph, chip),
        *_shapes(graph),
        *_operators(graph, chip),
        *_convolutions(graph, chip),
        *_quantised(graph),
    ]


def _format(graph):
    if graph.opset not in OPSETS:
        yield Finding(NEVER, "opset", f"opset {graph.opset}: ATC reads {OPSETS[0]} to {OPSETS[-1]}")


def _inputs(graph):
    for name in graph.inputs:
        dtype = graph.dtypes.get(name, "undefined")
        if dtype == "int32":
            yield Finding(UNKNOWN, "input dtype", f"input {name} is int32; only float and uint8 are documented")
        elif dtype not in INPUT_DTYPES:
            yield Finding(NEVER, "input dtype", f"input {name} is {dtype}; use float32")


def _bfloat16(graph, chip):
    for name, dtype in graph.dtypes.items():
        if dtype == "bfloat16" and not chip.bf16:
            yield Finding(NEVER, "bfloat16", f"tensor {name} is bfloat16, which {chip.soc} does not have")
            return


def _shapes(graph):
    for name in dict.fromkeys((*graph.inputs, *(out for node in graph.nodes for out in node.outputs if out))):
        shape = graph.shapes.get(name)
        if shape is None or None in shape:
            if name in graph.inputs:
                yield Finding(NEVER, "static shapes", f"input {name} has the dynamic shape {shape}")
            else:
                yield Finding(UNKNOWN, "static shapes", f"the shape of tensor {name} cannot be inferred")
        elif 0 in shape:
            yield Finding(NEVER, "empty tensor", f"tensor {name} has shape {shape}: ATC takes no dimension of 0")
        elif (graph.size(name) or 0) >= MAX_ELEMENTS:
            yield Finding(NEVER, "elements", f"tensor {name} {shape} has {graph.size(name)} elements, 2^31 or more")


def _operators(graph, chip):
    table = read("operators")
    seen = set()
    for node in graph.nodes:
        op = node.op
        if op in ("Conv", "ConvTranspose") and len(graph.shapes.get(node.inputs[1], ())) == 5:
            op = "Conv3D"
        if op in seen:
            continue
        seen.add(op)
        if op in table["onnx_control_flow"]:
            yield Finding(NEVER, "control flow", f"{op} ({node.name}): control flow has to stay on the host")
        elif op in QDQ:
            continue  # `_quantised` says more
        elif op != "Conv3D" and op not in table["onnx"]:
            yield Finding(NEVER, "operator", f"{op} ({node.name}) is not among the ONNX operators ATC reads")
        elif chip.family == "310" and op in table["onnx_not_on_310"]:
            yield Finding(NEVER, "operator", f"{op} ({node.name}) is newer than the last CANN for {chip.soc}")
        else:
            yield from _chip_table(op, node.name, chip)


def _chip_table(op, name, chip):
    word, reason = read("operators")["chips"].get(op, {}).get(chip.family, (None, None))
    if word:
        verdict = NEVER if word == "never" else UNKNOWN
        yield Finding(verdict, "operator", f"{op.removeprefix('mindir:')} ({name}): {reason}")


def _convolutions(graph, chip):
    limits = read("operators")["conv"]
    for node in graph.nodes:
        if node.op not in ("Conv", "ConvTranspose"):
            continue
        transposed = node.op == "ConvTranspose"
        kernel = graph.shapes.get(node.inputs[1], ())[2:]
        for name in (node.inputs[0], node.outputs[0]):
            shape = graph.shapes.get(name) or ()
            if len(shape) != 4 or None in shape:
                continue
            height, width = limits["height"], limits["width"]
            if transposed:
                height = width = limits["side_transposed"]
            elif chip.family == "310P":
                height = width = limits["side_310P"]
            if shape[2] > height or shape[3] > width:
                what = f"{node.op} {node.name}: {name} is {shape[2]} x {shape[3]}"
                yield Finding(NEVER, "conv size", f"{what}, at most {height} x {width} on {chip.soc}")
        checks = (
            ("kernel", kernel, limits["kernel"]),
            ("stride", node.attributes.get("strides", ()), limits["stride"]),
            ("pad", node.attributes.get("pads", ()), limits["pad"]),
        )
        for what, values, limit in checks:
            if any(value is not None and value > limit for value in values):
                text = "x".join(str(value) for value in values)
                yield Finding(NEVER, f"conv {what}", f"{node.op} {node.name}: {what} {text}, at most {limit}")


def _quantised(graph):
    """An int8 file of onnxruntime's kind: ATC documents no way for it; AMCT turns it into Ascend's own operators."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    read_by = {name for node in graph.nodes for name in node.inputs}
    rounded = [node for node in graph.nodes if node.op == "DequantizeLinear" and node.outputs[0] in read_by]
    if not rounded:
        return
    reason = f"{len(rounded)} DequantizeLinear: ATC reads no QDQ; give this file to AMCT's convert_qat_model first"
    yield Finding(NEVER, "int8", reason)
    narrow = []
    for node in graph.nodes:
        shape = graph.shapes.get(node.inputs[1], ()) if node.op == "Conv" else ()
        whole = len(shape) == 4 and makers.get(node.inputs[1]) in rounded
        if whole and shape[1] <= FEWEST_INT8_INPUTS:
            narrow.append(node.name)
    if narrow:
        reason = f"{len(narrow)} convolutions have {FEWEST_INT8_INPUTS} or fewer inputs, where int8 gains no speed"
        yield Finding(UNKNOWN, "int8", f"{reason}: {', '.join(narrow[:3])}")


def mindir_findings(mindir, chip):
    """Every Finding of a mindir.Mindir, for MindSpore Lite's converter."""
    table = read("operators")
    if mindir.version > MINDIR_VERSION:
        reason = f"MINDIR version {mindir.version}: Lite 2.7 reads up to {MINDIR_VERSION}"
        yield Finding(NEVER, "mindir version", reason)
    known = primitives() | set(table["mindir_helpers"]) | set(table["mindir_rewritten"])
    for name in mindir.primitives:
        if name in table["mindir_control_flow"]:
            yield Finding(NEVER, "control flow", f"{name}: Lite 2.11 dropped control flow; keep it on the host")
        elif name not in known:
            yield Finding(NEVER, "adapter", f"primitive {name} has no adapter to CANN's graph IR")
        else:
            yield from _chip_table(f"mindir:{name}", "MINDIR", chip)
    if mindir.functions:
        yield Finding(UNKNOWN, "functions", f"the MINDIR calls {mindir.functions} graphs inside itself")


def memory_findings(weights, activations, chip, memory_gb=None, chunk=None):
    """A Finding when weights and activations, in bytes, exceed the board's memory without what its system takes.

    chunk: frames that the unit takes at once where that is a choice of the export; the reason then says how many fit,
    by activations that grow with the frames.
    """
    memory = memory_gb or chip.memory_gb
    need, free = (weights + activations) / 1e9, memory - chip.reserved_gb
    if need > free:
        reason = f"{weights / 1e9:.2f} GB of weights and {activations / 1e9:.2f} GB of activations"
        reason += f"; {chip.board} leaves about {free:.1f} of {memory:g} GB"
        if chunk:
            fitting = int((free * 1e9 - weights) * chunk / activations)
            reason += f"; export it with --decode-chunk-size {fitting}" if fitting > 0 else "; no frame fits alone"
        yield Finding(NEVER, "memory", reason)
