"""ffmpeg, the binary that imageio-ffmpeg brings: how the project names its inputs, and what it says of a file."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Containers that only point at other files: a stranger's upload must not make us read those.
PLAYLISTS = {"hls", "concat", "dash", "imf", "sdp", "webm_dash_manifest"}


def ffmpeg_exe():
    """Path of the ffmpeg binary that imageio-ffmpeg brings."""
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg_input(path):
    """Arguments that name a local file: nothing in the name or in the file can make ffmpeg open anything remote."""
    return ["-protocol_whitelist", "file", "-i", f"file:{Path(path).absolute()}"]


def ffmpeg_remarks(stderr):
    """Lines of ffmpeg's error output (bytes), without the "[mp3 @ 0x55d0...] " in front of them."""
    return re.sub(r"\[[^]]* @ [^]]*\] ", "", stderr.decode("utf-8", "replace")).strip().splitlines()


@dataclass(frozen=True)
class MediaHeader:
    """What ffmpeg says about a file without decoding it."""

    format: str
    seconds: float | None  # None: the header does not say
    audio: str | None  # description of the first audio stream, None without one
    video: str | None
    sample_rate: int | None  # Hz


def read_header(path):
    """MediaHeader of a media file, or None when ffmpeg does not understand it. No sample is decoded."""
    command = [ffmpeg_exe(), "-hide_banner", "-nostdin", *ffmpeg_input(path)]
    text = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).stderr.decode("utf-8", "replace")
    # After this line comes only what the container says; before it, ffmpeg's own remarks.
    found = re.search(r"^Input #0, (.+), from ", text, re.M)
    if not found:
        return None
    text = text[found.start() :]
    seconds = None
    if duration := re.search(r"^ +Duration: (\d+):(\d+):(\d+(?:\.\d+)?)", text, re.M):
        hours, minutes, rest = duration.groups()
        seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    streams = dict(reversed(re.findall(r"^ +Stream #0:[^\n]*?: (Audio|Video): (.*)$", text, re.M)))  # first wins
    rate = re.search(r"(\d+) Hz", streams.get("Audio", ""))
    return MediaHeader(
        found.group(1), seconds, streams.get("Audio"), streams.get("Video"), int(rate.group(1)) if rate else None
    )
