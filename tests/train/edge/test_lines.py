import numpy as np
import pytest

from sonic_ms.train.edge.lines import Classes, Components, Sums, apply, balanced, context, fold, logistic, ridge


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_context_repeats_the_ends_of_each_recording():
    rows = np.arange(5.0)[:, None]
    wide = context(rows, np.array([3, 2]))
    assert wide[0].tolist() == [0, 0, 0, 1, 2] and wide[2].tolist() == [0, 1, 2, 2, 2]
    assert wide[3].tolist() == [3, 3, 3, 4, 4]


def test_a_folded_line_is_the_line(rng):
    features = rng.normal(3, 2, (60, 12))
    components = Components.of(features, np.ones(60), 7)
    slopes, bias = rng.normal(size=(35, 2)), rng.normal(size=2)
    expected = context(components(features), np.array([60])) @ slopes + bias
    np.testing.assert_allclose(apply(fold(components, slopes, bias), features), expected, atol=1e-9)


def test_ridge_finds_the_line_and_sums_add_up(rng):
    inputs, weights = rng.normal(1, 1, (300, 4)), rng.uniform(0.5, 2, 300)
    targets = inputs @ rng.normal(size=(4, 2)) + (3.0, -1.0)
    both = Sums.of(inputs[:100], targets[:100], weights[:100]) + Sums.of(inputs[100:], targets[100:], weights[100:])
    slopes, bias = ridge(both.moments(), 1e-9)
    np.testing.assert_allclose(inputs @ slopes + bias, targets, atol=1e-6)


def test_what_is_rehearsed_bends_the_slope_but_not_the_level(rng):
    inputs = rng.normal(2, 1, (500, 1))
    real, other = Sums.of(inputs, inputs).moments(), Sums.of(inputs - 5, 3 * inputs + 40).moments()
    slopes, bias = ridge(real, 1e-9, other, 1.0)
    assert slopes[0, 0] == pytest.approx(2, abs=1e-6)  # half way between 1 and 3
    assert inputs.mean() * slopes[0, 0] + bias[0] == pytest.approx(inputs.mean())


def test_logistic_finds_the_odds(rng):
    inputs = rng.normal(size=(4000, 2)) * (1, 5)
    labels = rng.random(4000) < 1 / (1 + np.exp(-(2 * inputs[:, 0] - 1)))
    slopes, bias = logistic(inputs, labels, 1e-6)
    assert slopes == pytest.approx([2, 0], abs=0.2) and bias == pytest.approx(-1, abs=0.2)


def test_classes_know_what_they_were_shown(rng):
    middles = rng.normal(0, 4, (5, 6))
    labels = rng.integers(0, 4, 800)  # the fifth class is never shown
    shares = Classes(middles[labels] + rng.normal(size=(800, 6)), labels, 5).posterior(middles[:4])
    assert shares.argmax(1).tolist() == [0, 1, 2, 3] and shares.sum(1) == pytest.approx(1)
    assert shares[:, 4].max() < 1e-6


def test_speakers_with_many_rows_count_less_a_row():
    assert balanced(np.array(["a", "b", "a", "a", "a"])).tolist() == [0.5, 1, 0.5, 0.5, 0.5]
