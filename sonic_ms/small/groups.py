"""Which weights of the painter belong to one channel, and the painter without some of them.

The painter has no sums of branches, so each of its ten blocks is a group of its own: a block's rows, its bias and
normalisation, and the columns of every convolution that reads it. Cutting is exact where the channel is 0 after its
ReLU, that is where scale and shift of its normalisation are 0; anywhere else it is an approximation to be trained on.
"""

import numpy as np

from sonic_ms.edge.renderer import BLOCKS, FEATURES, PainterConfig
from sonic_ms.errors import UsageError

# block -> (convolution that reads it, which comes first in its input) for each reader
READERS = {
    "down1.0": (("down1.1", None),),
    "down1.1": (("down2.0", None), ("up1.0", "up2")),
    "down2.0": (("down2.1", None),),
    "down2.1": (("down3.0", None), ("up2", "down3.2")),
    "down3.0": (("down3.1", None),),
    "down3.1": (("down3.2", None),),
    "down3.2": (("up2", None),),
    "up2": (("up1.0", None),),
    "up1.0": (("up1.1", None),),
    "up1.1": (("leave", None),),
}


def conv_name(layer):
    """Prefix of a layer's convolution among the painter's tensors."""
    return layer if layer == "leave" else f"{layer}.conv"


def cut(tensors, config, keep):
    """(PainterConfig, {name: array}) of the painter without the channels that are not kept.

    tensors: {name: array} of a stored painter; keep: {block: indices of channels}, blocks left out keep all. Raises
    UsageError for a block without channels.
    """
    counts = dict(zip(BLOCKS, config.blocks()))
    keep = {block: np.asarray(keep.get(block, np.arange(counts[block]))) for block in BLOCKS}
    empty = [block for block, indices in keep.items() if len(indices) == 0]
    if empty:
        raise UsageError(f"block {empty[0]} would keep no channel; keep at least one")
    found = dict(tensors)
    for block, indices in keep.items():
        for part in ("conv.weight", "conv.bias", "norm.gamma", "norm.beta", "norm.moving_mean", "norm.moving_variance"):
            found[f"{block}.{part}"] = found[f"{block}.{part}"][indices]
    for layer in (*BLOCKS, "leave"):
        name = f"{conv_name(layer)}.weight"
        found[name] = np.ascontiguousarray(found[name][:, _inputs(layer, keep, counts)])
    return sized([len(keep[block]) for block in BLOCKS]), found


def _inputs(layer, keep, counts):
    """Columns that a layer keeps, its input being one block's channels or two blocks' one after the other."""
    columns, first = [], 0
    for block in inputs_of(layer):
        columns.append(keep[block] + first)
        first += counts[block]
    return np.concatenate(columns) if columns else np.arange(FEATURES)


def inputs_of(layer):
    """Blocks whose channels a layer reads, in order; none for the first, which reads the features."""
    found = [(before is not None, block) for block, readers in READERS.items() for name, before in readers
             if name == layer]  # fmt: skip
    return [block for _, block in sorted(found, key=lambda pair: pair[0])]


def sized(channels):
    """PainterConfig of ten channel counts, as `widths` where three numbers say it."""
    tied = PainterConfig((channels[0], channels[2], channels[4]))
    return tied if tied.blocks() == tuple(channels) else PainterConfig(tied.widths, tuple(channels))


def live_channels(tensors):
    """{block: indices of the channels that are not always 0}."""
    return {
        block: np.flatnonzero((tensors[f"{block}.norm.gamma"] != 0) | (tensors[f"{block}.norm.beta"] != 0))
        for block in BLOCKS
    }


def strength(tensors, block):
    """How much a channel matters, (channels,): the L1 norm of its rows, scaled by its normalisation, times that of the
    columns that read it, each relative to the mean of its layer."""
    scale = np.abs(tensors[f"{block}.norm.gamma"]) / np.sqrt(tensors[f"{block}.norm.moving_variance"] + 1e-5)
    rows = np.abs(tensors[f"{block}.conv.weight"]).sum((1, 2, 3)) * scale
    total = rows / max(rows.mean(), 1e-12)
    counts = {name: len(tensors[f"{name}.norm.gamma"]) for name in BLOCKS}
    for reader, before in READERS[block]:
        columns = np.abs(tensors[f"{conv_name(reader)}.weight"]).sum((0, 2, 3))
        first = counts[before] if before else 0
        columns = columns[first : first + counts[block]]
        total = total * columns / max(columns.mean(), 1e-12)
    return total


def choose(tensors, channels, rng=None):
    """{block: indices, ascending} of the strongest channels, or of random ones. channels: ten counts to keep."""
    keep = {}
    for block, count in zip(BLOCKS, channels):
        have = len(tensors[f"{block}.norm.gamma"])
        if not 1 <= count <= have:
            raise UsageError(f"block {block} has {have} channels, so it cannot keep {count}; take 1 to {have}")
        order = rng.permutation(have) if rng else np.argsort(-strength(tensors, block), kind="stable")
        keep[block] = np.sort(order[:count])
    return keep
