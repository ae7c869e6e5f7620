"""Masks in the state of the optimizer, in the style of JaxPruner (Lee et al. 2024): the trainer asks at every step.

The gradients outside a mask are dropped before their norm is taken. With weight, moments and average zero there,
AdamW leaves them zero, so masks cost nothing else. A step at which masks change (methods.py) reads the gradients of
all weights and moves none. Masks are in the checkpoints: nothing about them is kept on the host.
"""

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from sonic_ms.errors import UsageError, WeightsError
from sonic_ms.files.weights import TensorFile, summary, write_tensors
from sonic_ms.small.density import DISTRIBUTIONS
from sonic_ms.small.methods import (
    Layer,
    check_schedule,
    density_of,
    initial_masks,
    next_masks,
    on_schedule,
    will_change,
)
from sonic_ms.small.patterns import parse_pattern
from sonic_ms.train.loop.optimizer import zeros


def is_prunable(parameter):
    """Matrices and kernels are pruned; biases and normalisations are not."""
    return parameter.name.endswith("weight") and len(parameter.shape) >= 2


def keep_where(total, mask):
    return ops.assign(total, ops.select(mask > 0, total, ops.zeros_like(total)))


def companions(name):
    """Names that the bias and the normalisation of a layer's outputs have, given that of its weight."""
    layer = name.removesuffix("weight")
    block = layer.removesuffix("conv.")
    return f"{layer}bias", f"{block}norm.gamma", f"{block}norm.beta"


class MaskGradients(nn.Cell):
    """Clear the gradients' totals where the masks are 0."""

    def __init__(self, slots, masks):
        super().__init__()
        self.totals = ParameterTuple([slot.total for slot in slots])
        self.masks, self.each = ParameterTuple(masks), ops.HyperMap()

    def construct(self):
        self.each(keep_where, self.totals, self.masks)
        return 0


class Pruner:
    """Masks of a training with a SparsityConfig that is not dense; see `trainer.train`."""

    def __init__(self, config):
        self.config, self.pattern = config, parse_pattern(config.pattern)

    def attach(self, states, steps):
        """Make the first masks for the weights of optimizer.States and apply them; {name in a checkpoint: Parameter}.

        Raises UsageError for layers that the pattern does not fit or that do not exist, WeightsError for masks of
        another network.
        """
        self.slots = {slot.name: slot for slot in states.slots if is_prunable(slot.weight)}
        self.steps = steps
        check_schedule(self.config, steps)
        unknown = set(self.config.dense) - set(self.slots)
        if unknown or not self.slots:
            raise UsageError(
                f"sparsity: dense names {summary(sorted(unknown))}; expected some of {summary(self.slots)}"
            )
        spread = [name for name, slot in self.slots.items() if slot.parts > 1]
        if spread:
            raise UsageError("sparsity: masks need the whole weights on every device; leave loop.shard_optimizer out")
        for name in self.config.dense:
            del self.slots[name]
        ordered = {p.name: tuple(p.shape) for p in states.weights if p.name in self.slots}
        self.densities = DISTRIBUTIONS[self.config.distribution](ordered, self.config.density)
        for name, slot in self.slots.items():
            self.pattern.check(name, slot.weight.shape)
        # a channel without inputs must be 0 after its normalisation too, or it could not be cut out
        whole_rows = self.config.method == "srigl" or self.config.pattern == "channel"
        every = {slot.name: slot for slot in states.slots} if whole_rows else {}
        self.companions = {name: [every[n] for n in companions(name) if n in every] for name in self.slots}
        masks = self._given() if self.config.masks else initial_masks(self._layers(), self.config, self.pattern)
        self.masks, self.seen = {}, {}
        for name, mask in masks.items():
            slot = self.slots[name]
            self.masks[name] = Parameter(Tensor(mask.astype(np.float32)), name=f"mask.{name}", requires_grad=False)
            self.seen[name] = zeros(f"seen.{name}", slot.weight.shape)
            for other in self.companions[name]:
                ones = Tensor(np.ones(other.weight.shape, np.float32))
                self.masks[other.name] = Parameter(ones, name=f"mask.{other.name}", requires_grad=False)
            self._apply(name, mask, mask)
        masked = [*self.slots.values(), *(slot for slots in self.companions.values() for slot in slots)]
        self._mask_gradients = MaskGradients(masked, [self.masks[slot.name] for slot in masked])
        return {p.name: p for p in (*self.masks.values(), *self.seen.values())}

    def _given(self):
        return read_masks(self.config.masks, {name: tuple(slot.weight.shape) for name, slot in self.slots.items()})

    def _layers(self, gradients=False):
        """{name: methods.Layer} as NumPy arrays."""
        return {
            name: Layer(
                slot.master.asnumpy(),
                self.masks[name].asnumpy() > 0 if hasattr(self, "masks") else np.ones(slot.weight.shape, bool),
                slot.total.asnumpy() if gradients else None,
                self.densities[name],
            )
            for name, slot in self.slots.items()
        }

    def _apply(self, name, mask, kept):
        """Store a new mask. Everything outside `kept`, the weights that were active and still are, begins at zero."""
        self._clear(self.slots[name], kept)
        ops.assign(self.masks[name], Tensor(mask.astype(np.float32)))
        ops.assign(self.seen[name], Tensor(np.maximum(self.seen[name].asnumpy(), mask).astype(np.float32)))
        alive = mask.reshape(len(mask), -1).any(1)
        for other in self.companions[name]:
            self._clear(other, alive)
            ops.assign(self.masks[other.name], Tensor(alive.astype(np.float32)))

    def _clear(self, slot, kept):
        for state in (slot.master, slot.weight, slot.first_moment, slot.second_moment, slot.average):
            if state is not None:
                values = np.where(kept, state.asnumpy(), 0).astype(state.asnumpy().dtype)
                ops.assign(state, Tensor(values))

    def changes(self, step):
        """Whether masks change at step 0, 1, ... in place of an update."""
        return on_schedule(self.config, step, self.steps) and will_change(
            self.arrays(), self.config, self.pattern, step, self.steps
        )

    def mask_gradients(self):
        self._mask_gradients()

    def change(self, step):
        """New masks from weights and the gradients of all weights."""
        layers = self._layers(gradients=True)
        for name, mask in next_masks(layers, self.config, self.pattern, step, self.steps).items():
            self._apply(name, mask, mask & layers[name].mask)

    def arrays(self):
        """{name: boolean mask}."""
        return {name: self.masks[name].asnumpy() > 0 for name in self.slots}

    def figures(self):
        """What a report says: density now, share of weights that were ever active (Liu et al. 2021)."""
        seen = sum(one.asnumpy().sum() for one in self.seen.values())
        return {
            "density": density_of(self.arrays()),
            "explored": float(seen / sum(one.size for one in self.seen.values())),
        }


def write_masks(path, masks):
    """Write {name: boolean array} as a safetensors file of bytes."""
    entries = [(name, "U8", mask.shape, lambda mask=mask: mask.astype(np.uint8)) for name, mask in masks.items()]
    write_tensors(path, entries, {"format": "masks"})


def read_masks(path, shapes):
    """{name: boolean array} of a file, for weights of these names and shapes. Raises WeightsError."""
    with TensorFile(path) as file:
        wrong = [name for name in shapes if file.shapes.get(name) != shapes[name] or file.dtypes[name] != "U8"]
        wrong += [name for name in file.shapes if name not in shapes]
        if wrong:
            raise WeightsError(f"{path} has masks of another model: {summary(wrong)}; train from a mask of this one")
        return {name: file.read(name) > 0 for name in shapes}
