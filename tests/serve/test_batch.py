"""`sonic-ms batch`: a list in, videos out, one line for each that failed."""

import json
import sys
from pathlib import Path

import pytest

from sonic_ms.cli import main
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.video import probe
from sonic_ms.serve import process

FAKE = (sys.executable, str(Path(__file__).parent / "fake_worker.py"))


def write(tmp_path, *lines):
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(json.dumps({"image": str(DEMO_IMAGE), "audio": str(DEMO_AUDIO), **one}) for one in lines))
    return path


def batch(path, tmp_path, *more):
    report = tmp_path / "report.json"
    code = main(["batch", str(path), "--out", str(tmp_path), "--json", str(report), *more])
    return code, json.loads(report.read_text() or "null")


def test_videos_of_a_list(tmp_path, capsys):
    path = tmp_path / "jobs.csv"
    path.write_text(
        f"image,audio,output,duration,min_resolution,keep_resolution\n{DEMO_IMAGE},{DEMO_AUDIO},a.mp4,1,64,\n"
        f"{DEMO_IMAGE},{DEMO_AUDIO},,0.5,96,off\n"
    )
    code, report = batch(path, tmp_path, "--engine", "onnxruntime")
    assert (code, report["made"], report["failed"]) == (0, 2, 0), capsys.readouterr().err
    assert (probe(tmp_path / "a.mp4").width, probe(tmp_path / "3.mp4").width) == (64, 96)
    assert not [one.name for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_what_fails_is_told_and_the_rest_is_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(process, "WORKER", FAKE)
    path = write(tmp_path, {"output": "a.mp4"}, {"output": "b.mp4", "seed": 3}, {"output": "c.mp4"})
    code, report = batch(path, tmp_path)
    assert code == 5 and "line 2: no face found" in capsys.readouterr().err
    assert [one["state"] for one in report["jobs"]] == ["completed", "failed", "completed"]
    assert sorted(one.name for one in tmp_path.glob("*.mp4")) == ["a.mp4", "c.mp4"]
    code, report = batch(write(tmp_path, {"output": "a.mp4"}, {"output": "b.mp4"}), tmp_path)
    assert code == 0 and [one["state"] for one in report["jobs"]] == ["there already", "completed"]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ({"min_resolution": 1}, 2, "jobs.jsonl:1: min_resolution is 1"),
        ({"sped": 1}, 2, "unknown keys 'sped'"),
        ({"image": "gone.jpg"}, 3, "no such file"),
        ({"image": 5}, 2, "image is missing"),
        ({"output": "a.avi"}, 7, "expected .mp4"),
        ({"output": "no/a.mp4"}, 7, "does not exist"),
    ],
)
def test_a_wrong_line_is_refused_before_anything_is_made(tmp_path, capsys, line, code, words):
    path = write(tmp_path, line, {})
    assert batch(path, tmp_path)[0] == code
    said = capsys.readouterr().err.strip()
    assert words in said and said.count("\n") == 0
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "x"), ("a.csv", "image,audio\nonly"), ("a.jsonl", "{"), ("a.jsonl", "[]"), ("a.csv", "")],
)
def test_a_wrong_list_ends_in_one_line(tmp_path, capsys, name, text):
    (tmp_path / name).write_text(text)
    assert main(["batch", str(tmp_path / name), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_two_lines_with_one_output(tmp_path, capsys):
    assert batch(write(tmp_path, {"output": "a.mp4"}, {"output": "a.mp4"}), tmp_path)[0] == 2
    assert "line 1 too" in capsys.readouterr().err
