"""A made video as a labelled mp4: the labels are in the file before it gets its name, or there is no file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import OutputError, UsageError, short
from sonic_ms.labels import aigc, mp4
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
    """Who answers for the videos. producer: name or code for the implicit label, see aigc.check_producer."""

    producer: str = aigc.DEFAULT_PRODUCER


def mark_of(number: str) -> int:
    """The 48 bits of a ProduceID that the watermark holds: its first 12 hexadecimal digits. Raises UsageError."""
    if not re.match("[0-9a-f]{12}", number):
        raise UsageError(f"number {short(number)} cannot be a watermark; expected 12 or more hexadecimal digits")
    return int(number[:12], 16)


def sealer(path: Path, label: aigc.Aigc) -> Callable[[Path], None]:
    """What is done to a finished file before it gets its name `path`: `label` is read back."""

    def seal(finished: Path) -> None:
        found = mp4.read_keys(finished).get(aigc.KEY)
        if found != label.text():
            raise OutputError(
                f"output {path}: the label {aigc.KEY} was not written as asked (found {found!r}); report it"
            )

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
    Raises OutputError (see media.video.VideoWriter); UsageError for a producer's name that the label cannot hold.
    """
    if video.labels is None:
        return write_video(video, path, overwrite, progress)
    label = aigc.first((operator or Operator()).producer, video.labels.number)
    mark = Marker(mark_of(video.labels.number)) if video.labels.watermark else None
    keys = {aigc.KEY: label.text()}
    return write_video(video, path, overwrite, progress, mark, keys, sealer(Path(path), label))
