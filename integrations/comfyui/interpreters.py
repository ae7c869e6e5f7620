"""Which interpreter runs sonic_ms. A workflow can only choose among those that whoever started ComfyUI named: a
workflow of a stranger must not start a program."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from .process import INSTALL, NodeError

VARIABLE = "SONIC_MS_PYTHON"  # paths, separated as in PATH; the first is the default
DEFAULT = "default"
HERE = "inside ComfyUI"


def choices() -> list[str]:
    """What the loader offers."""
    return [DEFAULT, *_named(), HERE]


def find(choice: str) -> str | None:
    """Path of the interpreter of a choice, None for ComfyUI's own process. Raises NodeError."""
    if choice not in choices():
        raise NodeError(
            f"python is {choice!r}; expected one of {', '.join(choices())}: only {VARIABLE} of the machine names others"
        )
    if choice == HERE:
        return None
    if choice != DEFAULT:
        return choice
    found = next(iter(_named()), None) or _of_the_command() or _own()
    if found is None:
        raise NodeError(f"no interpreter has sonic_ms: {VARIABLE} is not set, there is no command sonic-ms; {INSTALL}")
    return found


def environment(python: str) -> dict[str, str]:
    """Variables for an interpreter: ComfyUI's module paths are not for another one."""
    dropped = () if python == sys.executable else ("PYTHONPATH", "PYTHONHOME")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def _named() -> list[str]:
    return [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]


def _of_the_command() -> str | None:
    """The interpreter in the first line of the command sonic-ms."""
    command = shutil.which("sonic-ms")
    if command is None:
        return None
    with open(command, "rb") as file:
        first = file.readline(4096).decode(errors="replace").strip()
    path = first[2:].strip() if first.startswith("#!") else ""
    return path if Path(path).name.startswith("python") and Path(path).is_file() else None


def _own() -> str | None:
    """ComfyUI's interpreter, as a process of its own, where sonic_ms is installed with it."""
    return sys.executable if importlib.util.find_spec("sonic_ms") else None
