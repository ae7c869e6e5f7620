"""A made video as a labelled mp4: the labels are in the file before it gets its name, or there is no file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import OutputError
from sonic_ms.labels import aigc, mp4
from sonic_ms.media.video import Video, write_video


@dataclass(frozen=True)
class Labels:
    """What a video says of itself. number: its ProduceID, 32 hexadecimal digits."""

    number: str


@dataclass(frozen=True)
class Operator:
    """Who answers for the videos. producer: name or code for the implicit label, see aigc.check_producer."""

    producer: str = aigc.DEFAULT_PRODUCER


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
    keys = {aigc.KEY: label.text()}
    return write_video(video, path, overwrite, progress, None, keys, sealer(Path(path), label))
