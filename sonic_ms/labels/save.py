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
from sonic_ms.media.audio import SAMPLE_RATE
from sonic_ms.media.join import Joiner
from sonic_ms.media.video import Video, VideoWriter, write_video


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


@dataclass(frozen=True)
class Pieces:
    """What the pieces of a video have in common. size: (width, height); frames: of the whole; seconds: of its sound."""

    size: tuple[int, int]
    fps: float
    frames: int
    seconds: float
    number: str
    watermark: bool


def piece_of(frames: int, piece: int, pieces: int) -> tuple[int, int]:
    """(start, stop) of a piece, 0 to pieces - 1, of so many frames: all about alike."""
    return frames * piece // pieces, frames * (piece + 1) // pieces


def save_piece(video: Video, path: str | os.PathLike[str], piece: int, pieces: int) -> Pieces:
    """Write one of several pieces of a `Video`, with the work of that piece alone: marked as the whole would be there,
    without sound and labels, which `join_pieces` adds. Raises UsageError for a model whose frames hang together or a
    piece without frames, OutputError."""
    if video.piece is None:
        raise UsageError("pieces: this model's frames hang together; its videos are made whole")
    start, stop = piece_of(video.n_frames, piece, pieces)
    if start == stop:
        raise UsageError(f"pieces: {video.n_frames} frames cannot be {pieces} pieces; ask for fewer")
    assert video.labels is not None and video.audio is not None
    mark = Marker(mark_of(video.labels.number), next(video.piece(0, 1))) if video.labels.watermark else None
    with VideoWriter(path, video.size, None, video.fps, overwrite=True) as writer:
        for frame in video.piece(start, stop):
            writer.write(mark(frame, (start + writer.frames) / video.fps) if mark else frame)
    seconds = len(video.audio) / SAMPLE_RATE
    return Pieces(video.size, video.fps, video.n_frames, seconds, video.labels.number, video.labels.watermark)


def join_pieces(
    pieces: Pieces,
    files: list[str | os.PathLike[str]],
    audio: str | os.PathLike[str],
    path: str | os.PathLike[str],
    overwrite: bool = False,
    operator: Operator | None = None,
) -> Path:
    """The labelled mp4 of all pieces, in their order, with the sound of a recording; Path of the file. Raises as
    `save_video`."""
    operator = operator or Operator()
    label = aigc.first(operator.producer, pieces.number)
    seal = sealer(Path(path), label, operator.signer)
    with Joiner(
        path, pieces.size, audio, pieces.fps, overwrite=overwrite, audio_duration=pieces.seconds,
        keys={aigc.KEY: label.text()}, seal=seal,
    ) as joiner:  # fmt: skip
        for number, file in enumerate(files):
            start, stop = piece_of(pieces.frames, number, len(files))
            joiner.add(file, stop - start)
    return joiner.path
