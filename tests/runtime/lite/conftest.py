"""The real Lite and a bundle for it."""

import numpy as np
import pytest

from sonic_ms.runtime import lite
from sonic_ms.runtime.choose import open_engine
from tests.support.lite_graphs import HUGE, MIX, SLOW, TWICE

CONV = {"strides": [1, 1], "dilations": [1, 1]}  # ONNX has defaults for them, Lite 2.0 has not


@pytest.fixture(autouse=True)
def lite_python(monkeypatch, tmp_path_factory):
    """The interpreter with the real Lite, whatever folder a test then uses as its cache."""
    python = lite.find_python()
    monkeypatch.setenv("SONIC_MS_LITE_PYTHON", python)
    monkeypatch.delenv("SONIC_MS_LITE_TARGET", raising=False)
    monkeypatch.setenv("SONIC_MS_CACHE", str(tmp_path_factory.mktemp("cache")))
    return python


@pytest.fixture
def bundle(make_bundle, write_onnx, tmp_path):
    """mix: two small graphs in one; twice; slow: half a minute of products; huge: 3.6 GB between input and output."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    mix = [
        ("Sub", ("left", "right"), "difference", {}),
        ("Conv", ("picture", "w"), "c", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], **CONV}),
        ("Relu", ("c",), "features", {}),
    ]
    slow = [("MatMul", ("x", "x"), "p0", {})]
    slow += [("MatMul", (f"p{i}", "x"), "y" if i == 39 else f"p{i + 1}", {}) for i in range(40)]
    huge = [("MatMul", ("x", "w"), "p", {}), ("ReduceSum", ("p",), "y", {"axes": [1], "keepdims": 0})]
    return make_bundle(
        (MIX, TWICE, SLOW, HUGE),
        {
            "twice": {"onnx": write_onnx(tmp_path / "twice.onnx", TWICE, [("Add", ("x", "x"), "y", {})], {})},
            "mix": {"onnx": write_onnx(tmp_path / "mix.onnx", MIX, mix, {"w": weights})},
            "slow": {"onnx": write_onnx(tmp_path / "slow.onnx", SLOW, slow, {})},
            "huge": {"onnx": write_onnx(tmp_path / "huge.onnx", HUGE, huge, {"w": np.ones((1, 30000), np.float32)})},
        },
    )


@pytest.fixture
def engine(bundle):
    engine = open_engine("lite", bundle)
    yield engine
    engine.close()
