"""Patterns, densities and FLOPs: NumPy alone."""

import numpy as np
import pytest

from sonic_ms.small.density import erk, forward_flops, training_flops, uniform
from sonic_ms.small.methods import Layer, initial_masks
from sonic_ms.small.patterns import parse_pattern
from sonic_ms.small.settings import SparsityConfig

SHAPE = (8, 12, 3, 3)
PAINTER = {
    "down1.0": (24, 24, 3, 3), "down1.1": (24, 24, 3, 3), "down2.0": (48, 24, 3, 3), "down2.1": (48, 48, 3, 3),
    "down3.0": (64, 48, 3, 3), "down3.1": (64, 64, 3, 3), "down3.2": (64, 64, 3, 3), "up2": (48, 112, 3, 3),
    "up1.0": (24, 72, 3, 3), "up1.1": (24, 24, 3, 3), "leave": (16, 24, 3, 3),
}  # fmt: skip


def mask_of(pattern, density=0.5, start="random"):
    layer = Layer(np.random.default_rng(0).standard_normal(SHAPE), np.ones(SHAPE, bool), None, density)
    config = SparsityConfig(density=density, pattern=pattern, start=start)
    return initial_masks({"a": layer}, config, parse_pattern(pattern))["a"], layer.weights


def test_every_pattern_keeps_what_it_says():
    assert mask_of("unstructured", 0.3)[0].sum() == round(0.3 * np.prod(SHAPE))
    assert set(mask_of("fan_in", 0.25)[0].reshape(8, -1).sum(1)) == {27}
    rows = mask_of("channel")[0].reshape(8, -1)
    assert rows.any(1).sum() == 4 and (rows.all(1) == rows.any(1)).all()
    blocks = mask_of("block 4x2")[0].reshape(2, 4, 6, 2, 3, 3)
    assert (blocks.all((1, 3)) == blocks.any((1, 3))).all() and blocks.mean() == 0.5
    fours = np.moveaxis(mask_of("2:4")[0], 1, -1).reshape(-1, 4)
    assert set(fours.sum(1)) == {2}


@pytest.mark.parametrize("pattern", ["unstructured", "fan_in", "channel", "block 4x2", "2:4"])
def test_units_and_weights_are_the_same_masks(pattern):
    mask, _ = mask_of(pattern)
    one = parse_pattern(pattern)
    units = one.units(mask.astype(np.float32))
    assert np.array_equal(one.expand(units > 0, SHAPE), mask) and len(np.unique(units)) == 2


def test_magnitude_keeps_the_largest():
    mask, weights = mask_of("unstructured", 0.2, "magnitude")
    assert np.abs(weights[mask]).min() > np.abs(weights[~mask]).max()


def test_erk_and_its_flops():
    """The painter's, worked out by hand from the formula: .286 and .143 of the dense work."""
    work = {name: np.prod(shape) * pixels for (name, shape), pixels in zip(PAINTER.items(), (
        3072, 3072, 768, 768, 192, 192, 192, 768, 3072, 3072, 3072))}  # fmt: skip
    counts = {name: np.prod(shape) for name, shape in PAINTER.items()}
    total = sum(work.values())
    assert sum(counts.values()) == 215_424 and total == pytest.approx(186.7e6, rel=1e-3)
    for density, share in ((0.2, 0.286), (0.1, 0.143), (0.05, 0.072)):
        densities = erk(PAINTER, density)
        assert sum(densities[name] * counts[name] for name in counts) == pytest.approx(density * 215_424)
        assert forward_flops(work, densities) / total == pytest.approx(share, abs=6e-4)
    assert {name for name, one in erk(PAINTER, 0.5).items() if one == 1} == {"down1.0", "down1.1", "up1.1", "leave"}
    for density, share in ((0.2, 0.268), (0.1, 0.177), (0.05, 0.131)):
        assert forward_flops(work, uniform(PAINTER, density)) / total == pytest.approx(share, abs=6e-4)
    rigl = training_flops("rigl", work, erk(PAINTER, 0.2), 100, 100) / (100 * 3 * total)
    assert rigl == pytest.approx(0.289, abs=6e-4)
    assert training_flops("static", work, erk(PAINTER, 0.2), 7, 100) == pytest.approx(7 * 3 * 0.2861 * total, rel=2e-3)
    assert training_flops("gmp", work, {}, 2, 1, path=(1.0, 0.5)) == pytest.approx(5 * total)
