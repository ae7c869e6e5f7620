"""The ruler: figures of curves whose quality is known."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.data.mouths import MouthClip, save_clip
from sonic_ms.media.audio import SAMPLES_PER_FRAME

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("lips", ROOT / "bench" / "lips.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def clip(offset=0, n=200, seed=0):
    """A mouth that opens and closes for syllables, under speech-like noise that does not follow it."""
    rng = np.random.default_rng(seed)
    opening = np.maximum(np.sin(np.cumsum(rng.uniform(0.5, 1.1, n))), 0).astype(np.float32) * 0.06
    sound = (rng.normal(0, 0.1, n * SAMPLES_PER_FRAME)).astype(np.float32)
    measures = {"opening": opening, "width": 0.27 + 0.1 * opening, "jaw": 0.5 * opening}
    return MouthClip(f"c{seed}", sound, measures, offset, f"speaker{seed}", "en" if seed else "fr")


def shown(one, late=0):
    return {
        name: np.roll(one.measures[key], late)
        for name, key in (("open", "opening"), ("width", "width"), ("jaw", "jaw"))
    }


def test_the_truth_scores_one(tool):
    row = tool.clip_figures(clip(), shown(clip()))
    assert [row[name] for name in ("r_open", "r_width", "r_jaw", "f1")] == pytest.approx([1, 1, 1, 1])
    assert row["lag"] == 0 and abs(row["r_loud"]) < 0.3 and row["r_loud"] == pytest.approx(row["real_loud"])


def test_an_offset_of_the_clip_is_taken_out(tool):
    """Sound frame i belongs to picture frame i + offset."""
    one = clip(offset=3)
    heard = {name: np.roll(values, -3) for name, values in shown(clip()).items()}
    assert tool.clip_figures(one, heard)["r_open"] == pytest.approx(1)


@pytest.mark.parametrize("late", [-2, 3])
def test_a_lag_is_told(tool, late):
    row = tool.clip_figures(clip(), shown(clip(), late))
    assert row["lag"] == late and row["r_open"] < 0.8


def test_another_mouth_scores_low(tool):
    row = tool.clip_figures(clip(), shown(clip(seed=1)))
    assert abs(row["r_open"]) < 0.3 and row["f1"] < 0.9


def test_speakers_count_alike(tool):
    assert tool.means([("a", {"r": 1.0}), ("a", {"r": 0.0}), ("b", {"r": 0.0})]) == {"r": 0.25}


def test_the_table(tool, tmp_path):
    for seed in (0, 1):
        save_clip(clip(seed=seed), tmp_path)

    class Generator:
        def curves(self, samples, options):
            return np.random.default_rng(0).random((round(len(samples) / SAMPLES_PER_FRAME), 8)).astype(np.float32), []

    table, seconds = tool.measure(tmp_path, Generator())
    assert [(sound, clips) for sound, clips, _ in table][:2] == [
        ("clean", "all (2 clips)"),
        ("clean", "not English (1 clips)"),
    ]
    assert len(tool.text(table).splitlines()) == 2 + 6 and seconds > 0
