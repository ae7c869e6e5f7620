"""What a painter costs in onnxruntime, from its convolutions one by one: FLOPs mislead, channels go in steps of 8."""

import time

import numpy as np

from sonic_ms.edge.renderer import BLOCKS, FEATURES
from sonic_ms.edge.texture import ROI_HEIGHT, ROI_WIDTH
from sonic_ms.errors import UsageError
from sonic_ms.runtime.ort import open_session
from sonic_ms.small.groups import inputs_of

RUNS = 15  # the fastest of which counts: others share the machine
SCALE = {"down1": 2, "down2": 4, "down3": 8, "up2": 4, "up1": 2, "leave": 2}  # of a layer's output below the rectangle


class ConvTimes:
    """Milliseconds of convolutions, each shape measured once; batch of frames a call, one thread as a graph has."""

    def __init__(self, batch=1):
        self.batch, self.known = batch, {}

    def painter(self, config):
        """Milliseconds of all convolutions of a PainterConfig for a batch of frames."""
        return sum(self.conv(*shape) for shape in conv_shapes(config))

    def conv(self, inputs, outputs, height, width, stride):
        """Milliseconds of one 3x3 convolution with an output of height x width."""
        key = (inputs, outputs, height, width, stride)
        if key not in self.known:
            session, feed = _session(self.batch, *key)
            session.run(None, feed)
            spent = []
            for _ in range(RUNS):
                began = time.perf_counter()
                session.run(None, feed)
                spent.append(time.perf_counter() - began)
            self.known[key] = 1000 * min(spent)
        return self.known[key]


def conv_shapes(config):
    """[(inputs, outputs, height, width, stride)] of every convolution of a PainterConfig."""
    counts, found = dict(zip(BLOCKS, config.blocks())), []
    for layer in (*BLOCKS, "leave"):
        inputs = sum(counts[block] for block in inputs_of(layer)) or FEATURES
        scale = SCALE[layer.split(".")[0]]
        stride = 2 if layer in ("down1.0", "down2.0", "down3.0") else 1
        found.append((inputs, counts.get(layer, 16), ROI_HEIGHT // scale, ROI_WIDTH // scale, stride))
    return found


def _session(batch, inputs, outputs, height, width, stride):
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise UsageError(f"times need onnx ({error}); pip install 'sonic_ms[onnx]', or times: false") from error
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((outputs, inputs, 3, 3)).astype(np.float32)
    x = rng.standard_normal((batch, inputs, height * stride, width * stride)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[stride, stride])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("x", x.shape), ("y", (batch, outputs, height, width)))]  # fmt: skip
    graph = helper.make_graph([node], "conv", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    return open_session(model.SerializeToString()), {"x": x}
