"""Labels into a video that is there already: written beside it, looked at, then put in its place."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import NamedTuple

from sonic_ms.errors import OutputError, UsageError
from sonic_ms.labels import aigc, mp4
from sonic_ms.labels.save import beside, mark_of, sealer
from sonic_ms.labels.visible import VisibleLabel
from sonic_ms.labels.watermark import Marker, cells_of, read_mark, too_little
from sonic_ms.media.ffmpeg import MEMORY, blame_host, end, ffmpeg_input, ffmpeg_remarks, start
from sonic_ms.media.video import VideoWriter, key_arguments, probe, read_video


class Wanted(NamedTuple):
    """What goes into the pictures, which are then encoded anew. language: of the visible label, None for none. corner:
    where it goes. find_faces: function frame -> boxes (x, y, width, height), which it must not touch."""

    watermark: bool = False
    language: str | None = None
    corner: str = "bottom-right"
    find_faces: object = None


def write_labels(path, operator, wanted=None):
    """Label the mp4 `path` in place; list of notes. Sound is copied as it is, and so are pictures unless they are
    `wanted` (a Wanted) with labels in them.

    Raises InputMissingError, VideoError (no mp4, cut short), OutputError, UsageError (too short or small for the
    watermark, another watermark, no room for the visible label); the file is then as it was.
    """
    path = Path(path)
    text = mp4.read_keys(path).get(aigc.KEY)
    old, notes = None, []
    if text is not None:
        try:
            old = aigc.parse(text)
        except ValueError as error:
            notes.append(f"the label {aigc.KEY} that was there is replaced: {error}")
    label = aigc.over(old, operator.producer, uuid.uuid4().hex)
    if old is not None and old != label:
        notes.append(f"the label of {old.ContentProducer} is replaced; they are named as propagator")
    if mp4.has_manifest(path):
        notes.append("the C2PA manifest that was there is left out: it does not hold for the changed file")
    with beside(path) as temporary:
        if wanted and (wanted.watermark or wanted.language):
            with beside(temporary) as pictures:
                draw(path, pictures, wanted, label.ProduceID)
                copy(path, temporary, {aigc.KEY: label.text()}, pictures)
        else:
            copy(path, temporary, {aigc.KEY: label.text()})
        sealer(path, label, operator.signer)(temporary)
        shutil.copymode(path, temporary)
        os.replace(temporary, path)
    return notes


def draw(source, target, wanted, number):
    """The pictures of a video with labels in them, without sound. Raises VideoError, OutputError, UsageError."""
    info = probe(source)
    mark = None
    if wanted.watermark:
        if problem := too_little((info.width, info.height), info.video_seconds):
            raise UsageError(f"video {source}: {problem}")
        there = read_mark(*cells_of(source))[0]
        if there is not None:
            raise UsageError(
                f"video {source}: has the watermark {there:012x} already, and a second would spoil both; leave "
                "--watermark out"
            )
        mark = Marker(mark_of(number))
    frames = read_video(source)
    first = next(frames)
    size = (first.shape[1], first.shape[0])
    label = None
    if wanted.language:
        label = VisibleLabel(size, wanted.language, wanted.corner, wanted.find_faces(first))
    with VideoWriter(target, size, None, info.fps, overwrite=True) as writer:
        for frame in itertools.chain([first], frames):
            frame = label(frame) if label else frame
            writer.write(mark(frame, writer.frames / info.fps) if mark else frame)


def copy(source, target, keys, pictures=None):
    """Copy the tracks and the metadata of an mp4, with other keys. pictures: the file that the video track comes from,
    `source` by default. Raises OutputError, EngineError, ResourceError."""
    command = ["-v", "error", "-nostdin", "-y", *ffmpeg_input(source)]
    command += [*ffmpeg_input(pictures), "-map", "1:v", "-map", "0:a?"] if pictures else ["-map", "0"]
    command += ["-c", "copy", "-map_metadata", "0", *key_arguments(keys), "-f", "mp4", f"file:{target}"]
    quiet = subprocess.DEVNULL
    process = start(command, MEMORY, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE)
    try:
        said = process.communicate()[1]
    finally:
        end(process)
    if process.returncode:
        lines = ffmpeg_remarks(said)
        blame_host(f"output {source}", process.returncode, lines)
        raise OutputError(f"output {source}: its tracks cannot be copied ({lines[0] if lines else 'no reason given'})")
