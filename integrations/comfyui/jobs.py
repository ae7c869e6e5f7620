"""What a node makes of a portrait and a recording: the files of one job, the job, and ComfyUI's outputs of it."""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import interpreters, media, process, worker
from .host import Call
from .process import NodeError

OPERATOR = {  # field of a request -> variable of the machine: who answers for its videos is no matter of a workflow
    "producer": "SONIC_MS_PRODUCER",
    "certificate": "SONIC_MS_C2PA_CERT",
    "key": "SONIC_MS_C2PA_KEY",
}
STEPS = 1000  # of a stage without steps of its own


@dataclass(frozen=True)
class Model:
    """SONIC_MS_MODEL: what the loader chose. name: of a shipped model, or path of a folder. python: path of an
    interpreter, None for ComfyUI's own process."""

    name: str
    engine: str = "auto"
    precision: str = "fp32"
    python: str | None = None


_models_here = worker.Models()  # in ComfyUI's own process


def make(
    call: Call,
    model: Model,
    image: Any,
    audio: Any,
    options: dict[str, Any],
    by_model: dict[str, dict[str, Any]] | None = None,
    many: bool = True,
) -> tuple[Any, Any, dict[str, Any], float]:
    """(VIDEO, IMAGE, AUDIO, frames a second) of a portrait that speaks.

    options, by_model: as worker.make takes them. many: IMAGE has all frames, else the first. The mp4 is in ComfyUI's
    temporary folder, with all its labels; what ends before that leaves nothing. Raises NodeError, or what ComfyUI
    raises for an interrupt.
    """
    folder = call.temporary()
    with tempfile.TemporaryDirectory(prefix="sonic_ms-", dir=folder) as name:
        job = Path(name)
        files = {"image": job / "image.png", "audio": job / "audio.wav", "output": job / "talk.mp4"}
        files["frames"] = job / "frames.rgb"
        media.write_image(image, files["image"])
        media.write_sound(audio, files["audio"])
        request = {"do": "make", "model": model.name, "engine": model.engine, "precision": model.precision}
        request |= {"options": options, "by_model": by_model or {}, "many": many, **operator()}
        request |= {field: str(path) for field, path in files.items()}
        made = run(call, model.python, request, many)
        images = media.read_frames(files["frames"], made["frames"] if many else 1, made["size"])
        finished = folder / f"sonic_ms-{made['number'][:12]}-{secrets.token_hex(4)}.mp4"
        os.replace(files["output"], finished)
    sound = media.cut(audio, made["frames"] / made["fps"])
    return call.video(finished), images, sound, float(made["fps"])


def operator() -> dict[str, str | None]:
    """The fields of a request that say who answers for the video. Raises NodeError."""
    given = {field: os.environ.get(variable) or None for field, variable in OPERATOR.items()}
    if (given["certificate"] is None) != (given["key"] is None):
        raise NodeError(f"{OPERATOR['certificate']} and {OPERATOR['key']} belong together: set both, or none")
    return given


def run(call: Call, python: str | None, request: dict[str, Any], many: bool) -> dict[str, Any]:
    """Do a job in the interpreter that it is for, and show how it goes."""

    def say(said: dict[str, Any]) -> None:
        if "note" in said:
            call.note(said["note"])
        elif "video" in said and many:
            _check_memory(call, said["video"])
        elif "progress" in said:
            _, done, total = said["progress"]
            call.progress(done, total) if total > 1 else call.progress(0, STEPS)

    if python is not None:
        return process.worker(python, interpreters.environment(python)).run(request, say, call.check)
    return _run_here(request, say, call)


def _run_here(request: dict[str, Any], say: process.Say, call: Call) -> dict[str, Any]:
    """A job in ComfyUI's own process."""
    try:
        import sonic_ms  # noqa: F401
    except Exception as error:
        raise NodeError(
            f"ComfyUI's own process cannot import sonic_ms ({type(error).__name__}: {error}); install it there, or "
            f"choose the python {interpreters.DEFAULT!r}"
        ) from None
    said: list[dict[str, Any]] = []
    raised: list[BaseException] = []

    def hear(answer: dict[str, Any]) -> None:
        if not {"made", "error", "cancelled"} & set(answer):
            attempt(say, answer)
        said.append(answer)

    def attempt(function: Any, *given: Any) -> None:
        try:
            function(*given)
        except BaseException as error:  # of ComfyUI, and not of the job
            raised.append(error)

    def cancelled() -> bool:
        attempt(call.check)
        return bool(raised)

    worker.answer(request, hear, cancelled, _models_here)
    if raised:
        raise raised[0]
    if "made" not in said[-1]:
        raise NodeError(said[-1]["message"])
    return said[-1]["made"]


def _check_memory(call: Call, video: dict[str, Any]) -> None:
    needed, free = media.image_bytes(video["frames"], video["size"]), call.free_memory()
    if needed > free:
        raise NodeError(
            f"IMAGE of {video['frames']} frames needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; switch "
            "all_frames off and use VIDEO, or make the video shorter or smaller"
        )
