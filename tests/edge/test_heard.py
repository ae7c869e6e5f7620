import numpy as np
import pytest

from sonic_ms.edge.curves import CURVES, JAW, OPEN, ROUND, WIDTH
from sonic_ms.edge.heard import CLOSURE, HEARD, PERCENTILES, REAL_OPENING, WIDE, curves_of, heard_of, press, stretch
from sonic_ms.edge.units import audio_config

CONFIG = audio_config()


def test_openings_get_the_spread_of_real_mouths():
    shown = stretch(np.array(CONFIG.opening), CONFIG.opening)
    assert shown == pytest.approx(REAL_OPENING)
    rising = stretch(np.linspace(-1, 3, 500), CONFIG.opening)
    assert rising[0] == 0 and np.all(np.diff(rising) >= 0)
    assert rising[-1] < 1.35 + 0.8  # what no mouth was heard to do stays within reason


def test_quantiles_rise():
    assert len(CONFIG.opening) == len(PERCENTILES) and np.all(np.diff(CONFIG.opening) > 0)


def test_a_closure_takes_two_frames_and_the_other_neighbour_half():
    curves = np.zeros((7, 8), np.float32)
    curves[:, OPEN] = 0.4
    odds = np.array([-9, -9, -2, 1, 0, -9, -9.0])
    shown = press(curves, odds, -1.5)[:, OPEN]
    assert shown[3] < 0 and shown[4] == 0 and shown[2] == pytest.approx(0.24)
    assert shown[[0, 1, 5, 6]] == pytest.approx(0.4)
    assert curves[3, OPEN] == pytest.approx(0.4)  # the input is not changed


def test_weak_odds_and_the_ends_of_a_recording():
    curves = np.full((3, 8), 0.4, np.float32)
    assert np.array_equal(press(curves, np.full(3, -2.0), -1.5), curves)
    assert press(curves, np.array([3.0, -9, -9]), -1.5)[0, OPEN] < 0
    assert press(curves[:1], np.array([3.0]), -1.5)[0, OPEN] < 0


def test_curves_stay_in_their_ranges():
    heard = np.random.default_rng(0).normal(0, 2, (200, len(HEARD))).astype(np.float32)
    curves = curves_of(heard, CONFIG)
    assert curves.shape == (200, len(CURVES)) and curves.dtype == np.float32
    assert curves[:, JAW].min() >= 0 and curves[:, ROUND].min() >= 0 and curves[:, ROUND].max() <= 1
    assert np.abs(curves[:, WIDTH]).max() <= 1.5


def test_rows_for_given_curves():
    """The reverse of curves_of, where lips are open."""
    rng = np.random.default_rng(1)
    heard = rng.uniform(0, 1, (50, len(HEARD))).astype(np.float32)
    heard[:, CLOSURE] = -9
    curves = curves_of(heard, CONFIG)
    curves[:, OPEN], curves[:, WIDTH] = rng.uniform(0.02, 1.2 * WIDE, 50), rng.uniform(-1, 1, 50)
    again = curves_of(heard_of(curves, heard, CONFIG), CONFIG)
    np.testing.assert_allclose(again, curves, atol=1e-5)
