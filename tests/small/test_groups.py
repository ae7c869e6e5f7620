"""The painter's channels: cut painters compute what masked ones do."""

import numpy as np
import pytest
from mindspore import Tensor

from sonic_ms.edge.renderer import BLOCKS, FEATURES, Painter, PainterConfig
from sonic_ms.edge.units import EDGE_FOLDER
from sonic_ms.errors import UsageError, WeightsError
from sonic_ms.files.weights import load_weights
from sonic_ms.small.groups import choose, cut, live_channels, sized

pytestmark = [pytest.mark.slow]

TIED = PainterConfig((8, 12, 16))


@pytest.fixture(scope="module")
def tensors():
    """Of a painter whose normalisations have seen something."""
    rng = np.random.default_rng(0)
    painter = Painter(TIED)
    found = {}
    for name, parameter in painter.parameters_and_names():
        shape = tuple(parameter.shape)
        found[name] = rng.uniform(0.5, 1.5, shape) if "norm" in name else rng.standard_normal(shape) * 0.2
    return {name: array.astype(np.float32) for name, array in found.items()}


def painted(config, tensors, features):
    painter = Painter(config).set_train(False)
    for name, parameter in painter.parameters_and_names():
        assert tuple(parameter.shape) == tensors[name].shape, name
        parameter.set_data(Tensor(tensors[name]))
    return painter(Tensor(features)).asnumpy()


def test_cut_is_masked(tensors):
    """Channels whose scale and shift are 0 can go, in every block at once, and nothing changes."""
    rng = np.random.default_rng(1)
    features = rng.uniform(-1, 1, (1, FEATURES, 96, 128)).astype(np.float32)
    counts = [max(1, n // 2 + i % 3) for i, n in enumerate(TIED.blocks())]
    keep = choose(tensors, counts, rng)
    masked = dict(tensors)
    for block, indices in keep.items():
        gone = np.setdiff1d(np.arange(len(tensors[f"{block}.norm.gamma"])), indices)
        for part in ("gamma", "beta"):
            masked[f"{block}.norm.{part}"] = masked[f"{block}.norm.{part}"].copy()
            masked[f"{block}.norm.{part}"][gone] = 0
    assert {block: list(indices) for block, indices in live_channels(masked).items()} == {
        block: list(indices) for block, indices in keep.items()
    }
    config, smaller = cut(masked, TIED, live_channels(masked))
    assert config.blocks() == tuple(counts) and config.channels
    expected = painted(TIED, masked, features)
    assert painted(config, smaller, features) == pytest.approx(expected, abs=2e-5)
    assert np.abs(expected - painted(TIED, tensors, features)).max() > 0.05


def test_the_strongest_channels_stay(tensors):
    louder = {name: array.copy() for name, array in tensors.items()}
    louder["down2.0.norm.gamma"][[3, 7]] *= 50
    assert list(choose(louder, [n if block != "down2.0" else 2 for n, block in zip(TIED.blocks(), BLOCKS)])["down2.0"]
                ) == [3, 7]  # fmt: skip
    read = {name: array.copy() for name, array in tensors.items()}
    read["up1.0.conv.weight"][:, 12 + 5] *= 500  # of the skip from down1.1, behind the channels of up2
    assert 5 in choose(read, [n if block != "down1.1" else 1 for n, block in zip(TIED.blocks(), BLOCKS)])["down1.1"]


def test_three_widths_say_it_where_they_can():
    assert sized([4, 4, 8, 8, 9, 9, 9, 8, 4, 4]) == PainterConfig((4, 8, 9))
    assert sized([4, 4, 8, 8, 9, 9, 9, 8, 4, 5]).blocks()[-1] == 5
    assert PainterConfig().blocks() == (16, 16, 32, 32, 48, 48, 48, 32, 16, 16)
    load_weights(Painter(sized(PainterConfig().blocks())), EDGE_FOLDER / "painter")


def test_what_cannot_be(tensors):
    with pytest.raises(UsageError, match=r"block down1.0 would keep no channel"):
        cut(tensors, TIED, {"down1.0": []})
    with pytest.raises(UsageError, match="has 8 channels, so it cannot keep 9"):
        choose(tensors, [9] * 10)
    with pytest.raises(WeightsError, match="expected 10 numbers"):
        PainterConfig(channels=(1, 2))
