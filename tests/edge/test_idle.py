import numpy as np
import pytest

from sonic_ms.edge.idle import idle_motion, pause_starts
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


def speech(seconds, said=2.4, quiet=0.6):
    """Loudness of phrases with pauses between them, and the frames at which the pauses begin."""
    period = round(25 * (said + quiet))
    return np.where(np.arange(25 * seconds) % period < round(25 * said), 0.5, 0.0)


def test_pauses_begin_where_a_phrase_ends():
    envelope = speech(9)
    envelope[30] = 0.0  # too short for a pause
    np.testing.assert_allclose(pause_starts(envelope), [2.4, 5.4, 8.4])
    assert len(pause_starts(np.zeros(100))) == 0


def test_people_who_speak_blink_in_their_pauses():
    envelope = speech(300)
    starts, lengths = blinks(idle_motion(len(envelope), 0, envelope, 1.0))
    in_pause = np.mean([envelope[start + 1] == 0 for start in starts])
    assert in_pause >= 0.5  # pauses are a fifth of the time
    assert 50 <= len(starts) <= 125 and max(lengths) <= 8
    assert np.diff(starts).min() >= 20


def test_brows_lead_a_stressed_word_and_the_head_follows_it():
    envelope = np.full(400, 0.2)
    envelope[195:206] = 1.0
    still = np.full(400, 0.2)
    change = np.mean([idle_motion(400, seed, envelope, 1.0) - idle_motion(400, seed, still, 1.0)
                      for seed in range(20)], axis=0)  # fmt: skip
    brow, nod = change[:, POSE.index("brow")], change[:, POSE.index("shift_y")]
    assert 194 <= np.argmax(brow) <= 199 and brow.max() > 0.1
    assert 201 <= np.argmax(nod) <= 206 and 0.003 < nod.max() < 0.02
