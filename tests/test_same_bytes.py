"""Same seed, same bytes: the frames of both models are those on record."""

import json

import numpy as np
import pytest

from sonic_ms.pipeline import load_model
from tests.support.recorded_clips import CLIPS, FOLDER, make, processor, tiny_base


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {
        "sonic-edge": load_model(engine="mindspore"),
        "sonic-base": load_model(tiny_base(tmp_path_factory.mktemp("base"))),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_on_record(models, name):
    digest, frames = make(models[CLIPS[name][0]], name)
    with np.load(FOLDER / f"{name}.npz") as kept:
        assert np.abs(frames.astype(int) - kept["frames"]).max() <= 1
    known = json.loads((FOLDER / "sha256.json").read_text()).get(processor())
    if known is not None:
        assert digest == known[name]


@pytest.mark.slow
def test_onnxruntime_shows_the_same():
    _, frames = make(load_model(engine="onnxruntime"), "edge_options")
    with np.load(FOLDER / "edge_options.npz") as kept:
        assert np.abs(frames.astype(int) - kept["frames"]).max() <= 1
