"""The options of sonic_ms as inputs of nodes, from options.json: this process need not have sonic_ms.

options.json is made from sonic_ms's own declaration by `python -m bench.make_comfyui_options`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .declare import Input

DECLARED = json.loads(Path(__file__).with_name("options.json").read_text(encoding="utf-8"))
WORDS = {"on": True, "off": False}


def inputs(group: str) -> tuple[Input, ...]:
    """Widgets of a group of options.json: "common", or a model's own."""
    return tuple(_input(one) for one in DECLARED["groups"][group])


def aliases(group: str) -> dict[str, str]:
    """{other name: name} of the options of a group."""
    return {other: one["name"] for one in DECLARED["groups"][group] for other in one.get("aliases", ())}


def values(group: str, given: dict[str, Any]) -> dict[str, Any]:
    """{option: value} as sonic_ms takes it, of those that differ from their defaults: what is left alone in a node is
    as if it were not given, so a model has its own default and sonic_ms does not take it for a wish."""
    chosen = {}
    for one in DECLARED["groups"][group]:
        value = given.get(one["name"], one["default"])
        if value is None or value == one["default"] or value == "":
            continue
        chosen[one["name"]] = _plain(one, value)
    return chosen


def box_problem(text: str | None) -> str | None:
    """What is wrong with a face_box, in one line; None for a good one, for none, and for one that comes by a link."""
    if not text or _numbers(text, 4):
        return None
    return f"face_box is {text!r}; expected x,y,width,height in photo pixels such as 120,80,200,240, or nothing"


def _numbers(text: str, count: int) -> list[float] | None:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    return numbers if len(numbers) == count else None


def _input(one: dict[str, Any]) -> Input:
    words = one.get("choices")
    return Input(
        one["name"],
        one["kind"],
        one["help"],
        default=one["default"],
        low=one.get("low"),
        high=one.get("high"),
        step=one.get("step"),
        choices=(lambda: list(words)) if words else None,
        reseed=one["name"] == "seed",
    )


def _plain(one: dict[str, Any], value: Any) -> Any:
    if one["name"] == "face_box":
        return _numbers(value, 4)
    if one["kind"] == "STRING" and "," in one["default"]:
        return _numbers(value, one["default"].count(",") + 1) or value  # sonic_ms says what is wrong with the text
    if one["name"] == "face":
        return str(value)
    return WORDS.get(value, value) if one["kind"] == "COMBO" else value
