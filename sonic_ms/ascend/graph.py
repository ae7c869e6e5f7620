"""A graph file as plain data: operators with attributes, tensors with shapes. ONNX needs the onnx package only."""

from dataclasses import dataclass, field
from math import prod

from sonic_ms.errors import EngineError, WeightsError

ITEM_BYTES = {"float16": 2, "uint8": 1, "int8": 1, "bool": 1}  # of a value on the device; int64 is narrowed to 4


@dataclass(frozen=True)
class Node:
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """shapes: {tensor: tuple of int, or of None where unknown}; dtypes: {tensor: "float32", ...}.

    constants: names of stored weights and constants; inputs, outputs: names in order; opset of the main domain.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: frozenset
    shapes: dict
    dtypes: dict
    opset: int

    def size(self, name):
        """Elements of a tensor; None when its shape is not known."""
        shape = self.shapes.get(name)
        return None if shape is None or None in shape else prod(shape)


def read_onnx(path):
    """Graph of an ONNX file. Weights kept outside the file are not read. Raises EngineError, WeightsError."""
    try:
        import onnx
    except ImportError as error:
        raise EngineError(f"reading ONNX needs the onnx package ({error}); pip install 'sonic_ms[onnx]'") from error
    try:
        model = onnx.load(str(path), load_external_data=False)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # protobuf and onnx raise kinds of their own
        raise WeightsError(f"{path} cannot be read as ONNX ({error}); export it again") from error
    return from_onnx(model)


def from_onnx(model):
    """Graph of an onnx.ModelProto whose shapes were inferred."""
    import onnx

    shapes, dtypes, constants = {}, {}, set()
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kind = value.type.tensor_type
        dtypes[value.name] = _dtype(onnx, kind.elem_type)
        if kind.HasField("shape"):
            shapes[value.name] = tuple(
                one.dim_value if one.WhichOneof("value") == "dim_value" else None for one in kind.shape.dim
            )
    for tensor in model.graph.initializer:
        constants.add(tensor.name)
        shapes[tensor.name], dtypes[tensor.name] = tuple(tensor.dims), _dtype(onnx, tensor.data_type)
    nodes = []
    for i, node in enumerate(model.graph.node):
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute if one.type != one.GRAPH}
        if node.op_type == "Constant":
            constants.update(node.output)
            if "value" in attributes:
                tensor = attributes.pop("value")
                shapes[node.output[0]], dtypes[node.output[0]] = tuple(tensor.dims), _dtype(onnx, tensor.data_type)
        nodes.append(
            Node(node.name or f"{node.op_type}_{i}", node.op_type, tuple(node.input), tuple(node.output), attributes)
        )
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    return Graph(
        nodes=tuple(nodes),
        inputs=tuple(one.name for one in model.graph.input if one.name not in constants),
        outputs=tuple(one.name for one in model.graph.output),
        constants=frozenset(constants),
        shapes=shapes,
        dtypes=dtypes,
        opset=opset,
    )


def _dtype(onnx, code):
    if code == onnx.TensorProto.BFLOAT16:
        return "bfloat16"  # NumPy has none; some versions of onnx answer float32
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(code))
    except KeyError:
        return "undefined"


def peak_memory(graph):
    """(bytes of weights, largest sum of live activations in bytes) when nothing is fused or computed in place.

    In the graph's own types: half of it where a float32 graph runs in float16. Unknown shapes count nothing.
    """

    def size(name):
        return (graph.size(name) or 0) * ITEM_BYTES.get(graph.dtypes.get(name), 4)

    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    live = {name: size(name) for name in graph.inputs}
    peak = total = sum(live.values())
    for i, node in enumerate(graph.nodes):
        for name in node.outputs:
            if name and name not in graph.constants:
                live[name] = size(name)
                total += live[name]
        peak = max(peak, total)
        for name in {*node.inputs, *node.outputs}:
            if name in live and last.get(name, i) <= i:
                total -= live.pop(name)
    return sum(size(name) for name in graph.constants), peak
