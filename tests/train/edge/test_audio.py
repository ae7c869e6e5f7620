"""The recipe of the audio side, on a few seconds of speech whose mouths are known."""

from pathlib import Path

import numpy as np
import pytest

from sonic_ms.cli import main
from sonic_ms.data.mouths import MouthClip, save_clip
from sonic_ms.edge.audio_features import WINDOW
from sonic_ms.edge.curves import JAW, OPEN, WIDTH
from sonic_ms.edge.heard import AudioEncoderConfig, curves_of
from sonic_ms.errors import UsageError
from sonic_ms.files.config import from_dict, read_yaml
from sonic_ms.files.weights import load_config
from sonic_ms.media.audio import SAMPLES_PER_FRAME, frame_count
from sonic_ms.train.edge import audio
from sonic_ms.train.edge.articulation import BILABIAL, SHAPES, articulation_curves, class_labels, dominances
from sonic_ms.train.edge.audio import EdgeAudioConfig
from sonic_ms.train.edge.speech import Espeak, Phone

pytestmark = [pytest.mark.slow]

RECIPE = Path(__file__).resolve().parents[3] / "configs" / "edge_audio.yaml"
SETTINGS = {"utterances": 12, "copies": 1, "components": 24, "seed": 3}


@pytest.fixture(scope="module")
def mouths(tmp_path_factory):
    """Folder of four clips of two speakers who do what the textbook says, one with twice the mouth."""
    folder, espeak = tmp_path_factory.mktemp("mouths"), Espeak()
    for number in range(4):
        said = audio.speak(np.random.default_rng([9, number]), espeak, 0.0)
        samples = audio.level(said.samples)
        curves = articulation_curves(said.phones, frame_count(len(samples)))
        size = 1.0 + number % 2
        measures = {
            "opening": size * 0.06 * np.maximum(curves[:, OPEN], 0),
            "width": 0.27 * size + 0.02 * curves[:, WIDTH],
            "jaw": 0.05 * curves[:, JAW],
        }
        save_clip(MouthClip(f"clip{number}", samples, measures, 0, f"speaker{number % 2}", "en"), folder)
    return folder


@pytest.fixture(scope="module")
def run(mouths, tmp_path_factory):
    """(folder, figures) of a tiny run."""
    out = tmp_path_factory.mktemp("run")
    return out, audio.run(EdgeAudioConfig(str(mouths), **SETTINGS), out)


def test_unseen_speakers_are_followed(run):
    """Each is judged by a line that was fitted without him."""
    out, figures = run
    assert figures["opening_clean"] > 0.5
    rows = (out / "speakers.csv").read_text().splitlines()
    assert len(rows) == 3 and rows[1].startswith("speaker0,2,")
    assert "closed_clean" in (out / "figures.csv").read_text()


def test_the_same_settings_give_the_same_weights(run, mouths):
    """From what was kept, without listening again. espeak-ng says the test sentences a little differently each time."""
    out, figures = run
    weights = (out / "audio" / "model.safetensors").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        for stage in ("speak_all", "copy_all", "judge_all"):
            patch.setattr(audio, stage, None)
        again = audio.run(EdgeAudioConfig(str(mouths), **SETTINGS), out)
    fitted = [name for name in figures if not name.startswith(("test_", "closed_"))]
    assert len(fitted) == 11 and [again[name] for name in fitted] == [figures[name] for name in fitted]
    assert (out / "audio" / "model.safetensors").read_bytes() == weights


def test_without_mouths_the_textbook_serves(run):
    out, _ = run
    figures = audio.run(EdgeAudioConfig(**SETTINGS), out)
    assert "opening_clean" not in figures and figures["test_open"] > 0.3
    assert np.all(np.diff(load_config(AudioEncoderConfig, out / "audio").opening) > 0)


def test_lines_become_curves(run):
    """A line that knows the measures shows them in the units of the renderer."""
    weight = np.zeros((5, 2, 3))
    bias = np.array([0.9, 0.01, 0.02])
    curves, closure = (np.zeros((5, 2, 8)), np.zeros(8)), (np.zeros((5, 2, 1)), np.array([-9.0]))
    line = audio.in_curves((weight, bias), curves, closure, (1.0, 1.0), (0.0, 0.0))
    config = load_config(AudioEncoderConfig, run[0] / "audio")
    shown = curves_of(np.repeat(line[1][None], 4, 0), config)[0]
    assert shown[WIDTH] == pytest.approx(0.01 / 0.271 / 0.10, abs=1e-3)
    assert shown[JAW] == pytest.approx(0.02 / (0.5 * 0.1355), abs=1e-4)


def test_windows_hold_clips_beside_their_targets():
    rng = np.random.default_rng(0)
    clips = [
        MouthClip("a", np.full(40 * SAMPLES_PER_FRAME, 0.1 * (i + 1), np.float32), {}, 0, "s", "") for i in range(9)
    ]
    targets = [np.full((40, 3), float(i)) for i in range(9)]
    queue = list(range(9))
    samples, rows, names = audio._window(rng, queue, clips, targets, False)
    assert len(rows) == WINDOW and len(samples) == WINDOW * SAMPLES_PER_FRAME
    assert 0 < len(queue) < 9
    for frame in range(WINDOW):
        part = samples[frame * SAMPLES_PER_FRAME : (frame + 1) * SAMPLES_PER_FRAME]
        if names[frame] < 0:
            assert not part.any() and np.isnan(rows[frame]).all()
        else:
            assert rows[frame, 0] == names[frame] and part.min() > 0


def test_another_speed_moves_the_targets_along():
    targets = np.arange(50.0)[:, None] * np.ones(3)
    samples = np.zeros(50 * SAMPLES_PER_FRAME, np.float32)
    fast, own = audio.changed_speed(np.random.default_rng(1), samples, targets)
    assert len(own) != 50 and len(fast) == len(own) * SAMPLES_PER_FRAME
    assert own[-1, 0] == pytest.approx(49, abs=2) and own[0, 0] == pytest.approx(0, abs=1)


def test_shares_and_labels_of_phonemes():
    phones = (Phone("", 0, 0.4), Phone("m", 0.4, 0.6), Phone("aɪ", 0.6, 1.0))
    shares, labels = dominances(phones, 25), class_labels(phones, 25)
    assert shares.shape == (25, len(SHAPES)) and shares.sum(1) == pytest.approx(1, abs=1e-6)
    assert labels[0] == 0 and labels[12] == BILABIAL and shares[12].argmax() == BILABIAL


def test_a_speaker_without_a_mouth(tmp_path, mouths, capsys):
    quiet = MouthClip(
        "x", np.zeros(32000, np.float32), {m: np.zeros(50) for m in ("opening", "width", "jaw")}, 0, "s", ""
    )
    save_clip(quiet, tmp_path)
    with pytest.raises(UsageError, match="keeps the mouth shut"):
        audio.normalised([quiet])
    (tmp_path / "recipe.yaml").write_text(f"recipe: edge_audio\nclips: {tmp_path}\n")
    assert main(["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "speaker s has 50 frames" in capsys.readouterr().err


def test_the_shipped_recipe_is_valid():
    values = read_yaml(RECIPE)
    assert values.pop("recipe") == "edge_audio"
    assert from_dict(EdgeAudioConfig, values, str(RECIPE)).clips is None
