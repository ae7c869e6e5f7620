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
from sonic_ms.errors import InputMissingError, OutputError, UsageError, WeightsError, short
from sonic_ms.files.digest import sha256_of
from sonic_ms.files.reading import parse_json, read_small
from sonic_ms.files.temporary import Temporary

NAME = "index.jsonl"
VERSION = 1
MAX_BYTES, MAX_LINE_BYTES = 64 << 20, 4 << 20  # a video of three hours takes less than 1 MB
MAX_SECONDS = 1e7


class Index:
    """The lines of an index: header and entries, in the order of writing."""

    def __init__(self, path, header, entries):
        self.path, self.header, self.entries = Path(path), header, entries

    @classmethod
    def open(cls, folder):
        """Read the index of a folder. A last line that was cut off is left out: its video was not finished."""
        path = Path(folder) / NAME
        try:
            data = read_small(path, "an index of training data", MAX_BYTES)
        except InputMissingError as error:
            raise InputMissingError(f"{folder} is no folder of `sonic-ms data build`: {error}") from error
        lines, rows = data.removesuffix(b"\n").split(b"\n"), []
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise WeightsError(f"{where} is damaged (more than {MAX_LINE_BYTES} bytes)")
            try:
                rows.append(parse_json(line, f"{where} is damaged"))
            except WeightsError:
                if number < len(lines) or not rows:
                    raise
                break
            problem = _problem(rows[-1]) if number > 1 else _problem_of_header(rows[0])
            if problem:
                raise WeightsError(f"{where}: {problem}")
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
                what = "; ".join(
                    f"{name} is {short(now[name])}, it began with {short(was.get(name))}" for name in changed
                )
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


def _problem_of_header(row):
    """What is wrong with the first line, or None."""
    if not isinstance(row, dict) or row.get("version") != VERSION:
        return f"is not the beginning of an index of version {VERSION}"
    if not isinstance(row.get("config"), dict) or not isinstance(row.get("model"), str):
        return "lacks config or model"
    return None


def _problem(entry):
    """What is wrong with the line of a video, or None."""
    if not isinstance(entry, dict):
        return f"is {short(entry)}, expected the object of a video"
    needed = ALWAYS + (WITH_A_SHARD if "shard" in entry else ())
    for name, (check, expected) in CHECKS.items():
        if (name in entry or name in needed) and not check(entry.get(name)):
            return f"{name} is {short(entry.get(name))}, expected {expected}"
    return None


def _is_text(value):
    return isinstance(value, str) and value.isprintable()


def _is_time(value):
    return type(value) in (int, float) and 0 <= value <= MAX_SECONDS


def _is_list(check):
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_span(value):
    return _is_list(_is_time)(value) and len(value) == 2


def _is_clip(value):
    return isinstance(value, dict) and _is_time(value.get("start")) and _is_time(value.get("end"))


def _is_rejected(value):
    return isinstance(value, dict) and _is_text(value.get("reason")) and value["reason"].strip() != ""


def _is_file_name(value):
    return _is_text(value) and value not in ("", "..") and Path(value).name == value


def _is_pair(kind):
    return lambda value: isinstance(value, list) and [type(one) for one in value] == [kind] * len(SUFFIXES)


ALWAYS, WITH_A_SHARD = ("video", "sha256", "spans"), ("clips", "bytes", "shard_sha256")
CHECKS = {
    "video": (_is_text, "a path"),
    "sha256": (_is_text, "a sha256"),
    "spans": (_is_list(_is_span), "a list of [start, end]"),
    "error": (_is_text, "a text"),
    "clips": (_is_list(_is_clip), "a list of clips with start and end"),
    "rejected": (_is_list(_is_rejected), "a list of parts with a reason"),
    "shard": (_is_file_name, "the name of a file in this folder"),
    "bytes": (_is_pair(int), "two lengths"),
    "shard_sha256": (_is_pair(str), "two sha256"),
}
