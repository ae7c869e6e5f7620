"""A made video as a labelled mp4: the labels are in the file before it gets its name, or there is no file."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import OutputError, UsageError, short
from sonic_ms.files.temporary import Temporary
from sonic_ms.labels import aigc, mp4
from sonic_ms.labels.manifest import Signer, sign
from sonic_ms.labels.watermark import Marker
from sonic_ms.media.video import Video, write_video


@dataclass(frozen=True)
class Labels:
    """What a video says of itself. number: its ProduceID, 32 hexadecimal digits. watermark: whether the frames that are
    written carry the first 12 of them."""

    number: str
    watermark: bool = True


@dataclass(frozen=True)
class Operator:
    """Who answers for the videos. producer: name or code for the implicit label, see aigc.check_producer. signer: signs
    the C2PA manifest; without one there is none."""

    producer: str = aigc.DEFAULT_PRODUCER
    signer: Signer | None = None


def mark_of(number: str) -> int:
    """The 48 bits of a ProduceID that the watermark holds: its first 12 hexadecimal digits. Raises UsageError."""
    if not re.match("[0-9a-f]{12}", number):
        raise UsageError(f"number {short(number)} cannot be a watermark; expected 12 or more hexadecimal digits")
    return int(number[:12], 16)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """An empty hidden file beside `path` that is gone afterwards. Raises OutputError for what the system refuses."""
    try:
        with Temporary(path.absolute().parent, ".mp4") as temporary:
            yield temporary
    except OSError as error:
        raise OutputError(f"output {path}: cannot be written ({error.strerror}); choose another folder") from error


def sealer(path: Path, label: aigc.Aigc, signer: Signer | None) -> Callable[[Path], None]:
    """What is done to a finished file before it gets its name `path`: `label` is read back, then it is signed."""

    def seal(finished: Path) -> None:
        found = mp4.read_keys(finished).get(aigc.KEY)
        if found != label.text():
            raise OutputError(
                f"output {path}: the label {aigc.KEY} was not written as asked (found {found!r}); report it"
            )
        if signer:
            with beside(finished) as signed:
                sign(finished, signed, signer)
                os.replace(signed, finished)

    return seal


def save_video(
    video: Video,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    progress: bool = True,
    operator: Operator | None = None,
) -> Path:
    """Write a `Video` as a labelled mp4 while it is being made; Path of the file.

    overwrite: replace an existing file. progress: show a bar. operator: who answers for it.
    Raises OutputError (see media.video.VideoWriter; also what cannot be signed); UsageError for a producer's name that
    the label cannot hold; EngineError for a signer without the package c2pa-python.
    """
    if video.labels is None:
        return write_video(video, path, overwrite, progress)
    operator = operator or Operator()
    label = aigc.first(operator.producer, video.labels.number)
    mark = Marker(mark_of(video.labels.number)) if video.labels.watermark else None
    keys = {aigc.KEY: label.text()}
    return write_video(video, path, overwrite, progress, mark, keys, sealer(Path(path), label, operator.signer))
