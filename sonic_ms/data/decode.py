"""A video as 25 frames a second and 16 kHz samples that begin at the same moment, whatever its own rates."""

import subprocess

import numpy as np

from sonic_ms.errors import InputMissingError
from sonic_ms.media.audio import FPS, SAMPLE_RATE
from sonic_ms.media.ffmpeg import PLAYLISTS, ffmpeg_exe, ffmpeg_input, ffmpeg_remarks, read_header

LOST = 0.1  # share of what the header promises that may be missing before a video counts as corrupt


def open_header(path):
    """MediaHeader of a video with a picture; InputMissingError for anything else."""
    if not path.is_file():
        raise InputMissingError("no such file")
    header = read_header(path)
    if header is None or header.video is None or header.format in PLAYLISTS:
        raise InputMissingError("corrupt or not a video that ffmpeg reads")
    return header


def frames_of(path):
    """Yield the frames of a video at 25 a second: uint8 (h, w, 3). Raises InputMissingError at the end of a video of
    which LOST or more cannot be decoded."""
    header = open_header(path)
    command = [ffmpeg_exe(), "-v", "error", "-nostdin", *ffmpeg_input(path), "-map", "0:v:0"]
    command += ["-vf", f"fps={FPS}:start_time=0,scale=flags=bicubic+accurate_rnd+full_chroma_int,format=rgb24"]
    command += ["-c:v", "ppm", "-f", "image2pipe", "-"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    count = 0
    try:
        while process.stdout.readline():  # "P6"
            width, height = map(int, process.stdout.readline().split())
            process.stdout.readline()  # "255"
            pixels = process.stdout.read(width * height * 3)
            if len(pixels) < width * height * 3:
                break
            count += 1
            yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        remarks = ffmpeg_remarks(process.stderr.read())
        expected = FPS * (header.seconds or 0)
        if not count or (remarks and count < (1 - LOST) * expected):
            reason = f" ({remarks[0]})" if remarks else ""
            raise InputMissingError(f"corrupt, only {count} of {expected:.0f} frames can be decoded{reason}")
    finally:  # also when the caller stops early
        process.kill()
        process.stdout.close()
        process.stderr.close()
        process.wait()


def samples_of(path):
    """float32 mono samples at 16 kHz, (n,), from the moment of the first frame of `frames_of`; None without a track.

    Gaps are filled with silence: a track that starts late stays in step with the pictures.
    """
    if open_header(path).audio is None:
        return None
    command = [ffmpeg_exe(), "-v", "error", "-nostdin", *ffmpeg_input(path), "-map", "0:a:0"]
    command += ["-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(SAMPLE_RATE), "-f", "f32le", "-"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    return np.frombuffer(done.stdout, "<f4")
