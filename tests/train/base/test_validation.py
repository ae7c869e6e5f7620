"""Videos while sonic-base trains; the networks are doubles here, which remember what they are asked."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from sonic_ms import evaluate
from sonic_ms.errors import FaceError, InputMissingError, UsageError
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.video import Video, probe
from sonic_ms.train.base.validation import Validation, ValidationConfig
from sonic_ms.train.loop.trainer import train
from tests.support.tiny_run import CONFIG, Loss, batch

NETWORKS = SimpleNamespace(folder="model", cells={"unet": "the UNet in training"})


@pytest.fixture
def asked(monkeypatch):
    """(config, list of the options of every video that was asked for)."""
    options = []

    class Detector:
        def __init__(self, networks):
            pass

        def detect(self, rgb):
            return []

    class Model:
        def __init__(self, generator):
            self.networks = generator.networks

        def generate(self, image, audio, **given):
            options.append({"image": image, "samples": len(audio), "unet": self.networks.trained["unet"], **given})
            frame = np.full((64, 64, 3), 99, np.uint8)
            return Video(lambda: iter([frame] * 12), (64, 64), 12, audio, None, 25.0)

    def open_folder(folder, keep, trained=None):
        return SimpleNamespace(trained=trained)

    monkeypatch.setattr("sonic_ms.pipeline.TalkingModel", Model)
    monkeypatch.setattr("sonic_ms.base.detect.YoloDetector", Detector)
    monkeypatch.setattr("sonic_ms.base.networks.open_folder", open_folder)
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {"sync": {"value": 0.5}, "blinks": {"value": None}})
    return ValidationConfig(str(DEMO_IMAGE), str(DEMO_AUDIO), 0.48, 64, 3, face_box=(1.0, 2.0, 30.0, 40.0)), options


def test_a_video_and_its_figures(asked, tmp_path):
    config, options = asked
    figures = Validation(config, NETWORKS, tmp_path)(7)
    assert figures == {"val_sync": 0.5}
    assert probe(tmp_path / "validation" / "00000007.mp4").frames == 12
    (given,) = options
    assert given["unet"] == "the UNet in training" and given["samples"] == 0.48 * 16000
    assert given["inference_steps"] == 3 and given["seed"] == 0 and given["face_box"] == (1.0, 2.0, 30.0, 40.0)


def test_no_face_in_the_video_does_not_end_the_training(asked, tmp_path, monkeypatch):
    def none(*_):
        raise FaceError("no face in any frame")

    monkeypatch.setattr(evaluate, "evaluate", none)
    assert Validation(asked[0], NETWORKS, tmp_path)(1) == {"val_faces": 0.0}


def test_no_face_in_the_photo_is_an_error_before_the_training(asked, tmp_path):
    config, _ = asked
    with pytest.raises(FaceError):
        Validation(ValidationConfig(config.portrait, config.speech), NETWORKS, tmp_path)
    with pytest.raises(InputMissingError):
        Validation(ValidationConfig(config.portrait, "missing.wav"), NETWORKS, tmp_path)


@pytest.mark.slow
def test_it_is_in_the_log_and_changes_no_loss(asked, tmp_path):
    config, options = asked
    train(Loss(), batch, CONFIG, tmp_path / "with", Validation(config, NETWORKS, tmp_path))
    train(Loss(), batch, CONFIG, tmp_path / "without")
    rows = {}
    for name in ("with", "without"):
        with open(tmp_path / name / "loss.csv", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    assert [row["train"] for row in rows["with"]] == [row["train"] for row in rows["without"]]
    assert [row["step"] for row in rows["with"] if row["val_sync"]] == ["6", "12"] and len(options) == 2


@pytest.mark.parametrize("change", [{"duration": 0.0}, {"min_resolution": 8}, {"inference_steps": 0}, {"seed": -1}])
def test_bad_settings(change):
    with pytest.raises(UsageError, match=f"validation: {next(iter(change))} is"):
        ValidationConfig("portrait.png", "speech.wav", **change)
