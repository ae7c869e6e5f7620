"""Measured mouths: one file a clip, what the lips did beside what was heard. NumPy only.

NAME.npz: `audio` int16 mono 16 kHz · `opening` (inner lips), `width` (outer corners), `inner_width` and `jaw` (drop of
the chin) float32 (n,), in face heights · `offset` frames: sound frame i belongs to picture frame i + offset ·
`fps` 25 · `speaker` · `lang`. Where no face was seen the measures are NaN.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonic_ms.errors import InputMissingError, OutputError, UsageError, printable
from sonic_ms.files.reading import open_binary
from sonic_ms.files.temporary import Temporary
from sonic_ms.media.audio import FPS, SAMPLE_RATE, frame_count

MEASURES = ("opening", "width", "inner_width", "jaw")
FIELDS = ("audio", "opening", "width", "jaw", "offset", "fps", "speaker", "lang")  # a file must have
MAX_BYTES = 64 << 20  # unpacked; a clip of five minutes has 10 MB
MAX_OFFSET = 50  # frames that are believed


@dataclass(frozen=True)
class MouthClip:
    """samples: float32 (n_samples,) at 16 kHz; measures: {name of MEASURES: float32 (n,)}; see the module's header."""

    name: str
    samples: np.ndarray
    measures: dict
    offset: int
    speaker: str
    lang: str

    def heard(self, *names):
        """Measures as they belong to the sound, (frame_count, len(names)); NaN where there is no picture."""
        rows = np.full((frame_count(len(self.samples)), len(names)), np.nan)
        values = np.stack([self.measures[name] for name in names], 1)
        first = max(0, -self.offset)
        last = min(len(rows), len(values) - self.offset)
        if last > first:
            rows[first:last] = values[first + self.offset : last + self.offset]
        return rows


def save_clip(clip, folder):
    """Write a MouthClip as folder/NAME.npz, whole or not at all; returns the path. Raises OutputError."""
    path = Path(folder) / f"{clip.name}.npz"
    audio = np.round(np.clip(clip.samples, -1, 1) * 32767).astype(np.int16)
    measures = {name: np.asarray(values, np.float32) for name, values in clip.measures.items()}
    try:
        with Temporary(path.parent) as temporary:
            with open(temporary, "wb") as file:
                np.savez_compressed(
                    file, audio=audio, offset=clip.offset, fps=FPS, speaker=clip.speaker, lang=clip.lang, **measures
                )
            temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return path


def load_clip(path):
    """MouthClip of a file. Raises InputMissingError, UsageError."""
    path = Path(path)
    with open_binary(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(one.file_size for one in archive.infolist())
            if size > MAX_BYTES:
                raise ValueError(f"{size} bytes unpacked, expected at most {MAX_BYTES}")
            file.seek(0)
            with np.load(file) as arrays:
                fields = {name: arrays[name] for name in arrays.files}
        except Exception as error:  # zipfile, zlib and NumPy have a dozen kinds for what is damaged
            raise UsageError(f"{path} is not an npz of a measured mouth ({printable(str(error))})") from error
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)}; expected what `sonic-ms data lips` writes")
    audio = fields["audio"]
    try:
        measures = {name: fields[name].astype(np.float32) for name in MEASURES if name in fields}
        offset, fps = int(fields["offset"]), int(fields["fps"])
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{path} is not an npz of a measured mouth ({printable(str(error))})") from error
    length = len(np.atleast_1d(measures["opening"]))
    good = audio.ndim == 1 and audio.dtype == np.int16 and len(audio) >= SAMPLE_RATE // 4
    good = good and all(values.shape == (length,) for values in measures.values())
    if not good or fps != FPS or abs(offset) > MAX_OFFSET:
        raise UsageError(
            f"{path}: audio {audio.dtype} {audio.shape}, {length} frames at {fps} a second, offset {offset}; "
            f"expected int16 samples at 16 kHz, measures of one length at {FPS} a second, offsets to {MAX_OFFSET}"
        )
    samples = audio.astype(np.float32) / 32768
    return MouthClip(path.stem, samples, measures, offset, str(fields["speaker"]), str(fields["lang"]))


def load_clips(folder):
    """All MouthClips of a folder, in the order of names. Raises InputMissingError, UsageError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputMissingError(f"folder {folder}: no such folder; check the path")
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise UsageError(f"folder {folder} holds no measured mouths (.npz); make some with `sonic-ms data lips`")
    return [load_clip(path) for path in paths]
