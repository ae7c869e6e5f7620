"""Which videos, and which parts of them: folders, files and lists.

A list is a text file with a video a line, relative to the list, and after it the spans to use, if not all of it:
`Radio11.mp4 00:30-01:00 01:30-02:30` as in HDTF's *_annotion_time.txt, or `Radio11.mp4 30 60 90 150`; seconds or
minutes:seconds. Lines that begin with # do not count. VFHQ publishes a text file a clip instead; it is known by its
name, `Clip+VIDEO+P0+C1+F1537-1825.txt`, which holds the frames; its line `FPS 24.0` makes them seconds. The video,
VIDEO.mp4 or another ending, is expected beside it. Its crop is not used: a face is looked for as in any video.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import InputMissingError, UsageError

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"}
LISTS = {".txt", ".list"}
TIME = r"(?:\d+:)?\d+(?:\.\d+)?"
VFHQ_CLIP = re.compile(r"Clip\+(.+)\+P\d+\+C\d+\+F(\d+)-(\d+)")


@dataclass(frozen=True)
class Source:
    """A video file; spans: ((start, end) in seconds, ...), empty for all of it."""

    path: Path
    spans: tuple = ()


def find_sources(places):
    """Sources in folders (searched through, in the order of names), lists and files, each video once: with the spans of
    all its mentions, or whole if one of them names none.

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
            sources = [read_clip(place)] if VFHQ_CLIP.fullmatch(place.stem) else read_list(place)
        else:
            sources = [Source(place)]
        for source in sources:
            key = source.path.resolve()
            found[key] = _merged(found[key], source) if key in found else source
    return list(found.values())


def _merged(one, other):
    whole = not one.spans or not other.spans
    return Source(one.path, () if whole else tuple(sorted({*one.spans, *other.spans})))


def read_list(path):
    """Sources of a list file. What a line names may be missing: the build notes that and goes on."""
    sources = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, times = re.fullmatch(rf"(.*?)((?:\s+{TIME}(?:-{TIME})?)*)", line).groups()
        times = [_seconds(text) for text in times.replace("-", " ").split()]
        spans = tuple(zip(times[::2], times[1::2]))
        if len(times) % 2 or any(end <= start for start, end in spans):
            raise UsageError(f"{path}, line {number}: {line!r}; expected a video and pairs of times, start before end")
        sources.append(Source(path.parent / name, spans))
    if not sources:
        raise UsageError(f"list {path} names no video; expected one a line")
    return sources


def read_clip(path):
    """Source of one of VFHQ's text files."""
    video, first, last = VFHQ_CLIP.fullmatch(path.stem).groups()
    rates = re.findall(r"^FPS\D*(\d+(?:\.\d+)?)\s*$", path.read_text(encoding="utf-8"), re.MULTILINE)
    if len(rates) != 1 or not float(rates[0]) > 0 or int(last) <= int(first):
        raise UsageError(
            f"{path} is no clip of VFHQ; expected frames F<first>-<last> in its name and a line `FPS 25.0`"
        )
    beside = [path.with_name(video + ending) for ending in sorted(VIDEOS)]
    place = next((one for one in beside if one.is_file()), path.with_name(video + ".mp4"))
    return Source(place, ((int(first) / float(rates[0]), int(last) / float(rates[0])),))


def _seconds(text):
    minutes, _, seconds = text.rpartition(":")
    return 60 * float(minutes or 0) + float(seconds)
