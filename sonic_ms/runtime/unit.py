"""A graph as every engine sees it: name, named inputs and outputs with their shapes, and its Cell.

The exporter, the engines, the lint and the ATC scripts know graphs only from a table of units (edge/units.py,
base/units.py), or from the manifest of a bundle that was written from one. Shapes are static. No input is int64; loops,
schedules and random numbers stay on the host. Importing this needs no MindSpore; `Unit.build` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"  # or float16, int32


@dataclass(frozen=True)
class Unit:
    """One graph. build() -> the loaded Cell, in inference mode; None for a unit that was read from a bundle.

    threads: of a CPU that one run takes where the engine can be told: 0 for all, or 1, and then several runs go beside
    one another."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    build: Callable[[], Any] | None
    threads: int = 0


Calibrate = Callable[[Unit], tuple[tuple[str, ...], list[dict[str, np.ndarray]], tuple[str, ...]]]
Sample = Callable[[Unit, int], dict[str, np.ndarray]]  # (unit, seed) -> inputs in the range that the pipeline feeds


@dataclass(frozen=True)
class UnitTable:
    """All units of a model for one gear, and what a bundle keeps beside the graphs.

    gear: the sizes that the graphs are made for. configs: {network: config dataclass}. rearrange: {unit: function that
    rearranges its Cell for a CPU}. calibrate: unit -> (ONNX operators that int8 quantises, list of inputs that show the
    ranges, names of tensors that halves are enough for), None for a model that has no int8.
    """

    model: str
    units: Mapping[str, Unit]
    sample: Sample
    gear: Mapping[str, Any]
    configs: Mapping[str, Any]
    weights_sha256: str
    licence: str
    rearrange: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    calibrate: Calibrate | None = None


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected| in the L2 norm; infinite where `found` holds a value that is not finite. An int32
    counts as its four bytes, which are packed colours."""
    found, expected = (array.view(np.uint8) if array.dtype == np.int32 else array for array in (found, expected))
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-12))


def normal_inputs(unit: Unit, seed: int = 0) -> dict[str, np.ndarray]:
    """Standard normal arrays for every input of a unit: a `Sample` for inputs that have no range of their own."""
    rng = np.random.default_rng(seed)
    return {one.name: rng.standard_normal(one.shape).astype(one.dtype) for one in unit.inputs}
