"""Recipe small_ticket: iterative magnitude pruning with rewinding (Frankle and Carbin 2019; Frankle et al. 2020).

Level 0 trains the dense painter and keeps its weights of step `rewind`. Every further level keeps the largest weights
of the one before, all layers together, goes back to the kept values, and trains again with the whole schedule. At the
last level two controls train as well, on the same number of weights in each layer: `reinit` from new random values,
`shuffle` with the places mixed within each layer. Where they do as well, no ticket was won: only densities mattered.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonic_ms.errors import UsageError
from sonic_ms.files.config import require
from sonic_ms.files.weights import MODEL_FILE, TensorFile
from sonic_ms.small import painter
from sonic_ms.small.methods import rng_of
from sonic_ms.small.patterns import largest
from sonic_ms.small.pruner import write_masks
from sonic_ms.small.record import FILE, read_record
from sonic_ms.small.settings import SparsityConfig
from sonic_ms.train.loop.trainer import LoopConfig

FRESH = 1000  # added to the seed of the control that begins anew
PREFIX = "paint.painter."  # of a weight's name in the training's loss


@dataclass(frozen=True)
class SmallTicketConfig:
    """levels: how often to prune, keeping `keep` of what is left each time. rewind: step whose weights are gone back
    to. drawings, faces: as of small_painter."""

    loop: LoopConfig
    levels: int = 3
    keep: float = 0.58
    rewind: int = 40
    drawings: str = "runs/drawings"
    faces: int = 1000

    def __post_init__(self):
        checks = (
            ("levels", self.levels >= 1, "at least 1"),
            ("keep", 0 < self.keep < 1, "between 0 and 1"),
            ("rewind", 0 < self.rewind < self.loop.steps, "a step of the training"),
        )
        require(self, checks)


def prune_masks(masks, weights, keep):
    """{name: mask} with `keep` of the weights that {name: mask} has, the largest of all layers together."""
    names = list(masks)
    scores = np.concatenate([np.where(masks[n], np.abs(weights[n]), -1).ravel() for n in names])
    kept = largest(scores[None], round(keep * int((scores >= 0).sum())))[0]
    found, first = {}, 0
    for name in names:
        size = masks[name].size
        found[name], first = kept[first : first + size].reshape(masks[name].shape), first + size
    return found


def shuffled(masks, seed):
    """{name: mask} with the places of each layer mixed."""
    return {name: rng_of(seed, 0, name).permutation(mask.ravel()).reshape(mask.shape) for name, mask in masks.items()}


def run(config, folder, resume=False):
    """Train all levels and controls below `folder`, a folder each; finished ones are left out, and --resume goes on in
    the one that was broken off. Writes small.json of the last level into each folder of the arms."""
    folder = Path(folder)
    begun = any(folder.glob("*/checkpoints/*"))
    if begun and not resume:
        raise UsageError(f"{folder} holds a training that was begun; go on with --resume, or start another --out")
    early = dataclasses.replace(config.loop, steps=config.rewind, schedule="constant")
    last = _arm(config, folder / "rewind", "rewind", early)
    last = _arm(config, folder / "level-0", "dense", config.loop, begin=folder / "rewind")
    masks = None
    for level in range(1, config.levels + 1):
        weights = _weights(folder / f"level-{level - 1}")
        masks = masks or {name: np.ones(array.shape, bool) for name, array in weights.items()}
        masks = prune_masks(masks, weights, config.keep)
        arm = "ticket" if level == config.levels else f"level {level}"
        last = _arm(config, folder / f"level-{level}", arm, config.loop, folder / "rewind", masks)
    fresh = dataclasses.replace(config.loop, seed=config.loop.seed + FRESH)
    _arm(config, folder / "reinit", "reinit", fresh, None, masks)
    _arm(config, folder / "shuffle", "shuffle", config.loop, folder / "rewind", shuffled(masks, config.loop.seed))
    return last


def _weights(folder):
    with TensorFile(folder / "painter" / MODEL_FILE) as file:
        return {name: np.float32(file.read(name)) for name in file.shapes if name.endswith("conv.weight")}


def _arm(config, folder, arm, loop, begin=None, masks=None):
    """One training of small_painter, unless it is finished; its last row."""
    if (folder / FILE).is_file():
        return read_record(folder).figures
    sparsity = SparsityConfig()
    if masks:
        folder.mkdir(parents=True, exist_ok=True)
        write_masks(folder / "given.safetensors", {PREFIX + name: mask for name, mask in masks.items()})
        sparsity = SparsityConfig(masks=str(folder / "given.safetensors"), dense=(f"{PREFIX}leave.weight",))
    one = painter.SmallPainterConfig(
        loop, arm, sparsity, config.drawings, config.faces, begin=str(begin) if begin else None
    )
    return painter.run(one, folder, any((folder / "checkpoints").glob("*")))
