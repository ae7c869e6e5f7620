"""The ruler of the watermark: what it says of a video with the mark and of one without."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.labels import watermark
from sonic_ms.media.video import Video

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("bench_labels", ROOT / "bench" / "labels.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Still:
    """A model whose videos are a photo that stands still."""

    def __init__(self, photo):
        self.photo = photo

    def generate(self, *_, **__):
        return Video(lambda: iter([self.photo] * 60), self.photo.shape[1::-1], 60, None)


@pytest.mark.slow
def test_figures_of_a_photo(tool, astronaut, tmp_path):
    row, unmarked, _ = tool.measure(Still(astronaut), Path("still.png"), 77, tmp_path)
    assert row["psnr"] > row["worst"] > 42
    assert all(row[name] > 0.4 for name in ("as made", *tool.ENCODINGS))
    assert 0 < row["still"] < row["flat"] < 3
    assert [number for number, _, _ in unmarked] == [None] * 4 and tool.summary(unmarked).startswith("4 unmarked: 0 ")
    assert "| still | 512x512 | " in tool.text([row])


@pytest.mark.slow
def test_a_mark_that_is_too_weak_is_lost(tool, astronaut, tmp_path, monkeypatch):
    monkeypatch.setattr(watermark, "FLAT", 0.05)
    monkeypatch.setattr(watermark, "TEXTURED", 0.05)
    row, _, _ = tool.measure(Still(astronaut), Path("still.png"), 77, tmp_path)
    assert row["half + 28"] == "lost" and row["psnr"] > 55


def test_flat_cells_are_those_without_texture(tool, monkeypatch):
    """One cell of 1024 flat; its light steps by three levels once."""
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    frame[:2, :2] = 100
    cells = np.zeros((5, 32, 32), np.float32)
    cells[3:, 0, 0], cells[2:, 5, 5] = 3, 50
    monkeypatch.setattr(tool, "cells_of", lambda path: (cells, 25))
    assert tool.flat_steps(frame, "a.mp4") == [3]
