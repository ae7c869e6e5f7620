"""A video as 25 frames a second and 16 kHz samples that begin at the same moment, whatever its own rates."""

import contextlib

import numpy as np

from sonic_ms.errors import VideoError
from sonic_ms.media.audio import FPS, SAMPLE_RATE
from sonic_ms.media.ffmpeg import Decoder, blame_host
from sonic_ms.media.kinds import require_file
from sonic_ms.media.video import decode_frames, require_picture

MAX_SECONDS = 3 * 3600  # a jump in the time stamps is filled up with frames and silence: here it ends


def open_header(path):
    """MediaHeader of a video with a picture. Raises InputMissingError, VideoError, EngineError, ResourceError."""
    require_file(path, "video")
    return require_picture(path, "")


def frames_of(path):
    """Yield the frames of a video at 25 a second: uint8 (h, w, 3). Raises VideoError at the end of a video of which a
    tenth or more cannot be decoded, and of one of more than MAX_SECONDS."""
    frames = decode_frames(path, open_header(path), [f"fps={FPS}:start_time=0"], FPS, "")
    with contextlib.closing(frames):
        for number, frame in enumerate(frames):
            if number >= MAX_SECONDS * FPS:
                raise VideoError(f"more than {MAX_SECONDS} s, or a jump in its time stamps; cut it into parts")
            yield frame


def samples_of(path):
    """float32 mono samples at 16 kHz, (n,), from the moment of the first frame of `frames_of`; None without a track.

    Gaps are filled with silence: a track that starts late stays in step with the pictures.
    """
    header = open_header(path)
    if header.audio is None:
        return None
    options = ["-map", f"0:{header.tracks[0].index}", "-af", "aresample=async=1:first_pts=0"]
    options += ["-ac", "1", "-ar", str(SAMPLE_RATE), "-f", "f32le"]
    with Decoder(path, options, "sound") as decoder:
        data = decoder.read_all(4 * SAMPLE_RATE * MAX_SECONDS)
        if len(data) < 4 * SAMPLE_RATE * MAX_SECONDS:
            code, remarks = decoder.finish()
            blame_host("sound", code, remarks)
    return np.frombuffer(data, "<f4")
