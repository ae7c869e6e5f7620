import numpy as np
import pytest

from sonic_ms.edge.curves import CURVES, JAW, LOWER, OPEN, ROUND, WIDTH
from sonic_ms.train.edge.articulation import SHAPE_OF, articulation_curves, symbols
from sonic_ms.train.edge.speech import Phone


def phones(*items, length=0.12, start=0.4):
    result, now = [Phone("", 0.0, start)], start
    for ipa in items:
        result.append(Phone(ipa, now, now + length))
        now += length
    return (*result, Phone("", now, now + 0.4)), [int((start + (i + 0.5) * length) * 25) for i in range(len(items))]


def curves_of(*items, length=0.12):
    spoken, middles = phones(*items, length=length)
    return articulation_curves(spoken, round(spoken[-1].end * 25)), middles


def test_lips_close_for_bilabials_and_open_for_open_vowels():
    curves, (a1, m, a2) = curves_of("ɑː", "m", "a")
    assert curves[m, OPEN] < 0 < 0.5 < min(curves[a1, OPEN], curves[a2, OPEN])


def test_short_closures_between_vowels_survive_at_25_frames_a_second():
    spoken, _ = phones("a", "b", "a", length=0.07)
    curves = articulation_curves(spoken, round(spoken[-1].end * 25))
    assert curves[:, OPEN].min() < 0.05 and curves[:, OPEN].max() > 0.4


def test_rounding_width_and_tucked_lip():
    curves, (u, i, f) = curves_of("uː", "iː", "f")
    assert curves[u, ROUND] > 0.6 and curves[u, WIDTH] < -0.3
    assert curves[i, WIDTH] > 0.3  # between a rounded and a neutral neighbour
    assert curves[f, LOWER] > 0.6


def test_weak_consonants_take_the_shape_of_their_neighbours():
    rounded, (_, k1, _) = curves_of("uː", "k", "uː")
    spread, (_, k2, _) = curves_of("iː", "k", "iː")
    assert rounded[k1, ROUND] > 0.3 > spread[k2, ROUND]


def test_the_mouth_rests_before_between_and_after():
    curves, _ = curves_of("a")
    assert np.abs(curves[:5]).max() < 0.08 and np.abs(curves[-4:]).max() < 0.08


def test_jaw_is_slower_than_the_lips():
    curves, (_, p, _) = curves_of("ɑ", "p", "ɑ")
    assert curves[p, OPEN] < 0 < curves[p, JAW]


@pytest.mark.parametrize(("ipa", "expected"), [("aɪ", ["a", "ɪ"]), ("tʃ", ["t", "ʃ"]), ("", []), ("ʔ˥", ["ʔ"])])
def test_symbols(ipa, expected):
    assert symbols(ipa) == expected


def test_every_shape_has_all_curves_in_range():
    for targets, alpha, theta in SHAPE_OF.values():
        assert len(targets) == len(CURVES) and alpha > 0 and theta > 0
        assert all(-1 <= value <= 1 for value in targets)
