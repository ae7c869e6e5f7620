"""Which engine runs the graphs of a bundle."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from typing import Any

from sonic_ms.errors import EngineError, UsageError
from sonic_ms.runtime.engine import Engine

ENGINES = ("auto", "mindspore", "onnxruntime", "lite", "acl")


def check_engine(name: str, runs: Collection[str] = ENGINES) -> None:
    """Refuse an engine that is not known, or that is not among those that a model without a bundle `runs` on."""
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not known; expected one of {', '.join(ENGINES)}")
    if name not in runs:
        raise EngineError(f"engine {name} runs exported graphs; make them with sonic-ms export and give --bundle")


def open_engine(name: str, bundle: Any) -> Engine:
    """The engine `name` on a bundle. auto: the first that is installed and that the bundle has graphs for, of
    onnxruntime and mindspore; lite and acl are only taken when asked for."""
    check_engine(name)
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


def _choose(bundle: Any) -> str:
    first = next(iter(bundle.units))
    for name, module, kind in (("onnxruntime", "onnxruntime", "onnx"), ("mindspore", "mindspore", "mindir")):
        if bundle.has(first, kind) and importlib.util.find_spec(module):
            return name
    raise EngineError(
        f"nothing installed runs {bundle.folder}; install onnxruntime (for its onnx) or mindspore (for its mindir), "
        "or ask for lite or acl with --engine"
    )
