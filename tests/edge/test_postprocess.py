import numpy as np
import pytest

from sonic_ms.edge.curves import JAW, OPEN
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.postprocess import (
    REST,
    correct_lag,
    post_process,
    rest_in_silence,
    scale_mouth,
    shift_curves,
    smooth_curves,
)
from sonic_ms.media.lag import measure_lag


def opening_of(curves):
    return np.maximum(curves[:, OPEN], 0) + 0.5 * curves[:, JAW]


@pytest.fixture
def speech():
    """Syllables of random length: loudness, and a mouth that follows it exactly."""
    rng = np.random.default_rng(0)
    envelope = np.zeros(200)
    frame = 4
    while frame < 190:
        length = int(rng.integers(3, 8))
        envelope[frame : frame + length] = np.sin(np.pi * (np.arange(length) + 0.5) / length)[: 200 - frame]
        frame += length + int(rng.integers(1, 5))
    curves = np.zeros((200, 8), np.float32)
    curves[:, OPEN], curves[:, JAW] = 0.8 * envelope - 0.05, 0.5 * envelope
    return curves, envelope


@pytest.mark.parametrize("lag", [-5, -2, 0, 3, 2.4])
def test_lag_is_measured_in_whole_and_fractional_frames(speech, lag):
    curves, envelope = speech
    assert measure_lag(opening_of(shift_curves(curves, lag)), envelope)[0] == pytest.approx(lag, abs=0.3)


@pytest.mark.parametrize("lag", [-4, 2.5])
def test_correction_removes_a_lag(speech, lag):
    curves, envelope = speech
    corrected, moved = correct_lag(shift_curves(curves, lag), envelope)
    assert moved == pytest.approx(-lag, abs=0.3)
    assert abs(measure_lag(opening_of(corrected), envelope)[0]) < 0.3


def test_correction_leaves_good_sync_and_noise_alone(speech):
    curves, envelope = speech
    assert correct_lag(curves, envelope)[1] == 0
    noise = np.random.default_rng(1).random(200)
    assert correct_lag(curves, noise)[1] == 0


def test_a_lag_that_loudness_hardly_shows_is_left_alone(speech):
    """As real mouths are: of those in step with their sound, half follow loudness best at another lag."""
    curves, envelope = speech
    noise = 0.5 * np.roll(envelope, -4) + np.random.default_rng(3).random(200)
    lag, correlation = measure_lag(opening_of(curves), noise)
    assert abs(lag) > 1 and correlation >= 0.3  # the old rule would move it
    assert correct_lag(curves, noise)[1] == 0


def test_silence_is_exactly_the_resting_mouth_and_speech_is_untouched():
    curves = np.ones((50, 8), np.float32)
    voiced = np.zeros(50, bool)
    voiced[20:30] = True
    result = rest_in_silence(curves, voiced)
    assert np.all(result[:17] == 0) and np.all(result[33:] == 0)
    assert np.all(result[20:30] == 1)
    assert 0 < result[19, OPEN] < 1  # opens a little before the voice


@pytest.mark.parametrize(("pause", "rests"), [(REST - 1, False), (REST, True)])
def test_a_mouth_does_not_close_in_short_pauses(pause, rests):
    """Real mouths are not shut in pauses: gating all of them takes r from 0.76 to 0.67."""
    voiced = np.ones(40 + pause, bool)
    voiced[20 : 20 + pause] = False
    result = rest_in_silence(np.ones((len(voiced), 8), np.float32), voiced)
    assert (result.min() == 0) == rests


def test_smoothing_keeps_a_closure_of_one_frame():
    curves = np.full((9, 8), 0.6, np.float32)
    curves[4, OPEN] = -0.2
    smooth = smooth_curves(curves)
    assert smooth[4, OPEN] == pytest.approx(-0.2)
    assert smooth[3, OPEN] < 0.6


def test_strength_scales_openings_but_not_closures():
    curves = np.full((2, 8), 0.4, np.float32)
    curves[1, OPEN] = -0.2
    scaled = scale_mouth(curves, 1.5)
    assert scaled[0, OPEN] == pytest.approx(0.6) and scaled[1, OPEN] == pytest.approx(-0.2)


def test_loudness_does_not_open_the_mouth(speech):
    """Real mouths follow loudness at 0 to 0.4; what is heard already says how far they open."""
    curves, envelope = speech
    options = EdgeOptions(lip_sync_correction=False, smooth_motion=False)
    quiet, loud = (post_process(curves, np.ones(200, bool), level, options)[0] for level in (0.1 * envelope, envelope))
    np.testing.assert_array_equal(quiet, loud)


def test_align_offset_is_in_seconds_and_later_when_positive(speech):
    curves, envelope = speech
    options = EdgeOptions(align_offset=0.2, lip_sync_correction=False, smooth_motion=False)
    moved, _ = post_process(curves, np.ones(200, bool), envelope, options)
    assert measure_lag(opening_of(moved), envelope)[0] == pytest.approx(5, abs=0.3)


def test_the_users_offset_is_in_seconds_and_positive_is_later(speech):
    curves, envelope = speech
    voiced = np.ones(len(curves), bool)
    plain, later = (
        post_process(curves, voiced, envelope, EdgeOptions(align_offset=offset, smooth_motion=False))[0]
        for offset in (0.0, 0.4)
    )
    np.testing.assert_allclose(later[10:], plain[:-10], atol=1e-6)  # 0.4 s are 10 frames
