"""What the pipeline asks of a runtime. The pipeline never knows which one runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sonic_ms.errors import EngineError
from sonic_ms.runtime.unit import Unit


class Engine(Protocol):
    """Runs the graphs of a table of units on NumPy arrays. Threads take turns, see turns.py.

    Where runs of a unit need not, the engine also has at_once(unit): how many may be on their way, see runs_at_once.
    """

    def prepare(self, unit: str) -> None:
        """Compile or load a unit now, so that its first run does not wait for that."""

    def run(self, unit: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one unit: {input name: array} -> {output name: array}. Raises EngineError."""

    def info(self) -> dict[str, Any]:
        """Name of the engine, version, device and precision."""

    def close(self) -> None:
        """Free what the engine holds."""


def runs_at_once(engine: Engine, unit: str) -> int:
    """How many runs of a unit it pays to have on their way; 1 where threads take turns."""
    return engine.at_once(unit) if hasattr(engine, "at_once") else 1


def has_npu() -> bool:
    """Whether this machine shows an Ascend NPU. Asking MindSpore would take seconds."""
    return any(Path("/dev").glob("davinci[0-9]*"))


def device_id() -> int:
    """Number of the Ascend device, from SONIC_MS_DEVICE_ID, default 0. Raises EngineError."""
    value = os.environ.get("SONIC_MS_DEVICE_ID", "0")
    if not value.isdecimal():
        raise EngineError(f"SONIC_MS_DEVICE_ID is {value!r}; expected a number such as 0")
    return int(value)


def check_inputs(unit: Unit, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
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
