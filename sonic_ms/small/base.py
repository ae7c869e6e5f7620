"""Recipe base_sparse: base_finetune of sonic-base with masks on the matrices and kernels that it trains.

The written folder is a converted model like any other, with zeros where the masks are: generate, export and the engines
take it as it is. What that does to videos at full size is not known: it was run on tiny random networks only.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from sonic_ms.files.digest import sha256_of
from sonic_ms.small.pruner import Pruner, write_masks
from sonic_ms.small.settings import SparsityConfig
from sonic_ms.train.base.finetune import BaseFinetuneConfig, finetune
from sonic_ms.train.loop.distributed import join


@dataclass(frozen=True)
class BaseSparseConfig:
    """finetune: everything of base_finetune. sparsity: of the trained parts; frozen weights stay as they are."""

    finetune: BaseFinetuneConfig
    sparsity: SparsityConfig


def run(config, folder, resume=False):
    """Train on the shards and write folder/model and folder/masks.safetensors; the last row of the log."""
    from sonic_ms.data.samples import Shards

    return train_sparse(config, Shards(config.finetune.shards), folder, resume, join())


def train_sparse(config, samples, folder, resume=False, group=None):
    """`run` on samples that are at hand, see finetune."""
    if config.sparsity.is_dense:
        return finetune(config.finetune, samples, folder, resume, group)
    pruner, known = Pruner(config.sparsity), {"sparsity": asdict(config.sparsity)}
    if config.sparsity.masks:
        known["masks"] = sha256_of(config.sparsity.masks)
    last = finetune(config.finetune, samples, folder, resume, group, pruner, known)
    write_masks(Path(folder) / "masks.safetensors", pruner.arrays())
    return last | pruner.figures()
