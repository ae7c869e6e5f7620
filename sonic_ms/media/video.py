"""Video out and in: frames are streamed through ffmpeg, never held as a whole. H.264 yuv420p + AAC in mp4.

Only the ffmpeg binary of imageio-ffmpeg is used; there is no ffprobe, so `probe` decodes and counts.
"""

import contextlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonic_ms.errors import InputMissingError, OutputError
from sonic_ms.media.audio import FPS, SAMPLE_RATE
from sonic_ms.media.ffmpeg import ffmpeg_exe, ffmpeg_input, ffmpeg_remarks, read_header

CRF = 14  # x264 quality: grey SSIM of photos stays above 0.99, sharpness within 3 %
PRESET = "veryfast"
MAX_AUDIO_RATE = 48000  # Hz


def check_output(path, overwrite=False):
    """Raise OutputError now for everything that would otherwise fail after the work is done; Path of the output.

    Checked: suffix .mp4, the folder exists and a file can be created in it, `path` does not exist unless `overwrite`.
    """
    path = Path(path)
    folder = path.absolute().parent
    if path.suffix.lower() != ".mp4":
        raise OutputError(f"output {path}: suffix {path.suffix!r}, expected .mp4; rename the output")
    if not folder.is_dir():
        raise OutputError(f"output {path}: folder {folder} does not exist; create it or choose another")
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


class VideoWriter:
    """Context manager that streams RGB frames into an mp4; `write` takes (h, w, 3) uint8.

    The file appears under its name only when everything went well: until then it has a hidden temporary name in the
    same folder, which any exception (Ctrl-C too) removes, together with the ffmpeg process.

    Args:
        path: output, .mp4.
        size: (width, height) of the frames; an odd last column or row is cropped.
        audio: path of the original recording (any ffmpeg format; re-encoded to AAC with its own timing), float samples
            at 16 kHz of shape (n,), or None.
        fps: frames a second.
        crf: x264 quality, 0 (lossless) to 51.
        overwrite: replace an existing file.
        audio_duration: use only the first so many seconds of the audio.
    Raises:
        OutputError: see `check_output`; also full disk, encoder failed, frame of another size.
    """

    def __init__(self, path, size, audio=None, fps=FPS, crf=CRF, overwrite=False, audio_duration=None):
        self.path = check_output(path, overwrite)
        self.size = (int(size[0]), int(size[1]))
        self.frames = 0
        self._overwrite = overwrite
        self._even = (self.size[0] // 2 * 2, self.size[1] // 2 * 2)
        self._arguments = (audio, fps, crf, audio_duration)
        self._temporary = self.path.absolute().with_name(f".{self.path.stem}.{os.getpid()}.{id(self):x}.partial.mp4")
        self._resources = contextlib.ExitStack()
        self._process = None

    def __enter__(self):
        audio, fps, crf, audio_duration = self._arguments
        command = [ffmpeg_exe(), "-v", "error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*self._even), "-r", str(fps)]
        command += ["-i", "pipe:0"]
        if audio is not None:
            command += self._audio_input(audio, audio_duration)
        # RGB -> limited-range BT.709, and tagged as such: untagged files are decoded with BT.601 by some players.
        convert = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int,format=yuv420p"
        tags = "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
        command += ["-vf", f"{convert},{tags}", "-c:v", "libx264", "-preset", PRESET, "-crf", str(crf)]
        command += ["-movflags", "+faststart", "-f", "mp4", str(self._temporary)]
        try:
            self._log = self._resources.enter_context(tempfile.TemporaryFile())
            # Own session: Ctrl-C reaches Python only, which then decides what happens to the encoder.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._log, start_new_session=True
            )
        except BaseException as error:
            self._abort()
            if isinstance(error, OSError):
                raise OutputError(f"output {self.path}: cannot start the encoder ({error})") from error
            raise
        return self

    def _audio_input(self, audio, audio_duration):
        cut = [] if audio_duration is None else ["-t", f"{audio_duration:.6f}"]
        if isinstance(audio, np.ndarray):
            raw = self._resources.enter_context(tempfile.NamedTemporaryFile(suffix=".f32"))  # noqa: SIM115
            np.asarray(audio, "<f4").tofile(raw)
            raw.flush()
            source = ["-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", "1", *cut, *ffmpeg_input(raw.name)]
            rate = SAMPLE_RATE
        else:
            if not Path(audio).is_file():
                raise InputMissingError(f"audio {audio}: no such file; check the path")
            source = [*cut, *ffmpeg_input(audio)]
            header = read_header(audio)
            rate = (header and header.sample_rate) or MAX_AUDIO_RATE
        # Time stamps are counted from the first sample, as `load_audio` counts: a track that starts late inside a
        # video file, or has gaps, keeps in step with the samples the mouth was driven by.
        options = ["-map", "0:v:0", "-map", "1:a:0", "-af", "asetpts=N/SR/TB", "-c:a", "aac", "-b:a", "160k"]
        options += ["-ar", str(min(max(rate, SAMPLE_RATE), MAX_AUDIO_RATE))]
        return source + options

    def write(self, rgb):
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
        self._resources.close()

    def _finish(self):
        if self.frames == 0:
            raise OutputError(f"output {self.path}: no frame was written, expected at least one")
        with contextlib.suppress(BrokenPipeError):  # reported below, through the exit code
            self._process.stdin.close()
        self._process.wait()
        if self._process.returncode or not self._temporary.is_file():
            raise self._failed()
        if self.path.exists() and not self._overwrite:
            raise OutputError(f"output {self.path}: was created by someone else meanwhile; choose another name")
        os.replace(self._temporary, self.path)

    def _failed(self):
        self._log.seek(0)
        lines = ffmpeg_remarks(self._log.read())
        full = next((line for line in lines if "No space left" in line), None)
        reason = full or (lines[-1] if lines else f"ffmpeg ended with code {self._process.returncode}")
        advice = "free some space" if full else "check the folder and the recording"
        return OutputError(f"output {self.path}: encoding failed after {self.frames} frames ({reason}); {advice}")

    def _abort(self):
        """End ffmpeg and remove what it wrote."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.wait()
        self._temporary.unlink(missing_ok=True)
        self._resources.close()


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
    """

    def __init__(self, frames, size, n_frames, audio, audio_source=None, fps=FPS, notes=None, timings=None):
        self.size = size
        self.n_frames = n_frames
        self.audio = audio
        self.audio_source = audio_source
        self.fps = fps
        self.notes = [] if notes is None else notes
        self.timings = {} if timings is None else timings
        self._frames = frames

    def __iter__(self):
        return iter(self._frames())

    def __len__(self):
        return self.n_frames


def save_video(video, path, overwrite=False, progress=True):
    """Write a `Video` as mp4 while it is being made; Path of the file. Raises OutputError (see VideoWriter)."""
    from tqdm import tqdm

    audio = video.audio if video.audio_source is None else video.audio_source
    seconds = None if video.audio is None else len(video.audio) / SAMPLE_RATE
    with VideoWriter(path, video.size, audio, video.fps, overwrite=overwrite, audio_duration=seconds) as writer:
        for frame in tqdm(video, total=video.n_frames, unit="frame", desc=writer.path.name, disable=not progress):
            writer.write(frame)
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
    if not Path(path).is_file():
        raise InputMissingError(f"video {path}: no such file; check the path")
    header = read_header(path)
    if header is None or header.video is None:
        raise InputMissingError(f"video {path}: not a video that ffmpeg reads; expected an mp4")
    return header


def probe(path):
    """VideoInfo of a video file. Decodes it once for the count of frames and once for the count of samples."""
    header = _require_video(path)
    found = re.match(r"(\w+).*?, (\w+)(?:\(([^)]*)\))?.*?, (\d+)x(\d+)", header.video)
    codec, pix_fmt, colour, width, height = found.groups()
    fps = float(re.search(r"([\d.]+) fps", header.video).group(1))
    # The null muxer takes frames as they come, so nothing is duplicated or dropped to even out time stamps.
    command = [ffmpeg_exe(), "-v", "error", "-nostdin", *ffmpeg_input(path), "-map", "0:v:0", "-f", "null"]
    report = subprocess.run([*command, "-progress", "pipe:1", "-"], stdin=subprocess.DEVNULL, capture_output=True)
    frames = int(re.findall(rb"^frame=\s*(\d+)", report.stdout, re.M)[-1])
    samples = 0
    if header.audio:
        command = [ffmpeg_exe(), "-v", "error", "-nostdin", *ffmpeg_input(path), "-map", "0:a:0", "-ac", "1"]
        with subprocess.Popen([*command, "-f", "s16le", "-"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as pipe:
            while block := pipe.stdout.read(1 << 20):
                samples += len(block)
        samples //= 2  # bytes -> 16-bit samples
    audio_seconds = samples / header.sample_rate if header.audio else 0.0
    audio_codec = re.match(r"\w+", header.audio).group() if header.audio else None
    return VideoInfo(
        int(width), int(height), fps, frames, frames / fps, audio_seconds, codec, audio_codec, pix_fmt, colour
    )


def read_video(path):
    """Yield the frames of a video one by one: uint8 RGB, shape (height, width, 3). Raises InputMissingError."""
    _require_video(path)
    command = [ffmpeg_exe(), "-v", "error", "-nostdin", *ffmpeg_input(path), "-map", "0:v:0"]
    # Even time stamps, so that the constant-rate writer neither drops nor repeats a frame.
    command += ["-vf", "setpts=N/FRAME_RATE/TB,scale=flags=bicubic+accurate_rnd+full_chroma_int,format=rgb24"]
    command += ["-c:v", "ppm", "-f", "image2pipe", "-"]  # every frame carries its own size
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        while process.stdout.readline():  # "P6"
            width, height = map(int, process.stdout.readline().split())
            process.stdout.readline()  # "255"
            pixels = process.stdout.read(width * height * 3)
            yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
    finally:  # also when the caller stops early
        process.kill()
        process.stdout.close()
        process.wait()
