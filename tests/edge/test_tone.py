"""Photos of one colour keep it while they speak."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from sonic_ms.edge.tone import find_tone
from sonic_ms.files.shipped import DEMO_AUDIO
from sonic_ms.media.audio import load_audio
from sonic_ms.media.image import load_image
from sonic_ms.pipeline import load_model

CASES = Path(__file__).parents[1] / "cases"
SEPIA = np.array([1.07, 0.97, 0.78])


def in_sepia(photo, quality=70):
    """A brown print as a JPEG file keeps it."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    brown = np.clip(grey[..., None] * SEPIA, 0, 255).astype(np.uint8)
    packed = cv2.imencode(".jpg", brown[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1]


def points(analyzer, photo):
    return analyzer.landmarks(photo, analyzer.detect(photo)[0]).points


def test_people_in_colour_have_no_tone(analyzer, astronaut, hopper):
    assert find_tone(astronaut, points(analyzer, astronaut)) is None
    assert find_tone(hopper, points(analyzer, hopper)) is None


@pytest.mark.parametrize("level", [40, 128, 220])
def test_a_brown_print_turns_red_to_brown(analyzer, astronaut, level):
    photo = in_sepia(astronaut)
    tone = find_tone(photo, points(analyzer, astronaut))
    red = np.full((1, 1, 3), (min(255, level + 60), level - 30, level - 30), np.uint8)
    seen = tone.apply(red)[0, 0].astype(float)
    luma = seen @ (0.299, 0.587, 0.114)
    assert luma == pytest.approx(red[0, 0] @ (0.299, 0.587, 0.114), abs=6)
    assert np.abs(seen - luma - (luma * SEPIA - luma)).max() < 10


def test_the_photo_itself_stays(analyzer, astronaut):
    photo = in_sepia(astronaut)
    found = points(analyzer, astronaut)
    tone = find_tone(photo, found)
    low, high = found[:, :2].min(0).astype(int), found[:, :2].max(0).astype(int)
    face = photo[low[1] : high[1], low[0] : high[0]]
    assert (tone.apply(face) == face).all(-1).mean() > 0.98


@pytest.mark.slow
def test_a_grey_photo_stays_grey():
    grey = load_image(CASES / "grey.jpg")
    assert np.ptp(grey.astype(int), axis=2).max() == 0
    speech = load_audio(str(DEMO_AUDIO), duration=2.0)
    video = load_model().generate(image=grey, audio=speech, min_resolution=256)
    assert max(int(np.ptp(frame.astype(int), axis=2).max()) for frame in video) <= 4
