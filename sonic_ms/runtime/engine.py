"""What the pipeline asks of a runtime. The pipeline never knows which one runs."""

from typing import Protocol

from sonic_ms.errors import EngineError


class Engine(Protocol):
    """Runs named graph units on numpy arrays."""

    def run(self, unit: str, inputs: dict) -> dict:
        """Run one unit: {input name: array} -> {output name: array}. Raises EngineError."""

    def info(self) -> dict:
        """Name of the engine, device and precision."""

    def close(self) -> None:
        """Free what the engine holds."""


ENGINES = ("auto", "mindspore")


def check_engine(name):
    """Refuse an engine this version does not have; returns the engine that `auto` stands for."""
    if name not in ENGINES:
        raise EngineError(f"engine {name!r} is not known; expected one of {', '.join(ENGINES)}")
    return "mindspore" if name == "auto" else name
