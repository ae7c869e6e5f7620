"""A graph as every engine sees it: name, named inputs and outputs with their shapes, and its Cell.

The exporter, the engines, the lint and the ATC scripts know graphs only from a table of units (edge/units.py,
base/units.py), or from the manifest of a bundle that was written from one. Shapes are static. No input is int64; loops,
schedules and random numbers stay on the host. Importing this needs no MindSpore; `Unit.build` does.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"  # or float16


@dataclass(frozen=True)
class Unit:
    """One graph. build() -> the loaded Cell, in inference mode."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    build: Callable
