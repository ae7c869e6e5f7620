"""What float16 does to each layer of a unit: `sonic-ms audit-fp16 BUNDLE`.

The ONNX graph runs twice in onnxruntime: in float32, and with every value rounded to float16 where an operator reads
and writes it (sums inside an operator stay float32, as in Ascend's cube unit with float32 accumulation). Layers that
cannot be float16 are collected until the outputs are good enough; then runs of them go back to float16 as long as the
outputs stay so. What is left is listed for ATC's --keep_dtype.

Both runs go through the graph side by side, piece after piece: only what a piece computes and what later ones read is
in memory, besides the weights of that piece.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sonic_ms.ascend.atc import audit_file
from sonic_ms.ascend.build import pick_units
from sonic_ms.errors import EngineError
from sonic_ms.runtime.ort import open_session, run_session
from sonic_ms.runtime.unit import relative_error

FP16_MAX = 65504.0
SAFE_MAX = FP16_MAX / 2  # other recordings are louder than the one measured
OUTPUT_ERROR = 1e-2  # relative L2 of every output that an fp16 unit may have
ROUNDS = 12  # of adding layers until the outputs are good enough
PRUNED_ERROR = OUTPUT_ERROR / 2  # that layers may cause which go back to float16: other recordings are harder
SHORTEST = 32  # the shortest run of layers that is tried in float16, as a share of all that were collected: 1/32
FP16_COUNTS = 2048  # whole numbers that float16 has without a gap
BEFORE_INDEX = "an index is computed from it"
PIECE_BYTES = 256 << 20  # of float32 weights and results that one piece of the graph has


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
    graph = _Graph(path)
    outputs = graph.outputs
    nothing, largest = _compare(graph, feed, set())
    reasons = _structural(graph, largest)
    # judged in isolation from what is known to be hopeless, or every later layer would look bad
    first = now = _compare(graph, feed, set(reasons))[0] if reasons else nothing
    for _ in range(ROUNDS):
        if all(now[name] <= OUTPUT_ERROR for name in outputs):
            break
        fresh = _worst(graph, now, reasons)
        if not fresh:
            break
        reasons |= fresh
        now, _ = _compare(graph, feed, set(reasons))
    if reasons and all(now[name] <= PRUNED_ERROR for name in outputs):
        reasons, now = _prune(graph, feed, reasons, largest, now)
    layers = tuple(
        Layer(
            node.name,
            node.op_type,
            max((largest[name] for name in names), default=0.0),
            max((first[name] for name in names), default=0.0),
            reasons.get(node.name, ""),
        )
        for node in graph.nodes
        if (names := [name for name in node.output if name in graph.floats]) or node.name in reasons
    )
    return Audit(unit, inputs, layers, {n: now[n] for n in outputs}, {n: nothing[n] for n in outputs})


class _Graph:
    """An ONNX graph in pieces. nodes: operators but for constants; floats: names of float32 tensors; compared: those
    and the outputs; pieces: lists of nodes; last: {tensor: index of the last piece that reads it}. Weights beside the
    file are read when needed."""

    def __init__(self, path):
        import onnx

        self.onnx, self.path = onnx, Path(path)
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False), data_prop=True)
        self.ir_version, self.opset_import = model.ir_version, model.opset_import
        self.weights = {one.name: one for one in model.graph.initializer}
        self.constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
        self.nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        if len({node.name for node in self.nodes}) != len(self.nodes) or not all(node.name for node in self.nodes):
            raise EngineError(f"{path}: operators need unique names, ATC's list goes by them; export it again")
        self.outputs = [one.name for one in model.graph.output]
        values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
        self.types = {one.name: one.type.tensor_type for one in values}
        kind = onnx.TensorProto.FLOAT
        self.floats = {name for name, one in self.types.items() if one.elem_type == kind}
        self.floats |= {name for name, one in self.weights.items() if one.data_type == kind}
        self.compared = self.floats | set(self.outputs)
        self.pieces = self._cut()
        self.last = {name: i for i, piece in enumerate(self.pieces) for node in piece for name in node.input}

    def _cut(self):
        pieces, size = [[]], 0
        for node in self.nodes:
            weights = [self.weights[name].dims for name in node.input if name in self.weights]
            results = [self._shape(name) for name in node.output if name in self.types]
            new = 4 * sum(int(np.prod(shape, dtype=np.int64)) for shape in (*weights, *results))
            if pieces[-1] and size + new > PIECE_BYTES:
                pieces.append([])
                size = 0
            pieces[-1].append(node)
            size += new
        return pieces

    def _shape(self, name):
        return [side.dim_value for side in self.types[name].shape.dim]

    def run(self, index, live, keep=None):
        """What piece `index` writes, of what is compared and what later pieces read: {name: array}. live: what it
        reads. keep: names of operators that do not round to float16; None: none of them does."""
        piece = self.pieces[index]
        made = [name for node in piece for name in node.output if name]
        read = list(dict.fromkeys(name for node in piece for name in node.input if name))
        model = self.onnx.ModelProto(ir_version=self.ir_version, opset_import=self.opset_import)
        graph = model.graph
        graph.name = f"piece {index}"
        graph.node.extend(self.constants[name] for name in read if name in self.constants)
        graph.node.extend(piece if keep is None else _rounded(self.onnx, piece, self.floats, keep))
        for name in read:
            if name in self.weights:
                weight = graph.initializer.add()
                weight.CopyFrom(self.weights[name])
                if self.onnx.external_data_helper.uses_external_data(weight):
                    self.onnx.external_data_helper.load_external_data_for_tensor(weight, str(self.path.parent))
            elif name in live:
                kind = self.onnx.helper.np_dtype_to_tensor_dtype(live[name].dtype)
                graph.input.append(self.onnx.helper.make_tensor_value_info(name, kind, live[name].shape))
        wanted = [name for name in made if name in self.compared or self.last.get(name, -1) > index]
        graph.output.extend(self.onnx.ValueInfoProto(name=name) for name in wanted)
        return _run(model, {one.name: live[one.name] for one in graph.input})


def _compare(graph, feed, keep):
    """Run in float32 and with all but `keep` in float16: {tensor: relative L2}, {tensor: largest value}."""
    exact, half = dict(feed), dict(feed)
    errors, largest = {}, {}
    for index in range(len(graph.pieces)):
        exact = exact | graph.run(index, exact)
        if half is not None:
            try:
                half = half | graph.run(index, half, keep)
            except EngineError:  # an index left its table: such a graph computes nothing
                half = None
        for node in graph.pieces[index]:
            for name in node.output:
                if name in graph.compared:
                    largest[name] = float(np.abs(exact[name]).max(initial=0.0))
                    errors[name] = relative_error(half[name], exact[name]) if half is not None else float("inf")
        exact = {name: array for name, array in exact.items() if graph.last.get(name, -1) > index}
        half = half and {name: array for name, array in half.items() if name in exact}
    if half is None:
        errors = dict.fromkeys(errors, float("inf"))
    return errors, largest


def _structural(graph, largest):
    """{node name: reason} of what float16 cannot do whatever the error: overflow, and values that become indices."""
    nodes, floats = graph.nodes, graph.floats
    reasons, producer = {}, {name: node for node in nodes for name in node.output}
    for node in nodes:
        # what is read is rounded too: a value that its maker may write in float32 overflows where it is read
        value = max((largest.get(name, 0.0) for name in (*node.input, *node.output) if name in floats), default=0.0)
        if value > SAFE_MAX:
            reasons[node.name] = f"largest value {value:.0f}"
    # a whole number above 2048 has no float16: everything an index is computed from stays float32
    waiting = [node.output[0] for node in nodes if node.op_type == "Cast" and node.output[0] not in floats]
    sources = set()
    while waiting:
        node = producer.get(waiting.pop())
        if node is not None and node.name not in sources:
            sources.add(node.name)
            waiting += [name for name in node.input if name in floats]
    return dict.fromkeys(sources, BEFORE_INDEX) | reasons


def _prune(graph, feed, reasons, largest, errors):
    """Let runs of layers, all of them at first and then ever shorter ones, be float16 after all where every output
    stays within PRUNED_ERROR. Never what overflows, nor what counts further than float16 on the way to an index: with
    another recording that would leave its table. Returns what is left of the reasons, and the errors with it."""
    fixed = {name for name, reason in reasons.items() if reason.startswith("largest")}
    for node in graph.nodes:
        values = [largest.get(name, 0.0) for name in (*node.input, *node.output)]
        if reasons.get(node.name) == BEFORE_INDEX and max(values) > FP16_COUNTS:
            fixed.add(node.name)
    exact = _outputs(graph, feed)
    movable = [node.name for node in graph.nodes if node.name in reasons and node.name not in fixed]
    length = shortest = max(1, len(movable) // SHORTEST)
    while length < len(movable):
        length *= 2
    while length >= shortest:
        for start in range(0, len(movable), length):
            run = set(movable[start : start + length]) & set(reasons)
            trial = {name: reason for name, reason in reasons.items() if name not in run}
            half = _outputs(graph, feed, set(trial)) if run else None
            if half is None:
                continue
            found = {name: relative_error(half[name], exact[name]) for name in exact}
            if all(error <= PRUNED_ERROR for error in found.values()):
                reasons, errors = trial, found
        length //= 2
    return reasons, errors


def _outputs(graph, feed, keep=None):
    """{output: array} of the graph, see _Graph.run; None when an index left its table."""
    live = dict(feed)
    for index in range(len(graph.pieces)):
        try:
            live |= graph.run(index, live, keep)
        except EngineError:
            return None
        live = {
            name: array for name, array in live.items() if graph.last.get(name, -1) > index or name in graph.outputs
        }
    return {name: live[name] for name in graph.outputs}


def _worst(graph, errors, reasons):
    """The twentieth of the operators, at least one, that add most to the error of their inputs."""
    nodes, growth = graph.nodes, {}
    for node in nodes:
        if node.name in reasons:
            continue
        before = max((errors.get(name, 0.0) for name in node.input if name in graph.floats), default=0.0)
        after = max((errors[name] for name in node.output if name in errors), default=0.0)
        if np.isfinite(before) and after > before:
            growth[node.name] = after - before
    worst = sorted(growth, key=growth.get, reverse=True)[: max(1, len(nodes) // 20)]
    return {name: f"adds {growth[name]:.1e} of error" for name in worst}


def _rounded(onnx, nodes, floats, keep):
    """Copies of the nodes where every operator outside `keep` rounds what it reads and writes to float16 and back."""
    rounded, half = [], {}
    for node in nodes:
        if node.name in keep:
            rounded.append(node)
            continue
        new, writes = onnx.NodeProto(), []
        new.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name in floats:
                if name not in half:
                    half[name] = f"{name}@half"
                    rounded += _round_trip(onnx, name, half[name])
                new.input[i] = half[name]
        for i, name in enumerate(node.output):
            if name in floats:
                new.output[i] = f"{name}@raw"
                writes += _round_trip(onnx, new.output[i], name)
        rounded += [new, *writes]
    return rounded


def _round_trip(onnx, source, target):
    types = onnx.TensorProto
    return [
        onnx.helper.make_node("Cast", [source], [f"{target}@fp16"], to=types.FLOAT16),
        onnx.helper.make_node("Cast", [f"{target}@fp16"], [target], to=types.FLOAT),
    ]


def _run(model, feed):
    # Its optimiser would take the rounding out; indices in float16 may leave their table, which is part of the answer.
    session = open_session(model.SerializeToString(), severity=4, optimise=False)
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, run_session(session, names, feed, "the graph")))


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
    from sonic_ms.pipeline import sample_inputs

    if bundle.precision != "fp32":
        raise EngineError(
            f"{bundle.folder} is {bundle.precision}; the audit needs an fp32 bundle, see --dtype of export"
        )
    names = pick_units(bundle, units, "onnx")
    recorded = record_inputs(bundle)
    for name in names:
        real = name in recorded
        feed = recorded[name] if real else sample_inputs(bundle.model)(bundle.units[name])
        audit = audit_graph(bundle.path(name, "onnx"), feed, name, "recorded" if real else "made up")
        write_audit(bundle, audit)
        yield audit
