"""What the pipeline asks of a runtime. The pipeline never knows which one runs."""

import importlib.util
import os
from typing import Protocol

import numpy as np

from sonic_ms.errors import EngineError


class Engine(Protocol):
    """Runs the graphs of a table of units on NumPy arrays. May be used by one thread at a time."""

    def prepare(self, unit: str) -> None:
        """Compile or load a unit now, so that its first run does not wait for that."""

    def run(self, unit: str, inputs: dict) -> dict:
        """Run one unit: {input name: array} -> {output name: array}. Raises EngineError."""

    def info(self) -> dict:
        """Name of the engine, version, device and precision."""

    def close(self) -> None:
        """Free what the engine holds."""


ENGINES = ("auto", "mindspore", "onnxruntime", "lite", "acl")


def check_engine(name, bundle=False):
    """Refuse an engine that is not known, or that needs a bundle where there is none."""
    if name not in ENGINES:
        raise EngineError(f"engine {name!r} is not known; expected one of {', '.join(ENGINES)}")
    if not bundle and name not in ("auto", "mindspore"):
        raise EngineError(f"engine {name} runs exported graphs; make them with sonic-ms export and give --bundle")


def open_engine(name, bundle):
    """The engine `name` on a bundle. auto: the first that is installed and that the bundle has graphs for, of
    onnxruntime and mindspore; lite and acl are only taken when asked for."""
    check_engine(name, bundle=True)
    if name == "auto":
        name = _choose(bundle)
    if name == "mindspore":
        from sonic_ms.runtime.cells import MindirEngine

        return MindirEngine(bundle)
    if name == "onnxruntime":
        from sonic_ms.runtime.ort import OnnxEngine

        return OnnxEngine(bundle)
    if name == "lite":
        from sonic_ms.runtime.lite import LiteEngine

        return LiteEngine(bundle)
    from sonic_ms.runtime.ascendcl import AclEngine

    return AclEngine(bundle)


def _choose(bundle):
    first = next(iter(bundle.units))
    for name, module, kind in (("onnxruntime", "onnxruntime", "onnx"), ("mindspore", "mindspore", "mindir")):
        if bundle.has(first, kind) and importlib.util.find_spec(module):
            return name
    raise EngineError(
        f"nothing installed runs {bundle.folder}; install onnxruntime (for its onnx) or mindspore (for its mindir), "
        "or ask for lite or acl with --engine"
    )


def device_id():
    """Number of the Ascend device, from SONIC_MS_DEVICE_ID, default 0. Raises EngineError."""
    value = os.environ.get("SONIC_MS_DEVICE_ID", "0")
    if not value.isdecimal():
        raise EngineError(f"SONIC_MS_DEVICE_ID is {value!r}; expected a number such as 0")
    return int(value)


def check_inputs(unit, inputs):
    """The arrays in the order of the unit, contiguous. Raises EngineError for a wrong name, shape or type."""
    names = [tensor.name for tensor in unit.inputs]
    if set(inputs) != set(names):
        raise EngineError(f"unit {unit.name}: inputs {sorted(inputs)}, expected {sorted(names)}")
    arrays = []
    for tensor in unit.inputs:
        array = inputs[tensor.name]
        if array.shape != tensor.shape or array.dtype != np.dtype(tensor.dtype):
            raise EngineError(
                f"unit {unit.name}: input {tensor.name} is {array.dtype} {array.shape}, "
                f"expected {tensor.dtype} {tensor.shape}"
            )
        arrays.append(np.ascontiguousarray(array))
    return arrays
