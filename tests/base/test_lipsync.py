"""Lip-sync correction of sonic-base, on pictures of a mouth that opens by loudness."""

import numpy as np
import pytest

from sonic_ms.base.lipsync import in_step
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.audio import load_audio
from tests.support.talking_clip import loud_model

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def speech():
    return load_audio(str(DEMO_AUDIO), duration=5.0)


@pytest.fixture(scope="module")
def pictures(speech):
    """125 pictures in step with the speech."""
    return list(loud_model().generate(image=DEMO_IMAGE, audio=speech, min_resolution=256, dynamic_scale=1.3))


def moved(pictures, shift):
    """As many pictures, `shift` frames later; the ends are repeated."""
    return [pictures[min(max(i - shift, 0), len(pictures) - 1)] for i in range(len(pictures))]


@pytest.mark.parametrize("late", [4, -4])
def test_a_shifted_mouth_is_put_back(pictures, speech, late):
    notes = []
    found = list(in_step(moved(pictures, late), speech, 25, notes.append))
    assert notes == [f"lip-sync correction moved the mouth by {-late:+d} frames"]
    assert len(found) == len(pictures)
    expected = moved(moved(pictures, late), -late)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected))
    assert all(np.array_equal(one, other) for one, other in zip(found[4:-4], pictures[4:-4]))


def test_a_mouth_in_step_is_left(pictures, speech):
    notes = []
    found = list(in_step(pictures, speech, 25, notes.append))
    assert notes == [] and all(one is other for one, other in zip(found, pictures))


def test_what_cannot_be_measured_is_left(pictures, speech):
    """A still mouth; and no face at all."""
    for still in (pictures[0], np.zeros_like(pictures[0])):
        notes = []
        assert len(list(in_step([still] * 110, speech, 25, notes.append))) == 110 and notes == []
