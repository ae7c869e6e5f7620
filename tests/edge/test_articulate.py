"""`sonic-ms articulate`: curves without a face."""

import csv
import json

import numpy as np
import pytest

import sonic_ms
from sonic_ms.cli import main
from sonic_ms.edge import articulate as speech
from sonic_ms.edge.curves import CURVES, OPEN
from sonic_ms.edge.generator import open_folder
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.errors import UsageError
from sonic_ms.files.shipped import DEMO_AUDIO
from sonic_ms.media.audio import load_audio


@pytest.fixture(scope="module")
def generator():
    return open_folder()


@pytest.fixture(scope="module")
def shown(generator):
    samples = load_audio(str(DEMO_AUDIO), duration=3.0)
    return generator.curves(samples, EdgeOptions(duration=3.0))[0]


def command(out, *more):
    return ["articulate", "--audio", str(DEMO_AUDIO), "--duration", "3", "--out", str(out), *more]


def test_npz_holds_what_generate_shows(shown, tmp_path):
    assert main(command(tmp_path / "curves.npz")) == 0
    with np.load(tmp_path / "curves.npz") as file:
        assert tuple(file.files) == CURVES
        np.testing.assert_allclose(np.stack([file[name] for name in CURVES], 1), shown, atol=1e-6)


def test_json_and_csv_hold_the_same(shown, generator, tmp_path):
    curves = sonic_ms.articulate(str(DEMO_AUDIO), generator=generator, duration=3.0)
    for name in ("c.json", "c.csv"):
        speech.write_curves(curves, tmp_path / name)
    stored = json.loads((tmp_path / "c.json").read_text())
    assert stored["fps"] == 25 and list(stored["curves"]) == list(CURVES)
    np.testing.assert_allclose(stored["curves"]["open"], shown[:, OPEN], atol=1e-4)
    with open(tmp_path / "c.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 75 and rows[1]["seconds"] == "0.04"
    np.testing.assert_allclose([float(row["open"]) for row in rows], shown[:, OPEN], atol=1e-4)


def test_arkit_shapes_are_shares(shown):
    shapes = speech.blend_shapes(shown)
    assert all(values.min() >= 0 and values.max() <= 1 for values in shapes.values())
    closed = shown[:, OPEN] <= 0
    assert closed.any()
    np.testing.assert_allclose(shapes["mouthClose"][closed], shapes["jawOpen"][closed])
    assert np.corrcoef(shapes["jawOpen"] - shapes["mouthClose"], np.maximum(shown[:, OPEN], 0))[0, 1] > 0.999


def test_arkit_from_the_command_line(tmp_path):
    assert main(command(tmp_path / "c.npz", "--arkit")) == 0
    with np.load(tmp_path / "c.npz") as file:
        assert "jawOpen" in file.files and "open" not in file.files


def test_dynamic_scale_scales(generator):
    some = {"sample_rate": 16000, "generator": generator, "smooth_motion": False}
    samples = load_audio(str(DEMO_AUDIO), duration=2.0)
    one, two = (speech.articulate(samples, dynamic_scale=scale, **some)["open"] for scale in (1.0, 1.5))
    opened = one > 0
    np.testing.assert_allclose(two[opened], 1.5 * one[opened], rtol=1e-5)
    np.testing.assert_array_equal(two[~opened], one[~opened])


def test_silence_is_a_mouth_at_rest(generator):
    curves = speech.articulate(np.zeros(32000, np.float32), 16000, generator)
    assert all(np.all(values == 0) for values in curves.values())


def test_options_of_videos_are_refused(generator):
    with pytest.raises(UsageError, match="min_resolution is for videos"):
        speech.articulate(np.zeros(16000, np.float32), 16000, generator, min_resolution=256)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--audio", "nowhere.wav", "--out", "c.npz"], 3, "nowhere.wav: no such file"),
        (["--audio", str(DEMO_AUDIO), "--out", "c.txt"], 2, "ends in .npz, .json, .csv"),
        (["--audio", str(DEMO_AUDIO), "--out", "no/folder/c.npz"], 7, "cannot write"),
        (["--audio", str(DEMO_AUDIO), "--out", "c.npz", "--max-audio-seconds", "1"], 6, "expected at most 1 s"),
        (["--audio", str(DEMO_AUDIO), "--out", "c.npz", "--dynamic-scale", "9"], 2, "0 to 3"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert main(["articulate", *arguments]) == code
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_not_replaced_unasked(tmp_path):
    (tmp_path / "c.npz").write_bytes(b"mine")
    assert main(command(tmp_path / "c.npz")) == 7
    assert (tmp_path / "c.npz").read_bytes() == b"mine"
