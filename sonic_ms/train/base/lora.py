"""Low-rank adaptation (Hu et al. 2021): a frozen matrix W is trained as W + alpha / rank * up @ down."""

from dataclasses import dataclass

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sonic_ms.errors import UsageError
from sonic_ms.files.config import require


@dataclass(frozen=True)
class LoRAConfig:
    """targets: last names of the dense layers that are adapted, in every block (to_q, audio_key, proj_in, ...)."""

    rank: int = 16
    alpha: float = 16.0
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out", "audio_key", "audio_value")

    def __post_init__(self):
        checks = (("rank", self.rank >= 1, "at least 1"), ("alpha", self.alpha > 0, "above 0"))
        require(self, checks, "lora: ")


class LoRADense(nn.Cell):
    """A dense layer and its adaptation; starts as the layer itself, since `up` is zero."""

    def __init__(self, dense, name, config, rng):
        super().__init__()
        outputs, inputs = dense.weight.shape
        self.dense, self.scale = dense, config.alpha / config.rank
        down = rng.standard_normal((config.rank, inputs), np.float32) / np.float32(np.sqrt(inputs))
        up, width = np.zeros((outputs, config.rank), np.float32), dense.weight.dtype
        self.lora_down = Parameter(Tensor(down).astype(width), name=f"{name}.lora_down")
        self.lora_up = Parameter(Tensor(up).astype(width), name=f"{name}.lora_up")

    def construct(self, x):
        shape = x.shape
        low = ops.matmul(ops.reshape(x, (-1, shape[-1])), ops.transpose(self.lora_down, (1, 0)))  # (rows, rank)
        change = ops.matmul(low, ops.transpose(self.lora_up, (1, 0)))
        return self.dense(x) + self.scale * ops.reshape(change, (*shape[:-1], change.shape[-1]))

    def merged(self):
        """The plain dense layer with the adaptation added to its matrix."""
        change = self.scale * (self.lora_up.asnumpy().astype(np.float32) @ self.lora_down.asnumpy().astype(np.float32))
        weight = self.dense.weight
        weight.set_data(Tensor(weight.asnumpy().astype(np.float32) + change).astype(weight.dtype))
        return self.dense


def children(cell):
    """(parent, name of the child, child, full name) of every Cell inside, deepest last."""
    for path, inner in list(cell.cells_and_names()):
        if path:
            parent = cell
            *above, last = path.split(".")
            for part in above:
                parent = parent._cells[part]
            yield parent, last, inner, path


def add_lora(cell, config, seed):
    """Put LoRA on every target inside `cell`; returns the new Parameters. UsageError for a target that is nowhere."""
    rng, found, seen = np.random.default_rng([seed, 77]), [], set()
    for parent, name, child, path in children(cell):
        if name in config.targets and isinstance(child, nn.Dense):
            adapted = LoRADense(child, path, config, rng)
            setattr(parent, name, adapted)
            found += [adapted.lora_down, adapted.lora_up]
            seen.add(name)
    absent = sorted(set(config.targets) - seen)
    if absent:
        names = sorted({name for _, name, child, _ in children(cell) if isinstance(child, nn.Dense)})
        raise UsageError(f"lora: no dense layer is called {', '.join(absent)}; there are {', '.join(names)}")
    return found


def merge_lora(cell):
    """Fold every adaptation inside `cell` into its dense layer; the cell has its first layout again."""
    for parent, name, child, _ in children(cell):
        if isinstance(child, LoRADense):
            setattr(parent, name, child.merged())
    return cell
