import numpy as np
import pytest

from sonic_ms.edge.idle import idle_motion
from sonic_ms.edge.rig import POSE


def blinks(pose):
    closed = pose[:, POSE.index("blink")] > 0.5
    starts = np.flatnonzero(closed[1:] & ~closed[:-1]) + 1
    return starts, [int(np.argmin(closed[start:])) for start in starts]


def test_scale_zero_is_perfectly_still():
    assert not idle_motion(100, 0, np.random.default_rng(0).random(100), 0).any()


def test_same_seed_same_motion_other_seed_other_motion():
    envelope = np.zeros(250)
    one = idle_motion(250, 7, envelope, 1.0)
    assert np.array_equal(one, idle_motion(250, 7, envelope, 1.0))
    assert not np.array_equal(one, idle_motion(250, 8, envelope, 1.0))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_blinks_come_at_a_human_rate_and_length(seed):
    pose = idle_motion(25 * 120, seed, np.zeros(25 * 120), 1.0)
    starts, lengths = blinks(pose)
    assert 10 <= len(starts) / 2 <= 25  # a minute
    assert all(2 <= length <= 8 for length in lengths)


def test_head_motion_is_small_smooth_and_starts_at_the_photo():
    pose = idle_motion(1000, 3, np.zeros(1000), 1.0)
    shift = pose[:, :2]
    assert np.abs(shift[0]).max() == 0
    assert 0.004 < np.abs(shift).max() < 0.03
    assert np.abs(np.diff(shift, axis=0)).max() < 0.002


def test_scale_scales_the_head_but_not_the_lids():
    envelope = np.zeros(500)
    one, two = idle_motion(500, 5, envelope, 1.0), idle_motion(500, 5, envelope, 2.0)
    np.testing.assert_allclose(two[:, 0], 2 * one[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(two[:, 4], one[:, 4])
