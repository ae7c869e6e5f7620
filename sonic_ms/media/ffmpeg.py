"""ffmpeg, the binary that imageio-ffmpeg brings: the only module that starts it.

Whoever reads a file goes through `Decoder` or `read_header`, so that every file meets the same limits: the containers
in FORMATS (none of which names other files), the protocol `file`, MEMORY of address space, and STALL seconds without
a byte. What is the host's fault (ffmpeg missing, broken, killed, out of memory) is told apart from what is the file's.
"""

import contextlib
import errno
import os
import re
import resource
import select
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonic_ms.errors import EngineError, ResourceError

# Containers that hold their own data. Playlists (hls, concat, dash, imf, sdp...), scripts (avisynth), devices, pictures
# (image2 reads "a%03d.png" as a pattern) and tracker music are left out: a stranger's upload must not make us read
# another file, whatever it is named.
FORMATS = (
    "aac,ac3,ac4,aiff,amr,amrnb,amrwb,ape,asf,ast,au,avi,caf,dsf,dts,dtshd,dv,eac3,flac,flv,g722,gsm,gxf,"
    "h264,hevc,iff,ircam,ivf,loas,m4v,matroska,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mpegvideo,mlp,mxf,nistsphere,nut,"
    "nsv,obu,ogg,oma,rm,sbc,sox,tak,truehd,tta,vc1,voc,w64,wav,webm,wsd,wtv,wv,xwma,yuv4mpegpipe"
)
PROTOCOLS = "file"
MEMORY = 3 << 30  # bytes of address space of a decoder with THREADS threads; video of 7680x4320 needs 2 GB
THREADS = 4  # of a video decoder: each takes address space, and machines with 200 cores would start as many
STALL = 60.0  # seconds without a byte after which a decoder counts as stuck
MAX_ERROR_RATE = 0.1  # share of packets that may fail to decode
LARGE_PACKET = 2048  # bytes; no packet of the formats without an index (mp3, aac) is larger
REMEMBERED = 1 << 16  # bytes kept of what ffmpeg says


def ffmpeg_exe():
    """Path of the ffmpeg binary that imageio-ffmpeg brings. Raises EngineError when there is none."""
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise EngineError(
            "ffmpeg: not found; install imageio-ffmpeg again, or set IMAGEIO_FFMPEG_EXE to the path of one"
        ) from error


def start(arguments, memory=None, **streams):
    """Popen of ffmpeg with `arguments`; `memory`: limit of its address space in bytes; `streams`: as for Popen.

    It gets a session of its own: Ctrl-C reaches Python only, which then decides what happens to ffmpeg.
    Raises EngineError or ResourceError when it cannot be started.
    """
    exe = ffmpeg_exe()
    try:
        process = subprocess.Popen([exe, "-hide_banner", *arguments], start_new_session=True, **streams)
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE):
            raise ResourceError(
                f"ffmpeg {exe}: cannot be started ({error.strerror}); end other programs or raise the limit"
            ) from error
        raise EngineError(
            f"ffmpeg {exe}: cannot be started ({error.strerror}); install imageio-ffmpeg again, or set "
            f"IMAGEIO_FFMPEG_EXE to the path of one that runs"
        ) from error
    if memory is not None:
        # From outside and after the start: a preexec_fn could deadlock a process with threads.
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            hard = resource.prlimit(process.pid, resource.RLIMIT_AS)[1]
            limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
            resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, hard))
    return process


def ffmpeg_input(path):
    """Arguments that name a local file: nothing in the name or in the file can make ffmpeg open anything else."""
    return ["-protocol_whitelist", PROTOCOLS, "-format_whitelist", FORMATS, "-i", f"file:{Path(path).absolute()}"]


def ffmpeg_remarks(stderr):
    """Lines of ffmpeg's error output (bytes), without the "[mp3 @ 0x55d0...] " in front of them."""
    return re.sub(r"\[[^]]* @ [^]]*\] ", "", stderr.decode("utf-8", "replace")).strip().splitlines()


def end(process):
    """Kill a process, close its pipes, and wait for it."""
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def blame_host(name, code, remarks):
    """Raise EngineError or ResourceError if ffmpeg failed on `name` for a reason that is not the file's.

    code: its exit code, remarks: lines it said.
    """
    if code == -signal.SIGKILL or any("Cannot allocate memory" in line for line in remarks):
        raise ResourceError(
            f"{name}: ffmpeg ran out of memory (limit {MEMORY >> 30} GB), or was killed; end other programs, or "
            f"convert the file to a smaller picture or a plainer format"
        )
    if code and (reason := _broken()):
        raise EngineError(
            f"ffmpeg {ffmpeg_exe()}: does not work on this machine ({reason}); install imageio-ffmpeg again, or set "
            f"IMAGEIO_FFMPEG_EXE to the path of one that runs"
        )


def _broken():
    """Why ffmpeg cannot even convert 0.1 s of silence, or None."""
    pipe = subprocess.PIPE
    command = ["-v", "error", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "pipe:0", "-f", "f32le", "pipe:1"]
    process = start(command, MEMORY, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        out, err = process.communicate(bytes(3200), timeout=STALL)
    except subprocess.TimeoutExpired:
        return f"it hangs for {STALL:.0f} s"
    finally:
        end(process)
    if process.returncode == 0 and len(out) == 6400:
        return None
    return (ffmpeg_remarks(err) or [f"it ends with code {process.returncode}"])[0]


class Decoder:
    """Context manager: ffmpeg reads the file `path` and writes to a pipe. It is killed at the end of the block.

    Args:
        path: a local file.
        options: output options of ffmpeg, e.g. ["-map", "0:1", "-f", "f32le"].
        name: of the file in messages, e.g. "audio a.wav".
        before: options in front of the input.
    Raises:
        EngineError, ResourceError: from any method; ffmpeg cannot be started, is stuck, or needs too much memory.
    """

    def __init__(self, path, options, name, before=()):
        self.name = name
        command = ["-v", "error", "-nostdin", *before, *ffmpeg_input(path), *options, "pipe:1"]
        pipe = subprocess.PIPE
        self._process = start(command, MEMORY, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._open = {self._out, self._err}
        self._said = bytearray()
        self._left = b""  # read from the pipe, not yet taken

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self._process)

    def _ready(self, wanted):
        """Wait until the pipe `wanted` has something or has ended; what ffmpeg says meanwhile is remembered."""
        while wanted in self._open:
            poll = select.poll()  # not select: it fails on descriptors above 1023
            for pipe in self._open:
                poll.register(pipe, select.POLLIN)
            ready = {pipe for pipe, _ in poll.poll(STALL * 1000)}
            if not ready:
                raise ResourceError(
                    f"{self.name}: ffmpeg gave nothing for {STALL:.0f} s; convert the file to a plainer format"
                )
            if self._err in ready:
                said = os.read(self._err, REMEMBERED)
                if not said:
                    self._open.discard(self._err)
                self._said += said[: REMEMBERED - len(self._said)]
            if wanted in ready:
                return

    def read(self, size):
        """At most `size` bytes as they come; b"" at the end."""
        if self._left:
            data, self._left = self._left[:size], self._left[size:]
            return data
        self._ready(self._out)
        data = os.read(self._out, size)
        if not data:
            self._open.discard(self._out)
        return data

    def read_all(self, size):
        """Exactly `size` bytes, fewer only at the end: a writable bytearray."""
        data = bytearray(size)
        count = 0
        while count < size and (piece := self.read(min(size - count, 1 << 20))):
            data[count : count + len(piece)] = piece
            count += len(piece)
        del data[count:]
        return data

    def read_line(self):
        """The next line with its newline; b"" at the end."""
        line = b""
        while not line.endswith(b"\n"):
            piece = self.read(1 << 16)
            if not piece:
                break
            head, newline, rest = piece.partition(b"\n")
            line += head + newline
            self._left = rest + self._left
        return line

    def finish(self):
        """(exit code, lines ffmpeg said), to be called when everything has been read."""
        while self._err in self._open:
            self._ready(self._err)
        return self._process.wait(), ffmpeg_remarks(bytes(self._said))


@dataclass(frozen=True)
class Track:
    """One audio stream of a file."""

    index: int  # among all streams of the file, as in -map 0:index
    default: bool  # whether players take it
    sample_rate: int | None  # Hz
    channels: int


@dataclass(frozen=True)
class MediaHeader:
    """What ffmpeg says about a file without decoding it. Lengths come from time stamps or guesses, not from samples."""

    format: str
    seconds: float | None  # None: the header does not say
    audio: str | None  # description of the first audio stream, None without one
    video: str | None  # of the first video stream that is not a cover
    sample_rate: int | None  # Hz, of the first audio stream
    estimated: bool = False  # seconds are guessed from the bit rate: nothing follows from them
    start: float = 0.0  # seconds, time stamp of the first packet
    tracks: tuple = (Track(0, True, None, 1),)
    video_index: int = 0  # among all streams


def read_header(path):
    """MediaHeader of a media file, or None when ffmpeg does not understand it, or it is none of FORMATS."""
    process = start(
        ["-nostdin", *ffmpeg_input(path)], MEMORY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        said = process.communicate(timeout=STALL)[1]
    except subprocess.TimeoutExpired:
        raise ResourceError(f"file {path}: ffmpeg does not get through its header in {STALL:.0f} s") from None
    finally:
        end(process)
    text = said.decode("utf-8", "replace")
    # After this line comes only what the container says; before it, ffmpeg's own remarks.
    found = re.search(r"^Input #0, (.+), from ", text, re.M)
    if not found:
        blame_host(f"file {path}", process.returncode, ffmpeg_remarks(said))
        return None
    estimated = "Estimating duration from bitrate" in text
    text = text[found.start() :]
    seconds, begin = None, 0.0
    if duration := re.search(r"^ +Duration: (\d+):(\d+):(\d+(?:\.\d+)?)(?:, start: (-?[\d.]+))?", text, re.M):
        hours, minutes, rest = duration.groups()[:3]
        seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
        begin = float(duration.group(4) or 0)
    streams = re.findall(r"^ +Stream #0:(\d+)[^\n]*?: (Audio|Video): (.*)$", text, re.M)
    sounds = [(int(index), words) for index, kind, words in streams if kind == "Audio"]
    pictures = [(int(i), words) for i, kind, words in streams if kind == "Video" and "(attached pic)" not in words]
    tracks = tuple(Track(i, "(default)" in words, _rate(words), _channels(words)) for i, words in sounds)
    return MediaHeader(
        found.group(1), seconds, sounds[0][1] if sounds else None, pictures[0][1] if pictures else None,
        tracks[0].sample_rate if tracks else None, estimated, begin, tracks, pictures[0][0] if pictures else 0,
    )  # fmt: skip


def _rate(words):
    found = re.search(r"(\d+) Hz", words)
    return int(found.group(1)) if found and int(found.group(1)) else None


def _channels(words):
    """Number of channels from ffmpeg's description of a stream: "44100 Hz, 5.1(side), fltp"; 2 if it is a name that
    is not known here."""
    found = re.search(r"\d+ Hz, (?:(\d+) channels|([\d.]+)|(\w+))", words)
    count, digits, layout = found.groups() if found else (None, None, None)
    if count:
        return int(count)
    if digits:
        return sum(int(part) for part in digits.split(".") if part)
    return {"mono": 1, "quad": 4, "hexagonal": 6, "octagonal": 8, "cube": 8, "hexadecagonal": 16}.get(layout, 2)


def survey(path, index, name):
    """(last time stamp in seconds, bytes of sound, bytes of garbage) in the packets of stream `index`; none is decoded.

    In a file without an index, garbage ends up in packets far larger than the rest.
    """
    sizes, last, tick = [], 0.0, 0.0
    options = ["-map", f"0:{index}", "-c", "copy", "-f", "framecrc"]
    with Decoder(path, options, name, ["-copyts"]) as packets:
        while line := packets.read_line():
            if base := re.match(rb"#tb 0: (\d+)/(\d+)", line):
                tick = int(base.group(1)) / int(base.group(2))
            elif row := re.match(rb"0, +-?\d+, +(-?\d+), +(\d+), +(\d+),", line):
                last = max(last, (int(row.group(1)) + int(row.group(2))) * tick)
                sizes.append(int(row.group(3)))
    if not sizes:
        return last, 0, 1
    sizes = np.array(sizes, np.int64)
    garbage = sizes > max(3 * np.percentile(sizes, 90), LARGE_PACKET)
    return last, int(sizes[~garbage].sum()), int(sizes[garbage].sum())
