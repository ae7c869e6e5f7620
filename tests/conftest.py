"""Fixtures for every test: two public-domain portraits, speech-like sound, the face nets."""

# Before onnx: whichever of the two comes second finds a protobuf it cannot use, and only MindSpore dies of it.
import mindspore  # noqa: F401, I001


import ctypes
import os
import shutil
import sys
import subprocess
import signal
from pathlib import Path

import numpy as np
import pytest


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job; tests press Ctrl-C in their children
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup; tests hang up on their children
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _lite():
    from sonic_ms.runtime.lite import find_python

    find_python()


def _espeak():
    ctypes.CDLL("libespeak-ng.so.1")


def _flite():
    if not shutil.which("flite"):
        raise FileNotFoundError("no command flite; apt-get install flite")


def _comfyui():
    from tests.support.comfyui import folder

    folder()


def _chromium():
    if not shutil.which("chromium"):
        raise FileNotFoundError("no command chromium; apt-get install chromium")


def _recordings():
    if not Path("/usr/share/pocketsphinx/test/data").is_dir():
        raise FileNotFoundError("no recordings; apt-get install pocketsphinx-testdata")


def _unshare():
    code = "import sys; from sonic_ms.serve.confine import without_network; sys.exit(not without_network())"
    if subprocess.run([sys.executable, "-c", code]).returncode:
        raise PermissionError("this system lets no process give up its network")


def _docker_compose():
    if not shutil.which("docker-compose"):
        raise FileNotFoundError("no command docker-compose; apt-get install --no-install-recommends docker-compose")


def _systemd_analyze():
    if not shutil.which("systemd-analyze"):
        raise FileNotFoundError("no command systemd-analyze; apt-get install systemd")


def _clamd():
    if not shutil.which("clamd"):
        raise FileNotFoundError("no command clamd; apt-get install --no-install-recommends clamav-daemon")


def _ray():
    import ray  # noqa: F401


def _pipecat():
    import pipecat.pipeline.pipeline  # noqa: F401


def _livekit():
    import livekit.agents  # noqa: F401


def _postgresql():
    from tests.support.postgres import folder

    folder()


NEEDS = {  # scripts/test installs them; each raises without it
    "lite": _lite,
    "espeak-ng": _espeak,
    "flite": _flite,
    "comfyui": _comfyui,
    "chromium": _chromium,
    "recordings": _recordings,
    "unshare": _unshare,
    "docker-compose": _docker_compose,
    "systemd-analyze": _systemd_analyze,
    "clamd": _clamd,
    "ray": _ray,
    "pipecat": _pipecat,
    "livekit": _livekit,
    "postgresql": _postgresql,
}


def _lacks(name):
    try:
        NEEDS[name]()
    except Exception as error:
        return f"needs {name}: {error}"


@pytest.hookimpl(tryfirst=True)  # before any fixture
def pytest_runtest_setup(item):
    """The one rule for what a machine lacks: tests marked `needs` are skipped with the reason, in CI they fail."""
    needed = {name for mark in item.iter_markers("needs") for name in mark.args}
    reasons = [reason for name in sorted(needed) if (reason := _lacks(name))]
    if reasons and os.environ.get("CI"):
        pytest.fail("; ".join(reasons), pytrace=False)
    if reasons:
        pytest.skip("; ".join(reasons))


@pytest.fixture(scope="session")
def astronaut():
    """Eileen Collins, 512x512 RGB, smiling with teeth; face about 107 pixels high."""
    from skimage import data

    image = data.astronaut()
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def hopper():
    """Grace Hopper, 600x512 RGB, mouth closed; face about 204 pixels high."""
    import matplotlib

    from sonic_ms.media.image import load_image

    image = load_image(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def analyzer():
    from sonic_ms.face.detect import FaceAnalyzer

    return FaceAnalyzer()


@pytest.fixture(scope="session")
def make_speech():
    """Function (seconds, seed=0) -> float32 16 kHz: voiced syllables of 120-250 ms in two formants, with pauses of
    400 ms after every fourth; also the (start, stop) seconds of the syllables."""

    def make(seconds, seed=0):
        rng = np.random.default_rng(seed)
        samples, spans, now = np.zeros(round(seconds * 16000), np.float32), [], 0.3
        while now + 0.3 < seconds:
            length = rng.uniform(0.12, 0.25)
            time = np.arange(round(length * 16000)) / 16000
            pitch, formants = rng.uniform(110, 160), rng.uniform([300, 900], [800, 2200])
            harmonics = np.arange(1, 30) * pitch
            gains = sum(1 / (1 + ((harmonics - formant) / 90) ** 2) for formant in formants) + 0.003
            voice = np.sin(2 * np.pi * harmonics[:, None] * time) * gains[:, None]
            start = round(now * 16000)
            samples[start : start + len(time)] = 0.1 * voice.sum(0) * np.sin(np.pi * time / length) ** 0.5
            spans.append((now, now + length))
            now += length + (0.4 if len(spans) % 4 == 0 else 0.03)
        return samples, spans

    return make
