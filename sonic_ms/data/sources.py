"""Which videos, and which parts of them: folders, files and lists.

A list is a text file with a video a line, relative to the list, and after it the spans to use, if not all of it:
`RD_Radio1_000.mp4 0:10 0:58 1:20 2:05`; seconds or minutes:seconds, in pairs. Lines that begin with # do not count.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import InputMissingError, UsageError

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"}
LISTS = {".txt", ".list"}
TIME = r"(?:\d+:)?\d+(?:\.\d+)?"


@dataclass(frozen=True)
class Source:
    """A video file; spans: ((start, end) in seconds, ...), empty for all of it."""

    path: Path
    spans: tuple = ()


def find_sources(places):
    """Sources in folders (searched through, in the order of names), lists and files, each video once.

    Raises InputMissingError for what is not there, UsageError for what holds no video.
    """
    found = {}
    for place in map(Path, places):
        if place.is_dir():
            paths = sorted(path for path in place.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
            sources = [Source(path) for path in paths]
            if not sources:
                raise UsageError(f"folder {place} holds no video ({', '.join(sorted(VIDEOS))}); check the path")
        elif not place.is_file():
            raise InputMissingError(f"{place}: no such file or folder; check the path")
        elif place.suffix.lower() in LISTS:
            sources = read_list(place)
        else:
            sources = [Source(place)]
        for source in sources:
            found.setdefault(source.path.resolve(), source)
    return list(found.values())


def read_list(path):
    """Sources of a list file. What a line names may be missing: the build notes that and goes on."""
    sources = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, times = re.fullmatch(rf"(.*?)((?:\s+{TIME})*)", line).groups()
        times = [_seconds(text) for text in times.split()]
        spans = tuple(zip(times[::2], times[1::2]))
        if len(times) % 2 or any(end <= start for start, end in spans):
            raise UsageError(f"{path}, line {number}: {line!r}; expected a video and pairs of times, start before end")
        sources.append(Source(path.parent / name, spans))
    if not sources:
        raise UsageError(f"list {path} names no video; expected one a line")
    return sources


def _seconds(text):
    minutes, _, seconds = text.rpartition(":")
    return 60 * float(minutes or 0) + float(seconds)
