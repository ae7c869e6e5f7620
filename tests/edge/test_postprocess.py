import numpy as np
import pytest

from sonic_ms.edge.curves import JAW, OPEN
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.postprocess import (
    correct_lag,
    follow_loudness,
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


def test_silence_is_exactly_the_resting_mouth_and_speech_is_untouched():
    curves = np.ones((30, 8), np.float32)
    voiced = np.zeros(30, bool)
    voiced[10:20] = True
    result = rest_in_silence(curves, voiced)
    assert np.all(result[:8] == 0) and np.all(result[23:] == 0)
    assert np.all(result[10:20] == 1)
    assert 0 < result[9, OPEN] < 1  # opens a little before the voice


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


def test_loud_syllables_open_wider_and_closures_stay():
    curves = np.full((3, 8), 0.5, np.float32)
    curves[2, OPEN] = -0.2
    result = follow_loudness(curves, np.array([1.0, 0.2, 0.2]))
    assert result[0, OPEN] > 2 * result[1, OPEN] > 0
    assert result[2, OPEN] == pytest.approx(-0.2)
    assert curves[0, OPEN] == 0.5  # the input is not changed


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
