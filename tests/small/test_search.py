"""The search finds what enumeration finds; rank correlation; lines between networks; tickets."""

import numpy as np
import pytest

from sonic_ms.small.connectivity import barrier
from sonic_ms.small.search import candidates, crowding, evolve, kendall_tau, pareto, ranks
from sonic_ms.small.ticket import prune_masks, shuffled


def test_the_front_is_what_nobody_beats():
    scores = [(1, 5), (2, 2), (3, 3), (5, 1), (2, 2.5), (2, 2)]
    assert pareto(scores) == [0, 1, 5, 3]
    assert ranks(scores).tolist() == [0, 0, 2, 0, 1, 0]
    room = crowding([(0, 3), (1, 2), (3, 0)])
    assert np.isinf(room[[0, 2]]).all() and room[1] == pytest.approx(2.0)
    assert len(candidates()) == 105


def test_nsga_finds_the_front_that_enumeration_finds_within_a_budget():
    choices = ((8, 16, 24),) * 6

    def score(widths):
        return sum(w * (i + 1) for i, w in enumerate(widths)), sum(1 / w for w in widths)

    def over(widths):
        return max(0, sum(widths) - 96)

    allowed = [one for one in candidates(choices) if over(one) == 0]
    best = {score(allowed[i]) for i in pareto([score(one) for one in allowed])}
    found = evolve(choices, score, over, population=40, generations=30, seed=1)
    assert all(over(one) == 0 for one, _ in found)
    assert len({scores for _, scores in found} & best) >= 0.8 * len(best)
    costs = [scores[0] for _, scores in found]
    assert costs == sorted(costs)
    assert evolve(choices, score, over, population=40, generations=30, seed=1) == found


def test_kendall_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = rng.integers(0, 6, 9), rng.integers(0, 6, 9)
        assert kendall_tau(one, other) == pytest.approx(stats.kendalltau(one, other)[0])
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1 and kendall_tau([1, 1], [1, 2]) == 0


def test_a_barrier_is_what_the_line_rises():
    ends = ({"w": np.float32([-1, 0])}, {"w": np.float32([1, 0])})
    rise, losses = barrier(*ends, lambda w: 1 - float(w["w"][0]) ** 2)
    assert rise == pytest.approx(1) and len(losses) == 11
    assert barrier(*ends, lambda w: float((w["w"] ** 2).sum()))[0] == pytest.approx(0)


def test_a_ticket_keeps_the_largest_of_all_layers_that_are_left():
    rng = np.random.default_rng(0)
    weights = {"a": rng.standard_normal((8, 4)), "b": 0.1 * rng.standard_normal((8, 4))}
    masks = {"a": rng.random((8, 4)) < 0.7, "b": np.ones((8, 4), bool)}
    total = sum(m.sum() for m in masks.values())
    found = prune_masks(masks, weights, 0.5)
    assert sum(m.sum() for m in found.values()) == round(0.5 * total)
    assert all((found[n] <= masks[n]).all() for n in masks)
    kept = np.concatenate([np.abs(weights[n][found[n]]) for n in masks])
    gone = np.concatenate([np.abs(weights[n][masks[n] & ~found[n]]) for n in masks])
    assert kept.min() >= gone.max() and found["a"].sum() > found["b"].sum()
    mixed = shuffled(found, 3)
    assert all(mixed[n].sum() == found[n].sum() for n in found)
    assert any((mixed[n] != found[n]).any() for n in found)
