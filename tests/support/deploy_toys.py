"""Toy graphs to export, a Python without MindSpore, and how alike two videos are."""

import numpy as np

from sonic_ms.media.video import read_video
from sonic_ms.runtime.unit import Tensor, Unit, UnitTable, normal_inputs

# Runs the command line in a Python that cannot import MindSpore.
WITHOUT_MINDSPORE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mindspore":
            raise ModuleNotFoundError("No module named 'mindspore'", name="mindspore")

sys.meta_path.insert(0, Block())
from sonic_ms.cli import main
sys.exit(main(sys.argv[1:]))
"""

MIN_PSNR = 45  # dB between the videos that two engines make


def frames_of(path):
    """Decoded frames of an mp4."""
    return np.stack(list(read_video(path)))


def psnr(found, expected):
    """dB between two arrays of frames in 0..255; 138 when they are equal."""
    error = np.mean((found.astype(np.float64) - expected) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def toy_units(precision="fp32"):
    """A convolution with four different pads and a stack of two inputs: what MindSpore's ONNX exporter gets wrong."""
    import mindspore as ms
    from mindspore import nn, ops

    from sonic_ms.nn.portable import stack

    dtype = {"fp32": "float32", "fp16": "float16"}[precision]

    class Padded(nn.Cell):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3, pad_mode="pad", padding=(0, 1, 2, 3), weight_init="normal")
            self.conv.weight.set_data(ms.Tensor(np.random.default_rng(1).normal(size=(3, 2, 3, 3)), ms.float32))
            if precision == "fp16":
                self.to_float(ms.float16)

        def construct(self, x):
            return self.conv(x)

    class Stacked(nn.Cell):
        def construct(self, a, b):
            return stack((a, b), 1), ops.tanh(a) * b

    units = (
        Unit("padded", (Tensor("image", (1, 2, 8, 6), dtype),), (Tensor("map", (1, 3, 7, 9), dtype),), Padded),
        Unit(
            "stacked",
            (Tensor("a", (2, 5), dtype), Tensor("b", (2, 5), dtype)),
            (Tensor("both", (2, 2, 5), dtype), Tensor("product", (2, 5), dtype)),
            Stacked,
            threads=1,
        ),
    )
    return {unit.name: unit for unit in units}


def export_toys(out, precision="fp32", units=None):
    from sonic_ms.deploy.export import FORMATS, export

    units = units or toy_units(precision)
    table = UnitTable("sonic-edge", units, normal_inputs, {"sides": [256]}, {}, "0" * 64, "Apache-2.0")
    return export(table, out, FORMATS, precision, lambda line: None)
