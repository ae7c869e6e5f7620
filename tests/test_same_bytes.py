"""Same seed, same bytes: the frames of both models are those on record."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.pipeline import load_model
from tests.support.recorded_clips import CLIPS, FOLDER, make, processor

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of the same clips, made now."""
    folder = tmp_path_factory.mktemp("made")
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-m", "tests.support.recorded_clips", str(folder)], cwd=root, check=True)
    return folder


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_on_record(made, name):
    with np.load(FOLDER / f"{name}.npz") as kept, np.load(made / f"{name}.npz") as new:
        assert np.abs(new["frames"].astype(int) - kept["frames"]).max() <= 1
    known, found = (json.loads((folder / "sha256.json").read_text()).get(processor()) for folder in (FOLDER, made))
    if known is not None:
        assert found[name][0] in known[name]


def test_onnxruntime_shows_the_same():
    _, frames = make(load_model(engine="onnxruntime"), "edge_options")
    with np.load(FOLDER / "edge_options.npz") as kept:
        assert np.abs(frames.astype(int) - kept["frames"]).max() <= 1
