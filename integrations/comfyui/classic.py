"""The nodes as ComfyUI's first interface takes them: classes with INPUT_TYPES."""

from __future__ import annotations

from typing import Any

from .declare import CATEGORY, Input, Node
from .host import Call
from .options import box_problem
from .running import run


def classes(nodes: list[Node]) -> tuple[dict[str, type], dict[str, str]]:
    """(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)."""
    return {node.id: _class(node) for node in nodes}, {node.id: node.title for node in nodes}


def _class(node: Node) -> type:
    def INPUT_TYPES(cls: type) -> dict[str, Any]:
        found: dict[str, Any] = {"required": {}, "optional": {}}
        for one in node.inputs:
            found["optional" if one.optional else "required"][one.name] = _entry(one)
        return found | {"hidden": {"prompt": "PROMPT", "unique_id": "UNIQUE_ID"}}

    def execute(self: object, prompt: Any = None, unique_id: Any = None, **given: Any) -> Any:
        outputs, shown = run(node, Call(unique_id, prompt), given)
        return outputs if shown is None else {"ui": shown, "result": outputs}

    def VALIDATE_INPUTS(cls: type, face_box: str | None = None) -> bool | str:
        return box_problem(face_box) or True

    content: dict[str, Any] = {
        "INPUT_TYPES": classmethod(INPUT_TYPES),
        "RETURN_TYPES": tuple(kind for kind, _ in node.outputs),
        "RETURN_NAMES": tuple(name for _, name in node.outputs),
        "FUNCTION": "execute",
        "CATEGORY": CATEGORY,
        "DESCRIPTION": node.help,
        "OUTPUT_NODE": node.is_output,
        "execute": execute,
    }
    if node.has_box:
        content["VALIDATE_INPUTS"] = classmethod(VALIDATE_INPUTS)
    return type(node.id, (), content)


def _entry(one: Input) -> tuple[Any, dict[str, Any]]:
    settings = {"tooltip": one.help, "default": one.default, "min": one.low, "max": one.high, "step": one.step}
    settings = {name: value for name, value in settings.items() if value is not None}
    if one.reseed:
        settings["control_after_generate"] = True
    return (one.choices() if one.choices else one.kind), settings
