"""What float16 does to each layer of a unit: `sonic-ms audit-fp16 BUNDLE`.

The ONNX graph runs twice in onnxruntime: in float32, and with every value rounded to float16 where an operator reads
and writes it (sums inside an operator stay float32, as in Ascend's cube unit with float32 accumulation). Layers that
cannot be float16 are collected until the outputs are good enough, and listed for ATC's --keep_dtype.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np

from sonic_ms.ascend.atc import audit_file
from sonic_ms.ascend.build import pick_units
from sonic_ms.errors import EngineError

FP16_MAX = 65504.0
SAFE_MAX = FP16_MAX / 2  # other recordings are louder than the one measured
OUTPUT_ERROR = 1e-2  # relative L2 of every output that an fp16 unit may have
ROUNDS = 12  # of adding layers until the outputs are good enough


@dataclass(frozen=True)
class Layer:
    """One operator: largest absolute value it writes in float32; relative L2 of its result, accumulated from the
    graph's inputs on, when all is float16 but for overflows and indices; why it stays in float32, or ""."""

    name: str
    op: str
    largest: float
    error: float
    reason: str = ""


@dataclass(frozen=True)
class Audit:
    """layers in graph order; output_error: {output: relative L2} with the layers that have a reason in float32;
    all_fp16_error: the same with none of them; inputs: what was fed, "recorded" or "made up"."""

    unit: str
    inputs: str
    layers: tuple
    output_error: dict
    all_fp16_error: dict

    @property
    def kept(self):
        return [layer for layer in self.layers if layer.reason]

    @property
    def good(self):
        return all(error <= OUTPUT_ERROR for error in self.output_error.values())


def audit_graph(path, feed, unit="", inputs="recorded"):
    """Audit of a float32 ONNX graph on one set of inputs {name: array}. Raises EngineError."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True)
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    if len({node.name for node in nodes}) != len(nodes) or not all(node.name for node in nodes):
        raise EngineError(f"{path}: operators need unique names, ATC's list of layers goes by them; export it again")
    floats = _float_tensors(onnx, model)
    wanted = [name for node in nodes for name in node.output if name in floats]
    exact = _run(_with_outputs(onnx, model, wanted), feed)
    outputs = [one.name for one in model.graph.output]

    def errors(keep):
        try:
            values = _run(_with_outputs(onnx, _rounded(onnx, model, floats, keep), wanted), feed)
        except EngineError:  # an index left its table: such a graph computes nothing
            return dict.fromkeys(wanted, float("inf"))
        return {name: relative_error(values[name], exact[name]) for name in wanted}

    reasons = _structural(nodes, floats, exact)
    nothing = errors(set())
    # judged in isolation from what is known to be hopeless, or every later layer would look bad
    first = now = errors(set(reasons))
    for _ in range(ROUNDS):
        if all(now[name] <= OUTPUT_ERROR for name in outputs):
            break
        fresh = _worst(nodes, floats, now, reasons)
        if not fresh:
            break
        reasons |= fresh
        now = errors(set(reasons))
    layers = tuple(
        Layer(
            node.name,
            node.op_type,
            float(max((np.abs(exact[name]).max(initial=0.0) for name in names), default=0.0)),
            max((first[name] for name in names), default=0.0),
            reasons.get(node.name, ""),
        )
        for node in nodes
        if (names := [name for name in node.output if name in floats]) or node.name in reasons
    )
    return Audit(unit, inputs, layers, {n: now[n] for n in outputs}, {n: nothing[n] for n in outputs})


def relative_error(value, reference):
    """Relative L2; inf for anything not finite."""
    if not np.isfinite(value).all():
        return float("inf")
    scale = float(np.linalg.norm(reference.astype(np.float64)))
    return float(np.linalg.norm(value.astype(np.float64) - reference)) / (scale or 1.0)


def _float_tensors(onnx, model):
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    names = {one.name for one in values if one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return names | {one.name for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT}


def _structural(nodes, floats, exact):
    """{node name: reason} of what float16 cannot do whatever the error: overflow, and values that become indices."""
    reasons, producer = {}, {name: node for node in nodes for name in node.output}
    for node in nodes:
        largest = max((np.abs(exact[name]).max(initial=0.0) for name in node.output if name in floats), default=0.0)
        if largest > SAFE_MAX:
            reasons[node.name] = f"largest value {largest:.0f}"
    # a whole number above 2048 has no float16: everything an index is computed from stays float32
    waiting = [node.output[0] for node in nodes if node.op_type == "Cast" and node.output[0] not in floats]
    sources = set()
    while waiting:
        node = producer.get(waiting.pop())
        if node is not None and node.name not in sources:
            sources.add(node.name)
            waiting += [name for name in node.input if name in floats]
    return dict.fromkeys(sources, "an index is computed from it") | reasons


def _worst(nodes, floats, errors, reasons):
    """The twentieth of the operators, at least one, that add most to the error of their inputs."""
    growth = {}
    for node in nodes:
        if node.name in reasons:
            continue
        before = max((errors.get(name, 0.0) for name in node.input if name in floats), default=0.0)
        after = max((errors[name] for name in node.output if name in errors), default=0.0)
        if np.isfinite(before) and after > before:
            growth[node.name] = after - before
    worst = sorted(growth, key=growth.get, reverse=True)[: max(1, len(nodes) // 20)]
    return {name: f"adds {growth[name]:.1e} of error" for name in worst}


def _rounded(onnx, model, floats, keep):
    """A copy of the model that rounds what every operator outside `keep` reads and writes to float16 and back."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    done = {}
    for node in model.graph.node:
        new = copy.graph.node.add()
        new.CopyFrom(node)
        if node.op_type == "Constant" or node.name in keep:
            continue
        for i, name in enumerate(node.input):
            if name in floats:
                if name not in done:
                    done[name] = f"{name}@half"
                    copy.graph.node.pop()
                    _round_trip(onnx, copy.graph, name, done[name])
                    new = copy.graph.node.add()
                    new.CopyFrom(node)
                    for j in range(i):
                        new.input[j] = done.get(node.input[j], node.input[j])
                new.input[i] = done[name]
        for i, name in enumerate(node.output):
            if name in floats:
                new.output[i] = f"{name}@raw"
                _round_trip(onnx, copy.graph, new.output[i], name)
    return copy


def _round_trip(onnx, graph, source, target):
    graph.node.add().CopyFrom(onnx.helper.make_node("Cast", [source], [f"{target}@fp16"], to=onnx.TensorProto.FLOAT16))
    graph.node.add().CopyFrom(onnx.helper.make_node("Cast", [f"{target}@fp16"], [target], to=onnx.TensorProto.FLOAT))


def _with_outputs(onnx, model, names):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {one.name for one in copy.graph.output}
    for name in names:
        if name not in present:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return copy


def _run(model, feed):
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"the audit needs onnxruntime ({error}); pip install 'sonic_ms[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # indices in float16 may leave their table, which is part of the answer
    # its optimiser would take the rounding out
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_outputs()]
        return dict(zip(names, session.run(names, feed)))
    except Exception as error:  # its exceptions share no base class of their own
        raise EngineError(f"onnxruntime fails on the graph: {' '.join(str(error).split())}") from error


def write_audit(bundle, audit):
    """Write audit/UNIT.json and ATC's list of layers into the bundle. Returns the path of the list."""
    path = audit_file(bundle, audit.unit)
    path.parent.mkdir(exist_ok=True)
    report = {
        "unit": audit.unit,
        "inputs": audit.inputs,
        "output_error": audit.output_error,
        "all_fp16_error": audit.all_fp16_error,
        "layers": [asdict(layer) for layer in audit.layers],
    }
    path.with_name(f"{audit.unit}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    path.write_text("".join(f"{layer.name}\n" for layer in audit.kept), encoding="utf-8")
    return path


def format_audit(audit, rows=5):
    """A few lines: errors, how many layers stay in float32, the layers with the largest values and errors."""
    kept, total = len(audit.kept), len(audit.layers)
    lines = [
        f"{audit.unit} ({audit.inputs} inputs): {kept} of {total} layers stay in float32"
        + ("" if audit.good else "; NOT good enough even so")
    ]
    for name, error in audit.output_error.items():
        lines.append(f"  {name}: relative error {error:.1e} (all in float16: {audit.all_fp16_error[name]:.1e})")
    for title, key in (("largest", lambda layer: layer.largest), ("least exact", lambda layer: layer.error)):
        for layer in sorted(audit.layers, key=key, reverse=True)[:rows]:
            lines.append(f"  {title}: {layer.name} {layer.op} max {layer.largest:.4g} error {layer.error:.1e}")
    return "\n".join(lines)


def audit_bundle(bundle, units=None):
    """Audit the float32 units of a bundle and write the lists; yields Audit after Audit.

    Inputs are what the pipeline feeds for the example of the package; units it does not run get made-up inputs in the
    right range. Raises EngineError for an fp16 bundle: its graphs already say what is float16.
    """
    from sonic_ms.ascend.recording import record_inputs
    from sonic_ms.samples import sample_inputs

    if bundle.precision != "fp32":
        raise EngineError(
            f"{bundle.folder} is {bundle.precision}; the audit needs an fp32 bundle, see --dtype of export"
        )
    names = pick_units(bundle, units, "onnx")
    recorded = record_inputs(bundle)
    for name in names:
        real = name in recorded
        feed = recorded[name] if real else sample_inputs(bundle.units[name])
        audit = audit_graph(bundle.path(name, "onnx"), feed, name, "recorded" if real else "made up")
        write_audit(bundle, audit)
        yield audit
