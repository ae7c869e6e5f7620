"""What both interfaces do when a node runs: look at its inputs, then call its function."""

from __future__ import annotations

from typing import Any

from .declare import Node
from .host import Call
from .process import NodeError


def run(node: Node, call: Call, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    """(outputs, ui or None). Raises NodeError for values that ComfyUI let pass, and for inputs that a workflow of
    another version has: ComfyUI would leave them out without a word."""
    given = dict(given)
    names = {one.name for one in node.inputs}
    for name in sorted(call.given() - names):
        if name not in node.also_known:
            raise NodeError(
                f"{node.id} has no input {name!r}; the workflow is of another version of it: make the node anew, or "
                f"leave the input out. This one knows {', '.join(one.name for one in node.inputs)}"
            )
        value = call.prompt[call.node]["inputs"][name]
        if isinstance(value, list):
            raise NodeError(f"{node.id}: {name!r} is called {node.also_known[name]!r} now; connect it there")
        given[node.also_known[name]] = value
    for one in node.inputs:
        if one.name in given and (problem := one.check(given[one.name])):
            raise NodeError(f"{node.id}: {problem}")
    result = node.run(call, **given)
    return result if node.is_output else (result, None)
