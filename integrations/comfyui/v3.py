"""The nodes as ComfyUI's second interface takes them: classes with a schema. Imported only where that is there."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension, io

from .declare import CATEGORY, WIDGETS, Input, Node
from .host import Call
from .options import box_problem
from .running import run

KINDS = {"INT": io.Int, "FLOAT": io.Float, "BOOLEAN": io.Boolean, "STRING": io.String, "COMBO": io.Combo}


class Extension(ComfyExtension):
    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [_class(node) for node in self._nodes]


def _class(node: Node) -> type[io.ComfyNode]:
    def define_schema(cls: type) -> io.Schema:
        return io.Schema(
            node_id=node.id,
            display_name=node.title,
            category=CATEGORY,
            description=node.help,
            inputs=[_input(one) for one in node.inputs],
            outputs=[io.Custom(kind).Output(f"{name}_out", display_name=name) for kind, name in node.outputs],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            is_output_node=node.is_output,
        )

    def execute(cls: type[io.ComfyNode], **given: Any) -> io.NodeOutput:
        outputs, shown = run(node, Call(cls.hidden.unique_id, cls.hidden.prompt), given)
        return io.NodeOutput(*outputs, ui=shown)

    def validate_inputs(cls: type, face_box: str | None = None) -> bool | str:
        return box_problem(face_box) or True

    content = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    if node.has_box:
        content["validate_inputs"] = classmethod(validate_inputs)
    return type(node.id, (io.ComfyNode,), content)


def _input(one: Input) -> io.Input:
    common = {"optional": one.optional, "tooltip": one.help}
    if one.kind not in WIDGETS:
        return io.Custom(one.kind).Input(one.name, **common)
    common["default"] = one.default
    if one.kind in ("INT", "FLOAT"):
        common |= {"min": one.low, "max": one.high, "step": one.step}
    if one.choices:
        common["options"] = one.choices()
    if one.reseed:
        common["control_after_generate"] = True
    return KINDS[one.kind].Input(one.name, **common)
