"""Video out and in: frames are streamed through ffmpeg, never held as a whole. H.264 yuv420p + AAC in mp4.

Only the ffmpeg binary of imageio-ffmpeg is used; there is no ffprobe, so `probe` decodes and counts.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sonic_ms.errors import AudioError, OutputError, SonicError, VideoError, short
from sonic_ms.files.temporary import Temporary, signals_held
from sonic_ms.files.threads import threads
from sonic_ms.media import recording
from sonic_ms.media.audio import FPS, MAX_SECONDS, SAMPLE_RATE, speech_track
from sonic_ms.media.ffmpeg import THREADS, Decoder, blame_host, end, ffmpeg_remarks, read_header, start
from sonic_ms.media.kinds import require_file, what_is

CRF = 14  # x264 quality: grey SSIM of photos stays above 0.99, sharpness within 3 %
PRESET = "veryfast"
MAX_AUDIO_RATE = 48000  # Hz
MAX_PIXELS = 64_000_000  # of a frame that is read
LOST = 0.1  # share of the frames that may be missing before a video counts as corrupt
DECODING = ["-threads", str(THREADS), "-max_pixels", str(MAX_PIXELS)]


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Raise OutputError now for everything that would otherwise fail after the work is done; Path of the output.

    Checked: suffix .mp4, the folder exists and a file can be created in it, `path` does not exist unless `overwrite`.
    """
    path = Path(path)
    folder = path.absolute().parent
    if path.suffix.lower() != ".mp4":
        raise OutputError(f"output {path}: suffix {path.suffix!r}, expected .mp4; rename the output")
    if not os.path.isdir(folder):
        raise OutputError(f"output {path}: folder {folder} does not exist; create it or choose another")
    check_name(path, "output")
    if path.is_dir():
        raise OutputError(f"output {path}: is a folder, expected a file name; add one")
    if path.exists() and not overwrite:
        raise OutputError(f"output {path}: exists already; choose another name or pass --overwrite")
    try:
        # The only test that also holds for root, network mounts and read-only file systems.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputError(
            f"output {path}: cannot write into {folder} ({error.strerror}); choose a folder you may write to"
        ) from error
    return path


def check_name(path: str | os.PathLike[str], what: str) -> None:
    """Raise OutputError, begun with `what`, for a name that is longer than its folder takes."""
    length, limit = len(os.fsencode(Path(path).name)), os.pathconf(Path(path).absolute().parent, "PC_NAME_MAX")
    if length > limit:
        raise OutputError(
            f"{what} {short(str(path))}: its name has {length} bytes, expected at most {limit}; shorten it"
        )


def key_arguments(keys: dict[str, str] | None) -> list[str]:
    """Arguments of ffmpeg for an mp4 whose index comes first and whose moov.udta.meta holds {name: text}."""
    # without the flag ffmpeg leaves unknown keys out, and says nothing
    flags = "+faststart+use_metadata_tags" if keys else "+faststart"
    said = [word for name, text in (keys or {}).items() for word in ("-metadata", f"{name}={text}")]
    return ["-movflags", flags, *said]


class VideoWriter:
    """Context manager that streams RGB frames into an mp4; `write` takes (h, w, 3) uint8.

    The file appears under its name only when everything went well: until then it has a hidden temporary name in the
    same folder, which any exception (Ctrl-C too) removes, together with the ffmpeg process.

    Args:
        path: output, .mp4.
        size: (width, height) of the frames; an odd last column or row is cropped.
        audio: path of the original recording (any ffmpeg format; re-encoded to AAC: the samples that `load_audio`
            gives, at the recording's own rate, mono or stereo), float samples at 16 kHz of shape (n,), or None.
        fps: frames a second.
        crf: x264 quality, 0 (lossless) to 51.
        overwrite: replace an existing file.
        audio_duration: use only the first so many seconds of the audio.
        keys: {name: text} that moov.udta.meta of the file will hold.
        seal: called with the path of the finished file before it gets its name: the last look, or a signature.
    Raises:
        OutputError: see `check_output`; also full disk, encoder failed, frame of another size, audio unreadable.
        EngineError, ResourceError: ffmpeg is missing or does not run on this machine, or is out of memory.
    """

    def __init__(
        self, path, size, audio=None, fps=FPS, crf=CRF, overwrite=False, audio_duration=None, keys=None, seal=None
    ):
        self.path = check_output(path, overwrite)
        self.size = (int(size[0]), int(size[1]))
        self.frames = 0
        self._overwrite = overwrite
        self._even = (self.size[0] // 2 * 2, self.size[1] // 2 * 2)
        self._arguments = (audio, fps, crf, audio_duration, keys)
        self._seal = seal
        self._temporary = self._process = self._log = self._sound = None

    def __enter__(self):
        audio, fps, crf, audio_duration, keys = self._arguments
        command = ["-v", "error", "-y", *self._pictures_in(fps), "-i", "pipe:0"]
        passed = ()
        try:
            with signals_held():
                self._temporary = Temporary(self.path.absolute().parent, ".partial.mp4")
            if audio is not None:
                self._sound = self._open_sound(audio, audio_duration)
                passed = (self._sound.read_end,)
                command += [*self._sound.arguments, "-map", "0:v:0", "-map", "1:a:0", "-c:a", "aac", "-b:a", "160k"]
            command += [*self._pictures_out(crf), *key_arguments(keys), "-f", "mp4", str(self._temporary.path)]
            # In memory: there may be no folder for temporary files, or no space in it.
            self._log = os.fdopen(os.memfd_create("ffmpeg"), "w+b")
            # No limit of memory: what the encoder takes follows from the size of our own frames, not from a file.
            with signals_held():  # an encoder that nobody knows of would write the file after it was removed
                self._process = start(
                    command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._log, pass_fds=passed
                )
            if self._sound is not None:
                self._sound.start()
        except BaseException:  # of a signal too, which may come while the thread begins
            self._abort()
            raise
        return self

    def _pictures_in(self, fps):
        """Arguments of ffmpeg for what comes through stdin."""
        return ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*self._even), "-r", str(fps)]

    def _pictures_out(self, crf):
        """Arguments of ffmpeg that make H.264 of it."""
        # RGB -> limited-range BT.709, and tagged as such: untagged files are decoded with BT.601 by some players.
        convert = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int"
        tags = "format=yuv420p,setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
        return ["-vf", f"{convert},{tags}", "-c:v", "libx264", "-preset", PRESET, "-crf", str(crf),
                "-threads", str(threads())]  # fmt: skip

    def _open_sound(self, audio, seconds):
        if isinstance(audio, np.ndarray):
            return _Sound(SAMPLE_RATE, 1, seconds, _array_blocks(audio))
        path = Path(audio)
        try:
            recording.require_recording(path)
            header = read_header(path)
            recording.require_sound(path, header)
        except AudioError as error:
            raise OutputError(f"output {self.path}: encoding failed, {error}") from error
        track, _ = speech_track(path, header, MAX_SECONDS if seconds is None else seconds)
        rate = min(max(track.sample_rate or MAX_AUDIO_RATE, SAMPLE_RATE), MAX_AUDIO_RATE)
        channels = min(track.channels, 2)
        return _Sound(rate, channels, seconds, _file_blocks(path, track, rate, channels))

    def write(self, rgb: np.ndarray) -> None:
        """Append one frame: uint8, shape (height, width, 3)."""
        width, height = self.size
        if rgb.shape != (height, width, 3) or rgb.dtype != np.uint8:
            raise OutputError(
                f"output {self.path}: frame {self.frames} is {rgb.shape} {rgb.dtype}, "
                f"expected {(height, width, 3)} uint8"
            )
        try:
            self._process.stdin.write(np.ascontiguousarray(rgb[: self._even[1], : self._even[0]]).data)
        except OSError as error:  # the encoder has gone: its own words say why
            self._process.wait()
            raise self._failed() from error
        self.frames += 1

    def __exit__(self, kind, error, trace):
        if kind is not None:
            self._abort()
            return
        try:
            self._finish()
        except BaseException:
            self._abort()
            raise
        self._temporary.remove()
        self._log.close()

    def _finish(self):
        if self.frames == 0:
            raise OutputError(f"output {self.path}: no frame was written, expected at least one")
        with contextlib.suppress(BrokenPipeError):  # reported below, through the exit code
            self._process.stdin.close()
        self._process.wait()
        if self._process.returncode or not self._temporary.path.is_file():
            raise self._failed()
        if self._sound is not None and (error := self._sound.close()):
            raise OutputError(f"output {self.path}: encoding failed, the sound is cut short ({error})") from error
        if self._seal is not None:
            self._seal(self._temporary.path)
        if self.path.exists() and not self._overwrite:
            raise OutputError(f"output {self.path}: was created by someone else meanwhile; choose another name")
        os.replace(self._temporary.path, self.path)

    def _failed(self):
        self._log.seek(0)
        lines = ffmpeg_remarks(self._log.read())
        full = next((line for line in lines if "No space left" in line), None)
        if not full:
            blame_host(f"output {self.path}", self._process.returncode, lines)
        reason = full or (lines[-1] if lines else f"ffmpeg ended with code {self._process.returncode}")
        advice = "free some space" if full else "check the folder and the recording"
        return OutputError(f"output {self.path}: encoding failed after {self.frames} frames ({reason}); {advice}")

    def _abort(self):
        """End ffmpeg and remove what it wrote."""
        if self._process is not None:
            end(self._process)
        if self._sound is not None:
            self._sound.close()
        if self._temporary is not None:
            self._temporary.remove()
        if self._log is not None:
            self._log.close()


class _Sound:
    """A thread that feeds the encoder raw samples through a pipe: nothing but their count gives them their time.

    seconds: how many at most, None for all; blocks: iterator of bytes, float32 with `channels` interleaved.
    """

    def __init__(self, rate, channels, seconds, blocks):
        self.read_end, self._write_end = os.pipe()
        self.arguments = ["-f", "f32le", "-ar", str(rate), "-ac", str(channels), "-i", f"pipe:{self.read_end}"]
        self._limit = None if seconds is None else 4 * channels * round(seconds * rate)
        self._blocks = blocks
        self._error = None
        self._thread = threading.Thread(target=self._feed, daemon=True)

    def start(self):
        """Begin, once ffmpeg has its end of the pipe."""
        os.close(self.read_end)
        self.read_end = None
        self._thread.start()

    def _feed(self):
        left = self._limit
        try:
            with contextlib.closing(self._blocks), open(self._write_end, "wb", buffering=0) as pipe:
                for block in self._blocks:
                    part = memoryview(block)[:left]
                    while part:
                        part = part[pipe.write(part) :]
                    if left is not None:
                        left -= min(len(block), left)
                        if not left:
                            break
        except BrokenPipeError:
            pass  # the encoder has gone; its own words say why
        except (SonicError, OSError) as error:
            self._error = error

    def close(self):
        """Wait for the thread; the error that cut the sound short, or None."""
        if self.read_end is not None:  # never started
            os.close(self.read_end)
            os.close(self._write_end)
            self.read_end = None
            self._blocks.close()
        elif self._thread.is_alive():
            self._thread.join()
        return self._error


def _array_blocks(samples):
    """Yield the samples (n,) as bytes, 64 kB at a time."""
    data = memoryview(np.ascontiguousarray(samples, "<f4")).cast("B")
    for begin in range(0, len(data), 1 << 16):
        yield data[begin : begin + (1 << 16)]


def _file_blocks(path, track, rate, channels):
    """Yield the samples of a file's track as bytes."""
    with recording.blocks(path, track, rate, channels, f"audio {path}") as decoder:
        while data := decoder.read(1 << 16):
            yield data
        code, remarks = decoder.finish()
    if code:
        blame_host(f"audio {path}", code, remarks)
        raise AudioError(f"audio {path}: corrupt ({remarks[0] if remarks else f'code {code}'}); export it again")


class Video:
    """A video that is made while it is read: iterating yields `n_frames` RGB frames, uint8 (height, width, 3).

    Args:
        frames: function without arguments that returns a fresh iterator of frames; every iteration calls it again.
        size: (width, height).
        n_frames: how many frames an iteration yields.
        audio: float32 samples at 16 kHz, shape (n,).
        audio_source: path of the recording the samples came from, or None; written in place of them when given.
        fps: frames a second.
        notes: what the user may want to know; grows while the frames are made.
        timings: seconds by stage; the same.
        labels: what the file will say of itself, a labels.save.Labels; None: nothing.
        piece: function (start, stop) that returns a fresh iterator of the frames start to stop - 1 alone, with the work
            of those alone; None when the model's frames hang together.
    """

    def __init__(
        self,
        frames: Callable[[], Iterator[np.ndarray]],
        size: tuple[int, int],
        n_frames: int,
        audio: np.ndarray | None,
        audio_source: str | os.PathLike[str] | None = None,
        fps: float = FPS,
        notes: list[str] | None = None,
        timings: dict[str, float] | None = None,
        labels: Any = None,
        piece: Callable[[int, int], Iterator[np.ndarray]] | None = None,
    ) -> None:
        self.size = size
        self.n_frames = n_frames
        self.audio = audio
        self.audio_source = audio_source
        self.fps = fps
        self.notes = [] if notes is None else notes
        self.timings = {} if timings is None else timings
        self.labels = labels
        self.piece = piece
        self._frames = frames

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._frames())

    def __len__(self) -> int:
        return self.n_frames


def write_video(
    video: Video,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    progress: bool = True,
    mark: Callable[[np.ndarray, float], np.ndarray] | None = None,
    keys: dict[str, str] | None = None,
    seal: Callable[[Path], None] | None = None,
) -> Path:
    """Write a `Video` as mp4 while it is being made; Path of the file. Raises OutputError (see VideoWriter).

    mark: (frame, its time in seconds) -> the frame that is written. keys, seal: see VideoWriter.
    """
    from tqdm import tqdm

    audio = video.audio if video.audio_source is None else video.audio_source
    seconds = None if video.audio is None else len(video.audio) / SAMPLE_RATE
    with VideoWriter(
        path, video.size, audio, video.fps, overwrite=overwrite, audio_duration=seconds, keys=keys, seal=seal
    ) as writer:
        for frame in tqdm(video, total=video.n_frames, unit="frame", desc=writer.path.name, disable=not progress):
            writer.write(frame if mark is None else mark(frame, writer.frames / video.fps))
        if writer.frames != video.n_frames:
            raise OutputError(f"output {path}: {writer.frames} frames were made, expected {video.n_frames}")
    return writer.path


@dataclass(frozen=True)
class VideoInfo:
    """What is in a video file; counts are of decoded frames and samples, not of what the header says."""

    width: int
    height: int
    fps: float
    frames: int
    video_seconds: float  # frames / fps
    audio_seconds: float  # 0 without an audio track
    video_codec: str
    audio_codec: str | None
    pix_fmt: str
    colour: str | None  # as ffmpeg prints it, e.g. "tv, bt709, progressive"


def _require_video(path):
    require_file(path, f"video {path}")
    return require_picture(path, f"video {path}: ")


def require_picture(path, name):
    """MediaHeader of a file with a video track whose frames are small enough; VideoError, begun with `name`."""
    header = read_header(path)
    if header is None or header.video is None:
        known = what_is(path)
        found = f" (it is a {known[0]})" if known and header is None else ""
        raise VideoError(f"{name}corrupt or not a video that ffmpeg reads{found}; expected an mp4")
    size = re.search(r", (\d+)x(\d+)", header.video)
    if size is None:
        raise VideoError(f"{name}its header gives no size of the frames; convert it to mp4")
    check_pixels(name, *map(int, size.groups()))
    return header


def check_pixels(name, width, height):
    """Raise VideoError, begun with `name`, for a frame too large to decode."""
    if not 0 < width * height <= MAX_PIXELS:
        raise VideoError(
            f"{name}frames of {width}x{height}, expected at most {MAX_PIXELS // 10**6} million pixels; scale it down"
        )


def frame_rate(header):
    """Frames a second from a header; 0 if it does not say."""
    found = re.search(r"([\d.]+)(k?) (?:fps|tbr)", header.video)
    return float(found.group(1)) * (1000 if found.group(2) else 1) if found else 0.0


def judge_frames(name, count, expected, code, remarks):
    """Raise VideoError, begun with `name`, if ffmpeg could decode only `count` of about `expected` frames."""
    if code or not count:
        blame_host(name.rstrip(": ") or "video", code, remarks)
    if not count or ((code or remarks) and count < (1 - LOST) * expected):
        reason = f" ({remarks[0]})" if remarks else ""
        raise VideoError(f"{name}corrupt, only {count} of {expected:.0f} frames can be decoded{reason}")


def decode_frames(path, header, filters, rate, name, passthrough=False):
    """Yield the frames of a video's first track, uint8 RGB (height, width, 3), sizes as they come.

    filters: of ffmpeg, in front of the conversion to RGB; rate: frames a second they let through; passthrough: neither
    drop nor repeat a frame because of its time stamp. Raises VideoError, begun with `name`, at the end of a video of
    which LOST or more cannot be decoded, and ResourceError, EngineError.
    """
    convert = [*filters, "scale=flags=bicubic+accurate_rnd+full_chroma_int", "format=rgb24"]
    options = ["-map", f"0:{header.video_index}", "-vf", ",".join(convert)]
    options += ["-fps_mode", "passthrough"] if passthrough else []
    options += ["-c:v", "ppm", "-f", "image2pipe"]  # every frame carries its own size
    count = 0
    with Decoder(path, options, name.rstrip(": ") or "video", DECODING) as decoder:
        while decoder.read_line():  # "P6"
            size = decoder.read_line().split()
            if len(size) != 2:
                break
            width, height = map(int, size)
            check_pixels(name, width, height)
            decoder.read_line()  # "255"
            pixels = decoder.read_all(width * height * 3)
            if len(pixels) < width * height * 3:
                break
            count += 1
            yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        code, remarks = decoder.finish()
    judge_frames(name, count, rate * (header.seconds or 0), code, remarks)


def probe(path):
    """VideoInfo of a video file. Decodes it once for the count of frames and once for the count of samples.

    Raises InputMissingError, VideoError, ResourceError, EngineError.
    """
    header = _require_video(path)
    name = f"video {path}"
    found = re.match(r"(\w+).*?, (\w+)(?:\(([^)]*)\))?.*?, (\d+)x(\d+)", header.video)
    fps = frame_rate(header)
    if found is None or not fps:
        raise VideoError(f"{name}: its header gives no frame rate or no pixel format; convert it to mp4")
    codec, pix_fmt, colour, width, height = found.groups()
    # The null muxer takes frames as they come, so nothing is duplicated or dropped to even out time stamps.
    options = ["-map", f"0:{header.video_index}", "-f", "null", "-progress", "pipe:1"]
    with Decoder(path, options, name, DECODING) as decoder:
        frames = 0
        while line := decoder.read_line():
            if number := re.match(rb"frame=\s*(\d+)", line):
                frames = int(number.group(1))
        code, remarks = decoder.finish()
    judge_frames(f"{name}: ", frames, fps * (header.seconds or 0), code, remarks)
    samples, rate = 0, header.sample_rate or SAMPLE_RATE
    if header.audio:
        with recording.blocks(path, header.tracks[0], rate, 1, name) as decoder:
            while block := decoder.read(1 << 20):
                samples += len(block)
        samples //= 4  # bytes -> float32 samples
    audio_codec = re.match(r"\w+", header.audio).group() if header.audio else None
    return VideoInfo(
        int(width), int(height), fps, frames, frames / fps, samples / rate, codec, audio_codec, pix_fmt, colour
    )


def read_video(path):
    """Yield the frames of a video one by one: uint8 RGB, shape (height, width, 3).

    Raises InputMissingError, VideoError (at the latest at the end), ResourceError, EngineError.
    """
    header = _require_video(path)
    yield from decode_frames(path, header, [], frame_rate(header), f"video {path}: ", passthrough=True)
