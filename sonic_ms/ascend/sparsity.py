"""Whether a graph has the 4:2 sparsity that ATC's --sparsity=1 asks for: at most two of four neighbours among the
inputs of a convolution or product are not 0. Never run on a chip: ATC documents it for files of AMCT alone."""

import numpy as np

from sonic_ms.errors import EngineError

GROUP, MOST = 4, 2
OPERATORS = ("Conv", "Gemm", "MatMul")


def sparsity_problems(path):
    """Sentences about the ONNX file at `path`, none when --sparsity=1 can use it. Raises EngineError without onnx."""
    try:
        import onnx
    except ImportError as error:
        raise EngineError(f"--sparsity needs the onnx package ({error}); pip install 'sonic_ms[onnx]'") from error
    model = onnx.load(str(path))
    weights = {one.name: one for one in model.graph.initializer}
    rounded = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    sparse = dense = floating = 0
    for node in model.graph.node:
        name = rounded.get(node.input[1], node.input[1]) if node.op_type in OPERATORS else None
        if name not in weights:
            continue
        values = onnx.numpy_helper.to_array(weights[name])
        if is_sparse(values if node.op_type == "Conv" or _transposed(node) else values.T):
            sparse += 1
            floating += values.dtype != np.int8
        else:
            dense += 1
    if not sparse:
        return [f"--sparsity=1: none of the {dense} layers of {path} is 4:2 sparse; train with pattern: 2:4"]
    if floating:
        return [f"--sparsity=1: {floating} sparse layers of {path} are not int8, which the chip asks for; use AMCT"]
    return []


def _transposed(node):
    return any(one.name == "transB" and one.i for one in node.attribute)


def is_sparse(values):
    """Whether weights (out, in, ...) hold at most two non-zeros in every four neighbours along the inputs."""
    if values.ndim < 2 or values.shape[1] % GROUP:
        return False
    groups = (np.moveaxis(values, 1, -1) != 0).reshape(-1, GROUP)
    return bool((groups.sum(1) <= MOST).all())
