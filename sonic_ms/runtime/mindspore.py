"""MindSpore itself as an engine: Cells in GRAPH_MODE on the CPU or on an Ascend device."""

import os
import warnings

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


class MindSporeEngine:
    """Engine over Cells. `cells`: {unit: (Cell, input names, output names)}; a Cell compiles on its first run."""

    def __init__(self, cells):
        self._cells = cells

    def _tensors(self, unit, inputs):
        import mindspore as ms

        names = self._cells[unit][1]
        if set(inputs) != set(names):
            raise EngineError(f"unit {unit}: inputs {sorted(inputs)}, expected {sorted(names)}")
        return [ms.Tensor.from_numpy(inputs[name]) for name in names]  # shares the memory

    def compile(self, unit, inputs):
        """Build the graph of a unit for inputs of these shapes, without running it."""
        self._cells[unit][0].compile(*self._tensors(unit, inputs))

    def run(self, unit, inputs):
        cell, _, output_names = self._cells[unit]
        outputs = cell(*self._tensors(unit, inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {name: output.asnumpy() for name, output in zip(output_names, outputs)}

    def info(self):
        import mindspore as ms

        return {
            "engine": "mindspore",
            "version": ms.__version__,
            "device": ms.get_context("device_target"),
            "precision": "fp32",
        }

    def close(self):
        self._cells = {}


def start():
    """Import MindSpore in GRAPH_MODE, quietly; warn once when its CPU backend is a slow one. Returns the module."""
    os.environ.setdefault("GLOG_v", "3")  # errors only: its warnings are about its own internals
    try:
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
