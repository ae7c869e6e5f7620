"""Hand-made ONNX graphs, and bundles around them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sonic_ms.ascend.graph import from_onnx
from sonic_ms.deploy.bundle import Bundle, file_entry, write_manifest

FLOAT = TensorProto.FLOAT


def node(op, inputs, outputs, **attributes):
    """Inputs and outputs as strings of names, separated by blanks."""
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"the_{op}_{outputs.split()[0]}", **attributes)


def model(nodes, inputs, outputs, weights=(), opset=11):
    """inputs, outputs: {name: shape, or (type, shape)}; weights: {name: array}."""

    def values(tensors):
        for name, shape in tensors.items():
            kind, shape = shape if shape and isinstance(shape[-1], tuple) else (FLOAT, shape)
            yield helper.make_tensor_value_info(name, kind, shape)

    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(weights).items()]
    graph = helper.make_graph(nodes, "toy", list(values(inputs)), list(values(outputs)), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def graph(*arguments, **options):
    """The same as graph.Graph."""
    return from_onnx(onnx.shape_inference.infer_shapes(model(*arguments, **options), data_prop=True))


def conv_model(shape=(1, 3, 8, 6), filters=4, kernel=3, **attributes):
    """x -> Conv -> Relu -> y."""
    weight = np.full((filters, shape[1], kernel, kernel), 0.1, np.float32)
    attributes = {"pads": [kernel // 2] * 4, "kernel_shape": [kernel, kernel]} | attributes
    nodes = [node("Conv", "x w", "c", **attributes), node("Relu", "c", "y")]
    return model(nodes, {"x": shape}, {"y": (shape[0], filters, *shape[2:])}, {"w": weight})


def write_bundle(folder, models):
    """Bundle of {unit: onnx model}. Instead of MINDIR it has files of a few bytes, which the fake converter takes."""
    units = {}
    for kind in ("onnx", "mindir"):
        (folder / kind).mkdir(parents=True)
    for name, proto in models.items():
        plain = from_onnx(proto)
        paths = {kind: folder / kind / f"{name}.{kind}" for kind in ("onnx", "mindir")}
        onnx.save_model(proto, paths["onnx"])
        paths["mindir"].write_bytes(b"not a MINDIR")
        units[name] = {
            side: [{"name": one, "shape": plain.shapes[one], "dtype": plain.dtypes[one]} for one in names]
            for side, names in (("inputs", plain.inputs), ("outputs", plain.outputs))
        } | {kind: file_entry(folder, path) for kind, path in paths.items()}
    manifest = {"format": 1, "model": "sonic-edge", "precision": "fp32", "weights_sha256": "0" * 64, "licence": "none"}
    write_manifest(folder, manifest | {"gear": {"sides": [256]}, "units": units})
    return Bundle.load(folder)
