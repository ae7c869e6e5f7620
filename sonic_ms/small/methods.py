"""When masks change and how: SET, RigL, SRigL, gradual magnitude pruning and GraNet on NumPy arrays.

Masks are judged by units (patterns.py). A change drops the weakest units of a layer and grows as many others; which,
is what the methods differ in. What was dropped cannot be grown in the same change.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from sonic_ms.errors import UsageError
from sonic_ms.small.patterns import largest
from sonic_ms.small.settings import GRADUAL


@dataclass(frozen=True)
class Layer:
    """weights, mask (bool) and gradients, of one shape; density that the layer ends with."""

    weights: np.ndarray
    mask: np.ndarray
    gradients: np.ndarray | None
    density: float


def rng_of(seed, step, name):
    """Generator that is a function of the three: a resumed training draws what the whole one would."""
    return np.random.default_rng([seed, step, zlib.crc32(name.encode())])


def density_of(masks):
    """Share of all weights that {name: mask} keep."""
    return float(sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values()))


def initial_masks(layers, config, pattern):
    """{name: mask} to begin with: of random weights, or of the largest ones (start: magnitude)."""
    if config.method == "gmp":
        return {name: np.ones(layer.weights.shape, bool) for name, layer in layers.items()}
    masks, scale = {}, config.first_density if config.method == "granet" else config.density
    for name, layer in layers.items():
        shape = layer.weights.shape
        scores = np.abs(layer.weights)
        if config.start == "random":
            scores = rng_of(config.seed, 0, name).random(shape)
        scores = pattern.units(scores)
        density = min(1.0, layer.density * scale / config.density)
        masks[name] = pattern.expand(largest(scores, pattern.kept(shape, density)), shape)
    return masks


def span(config, steps):
    """First and last step between which masks change: the last is one at which they do."""
    return config.begin * steps, int(config.end * steps) // config.every * config.every


def check_schedule(config, steps):
    """Raise UsageError for a gradual method that would never prune."""
    first, last = span(config, steps)
    if config.method in GRADUAL and last <= first:
        raise UsageError(
            f"sparsity: every is {config.every}, so {config.method} prunes nothing between steps {first:g} and "
            f"{config.end * steps:g}; take a smaller one"
        )


def on_schedule(config, step, steps):
    """Whether step 0, 1, ... is one at which a method may change masks."""
    first, last = span(config, steps)
    return config.method != "static" and step > 0 and step % config.every == 0 and first <= step <= last


def drop_fraction(config, step, steps):
    """Share of the active units that a change replaces: from `drop` to 0 at the last change, a cosine."""
    return config.drop / 2 * (1 + np.cos(np.pi * step / span(config, steps)[1]))


def progress(config, step, steps):
    """How far gradual pruning is, 0 to 1: cubic (Zhu and Gupta 2017)."""
    first, last = span(config, steps)
    return 1 - (1 - np.clip((step - first) / (last - first), 0, 1)) ** 3


def will_change(masks, config, pattern, step, steps):
    """Whether the change on schedule at this step would change any of {name: mask}."""
    if config.method in GRADUAL:
        return True
    fraction = drop_fraction(config, step, steps)
    return any(swaps(pattern.units(mask.astype(np.float32)) > 0, fraction).any() for mask in masks.values())


def swaps(active, fraction):
    """Units to replace in every row of `active` (rows, units)."""
    count = active.sum(1)
    return np.minimum(np.round(fraction * count), active.shape[1] - count).astype(int)


def next_masks(layers, config, pattern, step, steps):
    """{name: mask} after the change at this step; layers: {name: Layer}."""
    if config.method == "gmp":
        return _gradual(layers, pattern, progress(config, step, steps))
    masks = {name: layer.mask for name, layer in layers.items()}
    if config.method == "granet":
        share = progress(config, step, steps)
        masks = _prune_globally(layers, config.first_density + share * (config.density - config.first_density))
    if config.method == "srigl":
        masks = _ablate(layers, config, drop_fraction(config, step, steps))
    found = {}
    for name, layer in layers.items():
        if config.method == "set":
            growth = rng_of(config.seed, step, name).random(layer.weights.shape)
        else:
            growth = np.abs(layer.gradients)
        fraction = drop_fraction(config, step, steps)
        found[name] = drop_and_grow(np.abs(layer.weights), growth, masks[name], layer.mask, pattern, fraction)
    return found


def drop_and_grow(strength, growth, mask, before, pattern, fraction):
    """A mask with `fraction` of its weakest units replaced by those of the largest growth that were not active
    `before`."""
    active = pattern.units(mask.astype(np.float32)) > 0
    free = ~active & ~(pattern.units(before.astype(np.float32)) > 0)
    strength, growth = pattern.units(strength), pattern.units(growth)
    result = np.zeros_like(active)
    count = np.minimum(swaps(active, fraction), free.sum(1))
    for row, number in enumerate(count):  # rows differ only where neurons were ablated
        weak = np.argsort(np.where(active[row], strength[row], np.inf), kind="stable")[:number]
        strong = np.argsort(np.where(free[row], -growth[row], np.inf), kind="stable")[:number]
        result[row] = active[row]
        result[row, weak], result[row, strong] = False, True
    return pattern.expand(result, mask.shape)


def _gradual(layers, pattern, share):
    """Per layer the largest weights, of a density that falls from 1 to its last."""
    found = {}
    for name, layer in layers.items():
        shape = layer.weights.shape
        scores = np.where(layer.mask, np.abs(layer.weights), -1)
        count = pattern.kept(shape, 1 - share * (1 - layer.density))
        found[name] = pattern.expand(largest(pattern.units(scores), count), shape)
    return found


def _prune_globally(layers, density):
    """The largest weights of all layers together, of those active."""
    scores = np.concatenate([np.where(layer.mask, np.abs(layer.weights), -1).ravel() for layer in layers.values()])
    count = round(density * scores.size)
    kept = largest(scores[None], min(count, int((scores >= 0).sum())))[0]
    found, first = {}, 0
    for name, layer in layers.items():
        mask = kept[first : first + layer.mask.size].reshape(layer.mask.shape)
        found[name], first = mask, first + layer.mask.size
    return found


def _ablate(layers, config, fraction):
    """SRigL (Lasby et al. 2024): a neuron with less than `ablate` of its fan-in among the strongest weights, or those
    that would grow, is left out; the others share its connections. The last layer keeps all of its neurons."""
    found, last = {}, list(layers)[-1]
    for name, layer in layers.items():
        rows = layer.mask.reshape(len(layer.mask), -1)
        total, alive = int(rows.sum()), rows.any(1)
        moved = round(fraction * total)
        strong = largest(np.where(rows, np.abs(layer.weights).reshape(rows.shape), -1).reshape(1, -1), total - moved)
        grown = np.where(rows, -1, np.abs(layer.gradients).reshape(rows.shape)).reshape(1, -1)
        salient = (strong | largest(grown, moved)).reshape(rows.shape).sum(1)
        keep = alive & (salient >= config.ablate * total / alive.sum())
        if name == last or not keep.any():
            keep = alive
        fan_in = min(rows.shape[1], round(total / keep.sum()))
        scores = np.where(rows, 1e9 + np.abs(layer.weights).reshape(rows.shape), grown.reshape(rows.shape))
        found[name] = (largest(scores, fan_in) & keep[:, None]).reshape(layer.mask.shape)
    return found
