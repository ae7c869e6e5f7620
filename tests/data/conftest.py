"""One synthetic talking clip, made once, and its relatives with faults."""

import subprocess

import numpy as np
import pytest

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.audio import load_audio
from sonic_ms.media.ffmpeg import ffmpeg_exe
from tests.support.talking_clip import delayed, loud_model, talking_clip


@pytest.fixture(scope="session")
def speech():
    """5 s of the speech that comes with the package."""
    return load_audio(str(DEMO_AUDIO), duration=5.0)


@pytest.fixture(scope="session")
def talking(tmp_path_factory, speech):
    """A clip that every filter passes."""
    path = tmp_path_factory.mktemp("talking") / "talking.mp4"
    return talking_clip(path, loud_model(), DEMO_IMAGE, speech)


@pytest.fixture(scope="session")
def remake(talking):
    """Function (path, filter=None, sound=None) -> the clip with its pictures through an ffmpeg filter, or with another
    sound: float32 samples, or an empty array for none."""
    return remaker(talking)


def remaker(clip):
    def run(path, picture=None, sound=None):
        command = [ffmpeg_exe(), "-v", "error", "-y", "-i", str(clip)]
        if sound is not None and len(sound):
            raw = path.with_suffix(".f32")
            np.asarray(sound, "<f4").tofile(raw)
            command += ["-f", "f32le", "-ar", "16000", "-ac", "1", "-i", str(raw), "-map", "0:v", "-map", "1:a"]
        elif sound is not None:
            command += ["-an"]
        command += ["-vf", picture] if picture else ["-c:v", "copy"]
        subprocess.run([*command, str(path)], check=True)
        return path

    return run


@pytest.fixture(scope="session")
def late(speech):
    """The speech, 0.6 s later."""
    return delayed(speech, 0.6)
