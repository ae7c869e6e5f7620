"""An exported ONNX graph with its weights in 8 bits, as QDQ: what onnxruntime fuses into integer kernels.

Weights are int8 with a scale for every output, activations uint8 with one range each, measured on samples. Weights use
7 bits of the 8 (reduce_range): without it the products overflow on processors without VNNI, and with it the same file
is right everywhere. Quantised are the named operators that multiply with stored weights. Everything else computes in
float32, from smaller numbers where the file has many: weights of convolutions in 8 bits, some named ones in halves.
"""

import contextlib
import logging
import tempfile
from pathlib import Path

import numpy as np

from sonic_ms.errors import OutputError, UsageError

OPSET = 13  # the first whose DequantizeLinear has scales per channel
MANY = 1024  # weights of a convolution, from which on it is worth to store them in 8 bits


def write_int8(path, unit, operators, samples, halves=()):
    """Rewrite the ONNX file of a float32 unit in int8.

    operators: ONNX names of what is quantised, such as ("Conv",). samples: list of {input name: array} that show the
    ranges. halves: names of tensors to be stored in float16. Raises UsageError without the onnx package, OutputError
    for a graph without such operators.
    """
    try:
        import onnx
        from onnxruntime import quantization as quant
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise UsageError(f"INT8 export needs onnx ({error}); pip install 'sonic_ms[onnx]'") from error
    model = onnx.load(path)
    if model.opset_import[0].version < OPSET:
        model = onnx.version_converter.convert_version(model, OPSET)
    weights = {one.name for one in model.graph.initializer}
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"  # what is quantised is told by name
    chosen = [n.name for n in model.graph.node if n.op_type in operators and n.input[1] in weights]
    if not chosen:
        raise OutputError(f"unit {unit.name}: it has no {' or '.join(operators)} with weights; export it as fp32")
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder, _quiet():
        converted, prepared = Path(folder) / "converted.onnx", Path(folder) / "prepared.onnx"
        onnx.save_model(model, converted)
        quant_pre_process(str(converted), str(prepared), skip_symbolic_shape=True, skip_optimization=True)
        quant.quantize_static(
            str(prepared),
            str(path),
            _Samples(samples, quant.CalibrationDataReader),
            quant_format=quant.QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=True,
            activation_type=quant.QuantType.QUInt8,
            weight_type=quant.QuantType.QInt8,
        )
    model = onnx.load(path)
    store_smaller(onnx, model, halves)
    onnx.save_model(model, path)


def store_smaller(onnx, model, halves=()):
    """Store in fewer bits what is still float32: weights of convolutions as int8 with a scale for every output, the
    named tensors as float16. The graph widens them, and computes in float32."""
    numbers, helper = onnx.numpy_helper, onnx.helper
    kernels = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for stored in list(model.graph.initializer):
        values = numbers.to_array(stored)
        name, is_kernel = stored.name, stored.name in kernels and values.size >= MANY
        if values.dtype != np.float32 or not (is_kernel or name in halves):
            continue
        model.graph.initializer.remove(stored)
        if is_kernel:
            scale = np.abs(values).reshape(len(values), -1).max(1) / 127
            scale = np.where(scale > 0, scale, 1).astype(np.float32)
            rounded = np.round(values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
            parts = [rounded, scale, np.zeros(len(scale), np.int8)]
            node = ("DequantizeLinear", {"axis": 0})
        else:
            parts, node = [values.astype(np.float16)], ("Cast", {"to": onnx.TensorProto.FLOAT})
        names = [f"{name}_stored{i}" for i in range(len(parts))]
        model.graph.initializer.extend(numbers.from_array(one, part) for one, part in zip(parts, names))
        model.graph.node.insert(0, helper.make_node(node[0], names, [name], name=f"{name}_widened", **node[1]))


def _Samples(samples, base):
    """The reader that onnxruntime wants, over a list."""

    class Reader(base):
        def __init__(self):
            self.left = iter(samples)

        def get_next(self):
            return next(self.left, None)

    return Reader()


@contextlib.contextmanager
def _quiet():
    """onnxruntime gives advice on each of its own steps, by Python's log and by its own."""
    import onnxruntime

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        root.setLevel(level)
        onnxruntime.set_default_logger_severity(2)
