"""Labels into a video that is there already: written beside it, looked at, then put in its place."""

import contextlib
import os
import subprocess
import uuid
from pathlib import Path

from sonic_ms.errors import OutputError
from sonic_ms.labels import aigc, mp4
from sonic_ms.labels.save import sealer
from sonic_ms.media.ffmpeg import MEMORY, blame_host, end, ffmpeg_input, ffmpeg_remarks, start
from sonic_ms.media.video import key_arguments


def write_labels(path, operator):
    """Label the mp4 `path` in place; list of notes. Pictures and sound are copied as they are.

    Raises InputMissingError, VideoError (no mp4, cut short), OutputError, UsageError; the file is then as it was.
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
    with beside(path) as temporary:
        copy(path, temporary, {aigc.KEY: label.text()})
        sealer(path, label)(temporary)
    return notes


@contextlib.contextmanager
def beside(path):
    """Name of a hidden file beside `path` that takes its place when all goes well, and is removed when not."""
    temporary = path.absolute().with_name(f".{path.stem}.{os.getpid()}.partial.mp4")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"output {path}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def copy(source, target, keys):
    """Copy the tracks and the metadata of an mp4, with other keys. Raises OutputError, EngineError, ResourceError."""
    command = ["-v", "error", "-nostdin", "-y", *ffmpeg_input(source), "-map", "0", "-c", "copy", "-map_metadata", "0"]
    command += [*key_arguments(keys), "-f", "mp4", f"file:{target}"]
    quiet = subprocess.DEVNULL
    process = start(command, MEMORY, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE)
    try:
        said = process.communicate()[1]
    finally:
        end(process)
    if process.returncode:
        lines = ffmpeg_remarks(said)
        blame_host(f"output {target}", process.returncode, lines)
        raise OutputError(f"output {source}: its tracks cannot be copied ({lines[0] if lines else 'no reason given'})")
