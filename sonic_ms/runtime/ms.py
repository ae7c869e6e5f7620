"""The one door to MindSpore: GRAPH_MODE, quiet, with a warning on a slow CPU backend, its own protobuf."""

import os
import sys
import warnings
from contextlib import contextmanager

from sonic_ms.errors import EngineError

# From 2.9 on, MindSpore's x86 CPU backend runs Conv2d on oneDNN's reference kernel: about 200 times slower.
FIRST_SLOW_CPU_VERSION = (2, 9)


def slow_cpu_warning(version, device):
    """One line of warning when this MindSpore is slow on this device, else None."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if device == "CPU" and numbers >= FIRST_SLOW_CPU_VERSION:
        return (
            f"MindSpore {version} convolves about 200 times slower on a CPU than 2.7 and 2.8; "
            "install one of them: pip install 'mindspore>=2.7.1,<2.9'"
        )
    return None


def start():
    """Import MindSpore in GRAPH_MODE, quietly; warn once when its CPU backend is a slow one. Returns the module."""
    os.environ.setdefault("GLOG_v", "3")  # errors only: its warnings are about its own internals
    try:
        with _protobuf_of_its_own():
            import mindspore as ms
    except ImportError as error:
        raise EngineError(
            f"MindSpore cannot be imported ({error}); install it: pip install 'mindspore>=2.7.1,<2.9'"
        ) from error
    ms.set_context(mode=ms.GRAPH_MODE)
    message = slow_cpu_warning(ms.__version__, ms.get_context("device_target"))
    if message:
        warnings.warn(message, stacklevel=2)
    return ms


@contextmanager
def _protobuf_of_its_own():
    """MindSpore's generated messages need the pure Python form of protobuf, which is chosen when protobuf is first
    imported. Where something else did that before, such as onnx, MindSpore gets a second copy."""

    def modules():
        return {name: module for name, module in sys.modules.items() if name.startswith("google.protobuf")}

    before = {} if "mindspore" in sys.modules else modules()
    if before:
        os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
        for name in before:
            del sys.modules[name]
    try:
        yield
    finally:
        if before:
            for name in modules():
                del sys.modules[name]
            sys.modules.update(before)
            sys.modules["google"].protobuf = before["google.protobuf"]
