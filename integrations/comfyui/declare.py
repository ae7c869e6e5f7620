"""How a node is declared, once, for both interfaces of ComfyUI: classic.py and v3.py make classes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

WIDGETS = ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO")  # types that are set in the node, others only by a link


@dataclass(frozen=True)
class Input:
    """name: as workflows hold it. kind: a type of ComfyUI. help: its tooltip. optional: a workflow may lack it.
    default, low, high, step: of a widget. choices: function that gives the words of a COMBO, asked anew whenever the
    node is shown. reseed: the widget may draw a new value after every run."""

    name: str
    kind: str
    help: str = ""
    optional: bool = True
    default: Any = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: Callable[[], list[str]] | None = None
    reseed: bool = False

    def check(self, value: Any) -> str | None:
        """What is wrong with a value of a widget, in one line; ComfyUI itself only looks at numbers everywhere."""
        if self.choices is not None and value not in (known := self.choices()):
            return f"{self.name} is {value!r}; expected one of {', '.join(known) or 'nothing, as there is none'}"
        return None


@dataclass(frozen=True)
class Node:
    """id: as workflows hold it, for ever. inputs: in the order of their widgets, by which saved workflows know them:
    new ones go to the end. outputs: (type, name). run: function (call, **inputs) -> outputs, of an output node
    (outputs, ui); call is a host.Call. is_output: ComfyUI runs what this node needs. also_known: {older or other name
    of an input: its name}."""

    id: str
    title: str
    help: str
    inputs: tuple[Input, ...]
    outputs: tuple[tuple[str, str], ...]
    run: Callable[..., Any]
    is_output: bool = False
    also_known: dict[str, str] = field(default_factory=dict)

    @property
    def has_box(self) -> bool:
        return any(one.name == "face_box" for one in self.inputs)


CATEGORY = "sonic_ms"
