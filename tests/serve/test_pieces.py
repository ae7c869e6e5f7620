"""One video in several pieces: the frames of the whole, one labelled file, and no half of one when a piece fails."""

import numpy as np
import pytest

import sonic_ms
from sonic_ms.cli import main
from sonic_ms.errors import EngineError, FaceError, UsageError
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.labels import aigc, mp4
from sonic_ms.labels.save import join_pieces, piece_of, save_piece, save_video
from sonic_ms.labels.watermark import cells_of, read_mark
from sonic_ms.media.video import probe, read_video
from sonic_ms.serve import pieces, process
from sonic_ms.serve.settings import Settings
from tests.serve.conftest import FAKE

pytestmark = [pytest.mark.slow]

OPTIONS = {"min_resolution": 128, "duration": 2.4}


@pytest.fixture(scope="module")
def video():
    return sonic_ms.load_model(engine="onnxruntime").generate(str(DEMO_IMAGE), str(DEMO_AUDIO), **OPTIONS)


@pytest.fixture(scope="module")
def frames(video):
    return list(video)


@pytest.mark.parametrize(("start", "stop"), [(0, 60), (0, 1), (3, 17), (8, 16), (31, 60), (59, 60)])
def test_a_piece_has_the_bytes_of_the_whole(video, frames, start, stop):
    made = list(video.piece(start, stop))
    assert len(made) == stop - start
    assert all(np.array_equal(one, other) for one, other in zip(made, frames[start:stop]))


@pytest.mark.parametrize(("frames", "pieces"), [(60, 1), (61, 4), (3000, 7), (5, 5)])
def test_pieces_hold_every_frame_once(frames, pieces):
    ranges = [piece_of(frames, number, pieces) for number in range(pieces)]
    assert [one for start, stop in ranges for one in range(start, stop)] == list(range(frames))


def test_joined_pieces_are_one_labelled_video(video, tmp_path):
    """Named and marked as the whole would be, every frame at its time, and the sound is whole."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    files = [folder / f"{number}.mp4" for number in range(3)]
    made = [save_piece(video, path, number, 3) for number, path in enumerate(files)]
    assert made[0] == made[1] == made[2]
    joined = join_pieces(made[0], files, DEMO_AUDIO, folder / "joined.mp4")
    whole = save_video(video, folder / "whole.mp4", progress=False)
    assert probe(joined) == probe(whole)
    assert mp4.read_keys(joined) == mp4.read_keys(whole)
    assert aigc.KEY in mp4.read_keys(joined)
    number, _, _ = read_mark(*cells_of(joined))
    assert number == int(video.labels.number[:12], 16)
    alone = [frame for path in files for frame in read_video(path)]
    assert np.array_equal(np.stack(alone), np.stack(list(read_video(joined))))


def test_the_command_makes_a_video_in_pieces(tmp_path, capsys):
    path = tmp_path / "talk.mp4"
    arguments = ["--min-resolution", "64", "--duration", "1", "--engine", "onnxruntime"]
    assert main(["generate", "--image", str(DEMO_IMAGE), "--audio", str(DEMO_AUDIO), "--output", str(path),
                 "--pieces", "2", "--json", str(tmp_path / "report.json"), *arguments]) == 0  # fmt: skip
    assert (probe(path).frames, probe(path).audio_seconds) == (25, 1.0)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["report.json", "talk.mp4"]


@pytest.mark.parametrize("count", ["0", "65"])
def test_an_impossible_number_of_pieces_is_refused(tmp_path, capsys, count):
    assert main(["generate", "--image", str(DEMO_IMAGE), "--audio", str(DEMO_AUDIO), "--output",
                 str(tmp_path / "a.mp4"), "--pieces", count]) == 2  # fmt: skip
    assert f"--pieces is {count}" in capsys.readouterr().err


def test_more_pieces_than_frames_are_refused(video, tmp_path):
    with pytest.raises(UsageError, match="60 frames cannot be 61 pieces"):
        save_piece(video, tmp_path / "a.mp4", 0, 61)
    assert not list(tmp_path.iterdir())


def make(folder, seed):
    settings = Settings(data=folder, engine="onnxruntime")
    return pieces.make_in_pieces(
        settings, 2, DEMO_IMAGE, DEMO_AUDIO, folder / "a.mp4", {"seed": seed}, lambda *_: None
    )  # fmt: skip


@pytest.mark.parametrize(("seed", "kind", "words"), [(1, EngineError, "SIGKILL"), (3, FaceError, "no face")])
def test_a_piece_that_fails_ends_the_others(tmp_path, monkeypatch, seed, kind, words):
    monkeypatch.setattr(process, "WORKER", FAKE)
    with pytest.raises(kind, match=words):
        make(tmp_path, seed)
    assert not list(tmp_path.iterdir())
