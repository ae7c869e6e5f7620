"""What the benches of smaller models try, and what they count."""

import numpy as np

from bench import small_heads, small_lookup
from sonic_ms.nn.groups import Group, columns, rows


def test_every_head_goes_once_and_shares_keep_the_strongest():
    weights = {"out": np.eye(4, dtype=np.float32) * [1, 4, 3, 2], "in": np.eye(4, dtype=np.float32)}
    groups = {"whisper.layers.0.heads": Group(4, rows("in") + columns("out"))}
    groups["whisper.layers.0.inner"] = groups["whisper.layers.0.heads"]
    found = dict(small_heads.arms(groups, weights.get))
    assert found["whole"] == {} and len(found) == 1 + 4 + 5
    for head in range(4):
        (kept,) = found[f"without layers.0.heads {head}"].values()
        assert sorted({*kept, head}) == [0, 1, 2, 3] and len(kept) == 3
    assert found["50% of the inner channels"]["whisper.layers.0.inner"].tolist() == [1, 2]


def test_multiply_adds_of_a_flow():
    """Two products a plane: 96 nodes to 256 pixels, of the square (two planes) and of the 72x96 patch (six)."""
    square = 96 * 96 * 256 + 256 * 96 * 256
    patch = 96 * 96 * 96 + 72 * 96 * 96
    assert small_lookup.enlarging(96, 256) == 2 * square + 6 * patch
