"""index.jsonl of a built folder: what was made of every video. The first line says how; then one line a video.

    {"config": {...}, "model": sha256 or "", "version": 1}
    {"video", "sha256", "seconds", "shard", "bytes": [2], "shard_sha256": [2], "clips": [...], "rejected": [...]}
    {"video", "sha256", "error"}

A line is written once the video's shard is complete, so that a build that was killed goes on with the next video.
"""

import json
import os
from pathlib import Path

from sonic_ms.data.shards import SUFFIXES
from sonic_ms.errors import InputMissingError, OutputError, UsageError, WeightsError
from sonic_ms.files.digest import sha256_of
from sonic_ms.files.temporary import Temporary

NAME = "index.jsonl"
VERSION = 1


class Index:
    """The lines of an index: header and entries, in the order of writing."""

    def __init__(self, path, header, entries):
        self.path, self.header, self.entries = Path(path), header, entries

    @classmethod
    def open(cls, folder):
        """Read the index of a folder. A last line that was cut off is left out: its video was not finished."""
        path = Path(folder) / NAME
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputMissingError(f"{folder} is no folder of `sonic-ms data build`: no {NAME} in it") from error
        rows = []
        for number, line in enumerate(lines):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                if number + 1 < len(lines) or not rows:
                    raise WeightsError(f"{path}, line {number + 1} is damaged ({error})") from error
        if not rows or rows[0].get("version") != VERSION:
            raise WeightsError(f"{path} is not an index of version {VERSION}")
        return cls(path, rows[0], rows[1:])

    @classmethod
    def begin(cls, folder, config, model):
        """The index of a folder to build in: a new one, or the one that is there, made with the same settings."""
        path = Path(folder) / NAME
        header = json.loads(json.dumps({"config": config, "model": model, "version": VERSION}))
        if not path.is_file():
            index = cls(path, header, [])
        else:
            index = cls.open(folder)
            was = {**index.header["config"], "model": index.header["model"]}
            now = {**header["config"], "model": header["model"]}
            changed = [name for name in now if now[name] != was.get(name)]
            if changed:
                what = "; ".join(f"{name} is {now[name]!r}, it began with {was.get(name)!r}" for name in changed)
                raise UsageError(f"{folder} was built with other settings: {what}; choose another --out")
        index.rewrite()
        return index

    def rewrite(self):
        """Write the whole file anew, atomically."""
        text = "".join(json.dumps(row) + "\n" for row in (self.header, *self.entries))
        try:
            with Temporary(self.path.parent) as temporary:
                temporary.write_text(text, encoding="utf-8")
                os.replace(temporary, self.path)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error

    def add(self, entry):
        """Append one video, to the disk before this returns."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}; what was finished is kept") from error
        self.entries.append(entry)

    def shards(self):
        """Entries that have a shard."""
        return [entry for entry in self.entries if entry.get("shard")]

    def check_shard(self, entry, contents=False):
        """WeightsError when the files of an entry's shard are missing or of another length (or content)."""
        for suffix, size, digest in zip(SUFFIXES, entry["bytes"], entry["shard_sha256"]):
            path = self.path.parent / (entry["shard"] + suffix)
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                state = "is missing" if found is None else f"has {found} bytes"
                raise WeightsError(f"shard {path} {state}, expected {size} bytes; build again with the same --out")
            if contents and sha256_of(path) != digest:
                raise WeightsError(f"shard {path} is damaged, its sha256 differs; build again with the same --out")
