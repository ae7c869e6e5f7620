"""The reader of MINDIR against MindSpore's own, on files that MindSpore wrote."""

import json
import subprocess
import sys

import pytest

from sonic_ms.errors import WeightsError
from sonic_ms.runtime.mindir import read_mindir

# In a process of its own: this reader of MindSpore's and the onnx package want different protobufs.
TRUTH = """
import json, sys
from mindspore.train.mind_ir_pb2 import ModelProto
model = ModelProto()
model.ParseFromString(open(sys.argv[1], "rb").read())
print(json.dumps([sorted({one.op_type for one in model.primitives}), len(model.functions), int(model.mind_ir_version)]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{name: path}: a straight graph with weights, and one with a loop."""
    import mindspore as ms
    import numpy as np
    from mindspore import nn, ops

    class Straight(nn.Cell):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3, pad_mode="pad", padding=1, has_bias=True)
            self.act = nn.PReLU(1)

        def construct(self, x):
            return ops.softmax(self.act(self.conv(x)), 1)

    class Loop(nn.Cell):
        def construct(self, x):
            i = ms.Tensor(0, ms.float32)
            while i < x.sum():
                x = ops.tanh(x)
                i = i + 1
            return x

    folder = tmp_path_factory.mktemp("mindir")
    for name, cell in (("straight", Straight()), ("loop", Loop())):
        image = ms.Tensor(np.ones((1, 2, 4, 4), np.float32))
        ms.export(cell, image, file_name=str(folder / name), file_format="MINDIR")
    return {name: folder / f"{name}.mindir" for name in ("straight", "loop")}


@pytest.mark.parametrize("name", ["straight", "loop"])
@pytest.mark.slow
def test_reads_what_mindspore_reads(files, name):
    run = subprocess.run([sys.executable, "-c", TRUTH, files[name]], capture_output=True, text=True, check=True)
    found = read_mindir(files[name])
    assert [sorted(found.primitives), found.functions, found.version] == json.loads(run.stdout.splitlines()[-1])


def test_what_the_graphs_hold(files):
    straight, loop = read_mindir(files["straight"]), read_mindir(files["loop"])
    assert {"Conv2D", "BiasAdd", "PReLU", "Softmax"} <= set(straight.primitives)
    assert (straight.functions, straight.version) == (0, 3)
    assert "Switch" in loop.primitives and loop.functions > 0


def test_damaged_files(files, tmp_path):
    whole = files["straight"].read_bytes()
    damaged = {
        "promises more bytes": whole + b"\x0a\x64",
        "short": whole[: len(whole) // 2],
        "noise": b"\xff" * 64,
        "empty": b"",
        "another protobuf": b"\x0a\x02hi",
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=r"MINDIR.*export it again"):
            read_mindir(tmp_path / name)
    with pytest.raises(WeightsError):
        read_mindir(tmp_path / "missing")
