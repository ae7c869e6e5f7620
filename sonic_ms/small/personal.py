"""Which weights of the painter `personalize --sparse` changes: those with the largest gradients on the first batches of
the clip, over all layers together (Sung et al. 2021 take squares). All others keep their values to the bit, as long
as the loop has no weight decay."""

import numpy as np
from mindspore import Parameter, Tensor, ops

from sonic_ms.small.patterns import largest
from sonic_ms.small.pruner import MaskGradients, is_prunable
from sonic_ms.train.loop.optimizer import zeros

SHARE = 0.1  # of the weights that change: 21,542 of the shipped painter's
SCORED = 8  # batches that are looked at before


class Chosen:
    """Masks of gradients for `trainer.train`; weights outside stay as they are, biases all change."""

    def __init__(self, share=SHARE, scored=SCORED):
        self.share, self.scored = share, scored

    def attach(self, states, steps):
        """{name in a checkpoint: Parameter}: masks, all 0 until chosen, and the sums of gradients so far."""
        self.slots = [slot for slot in states.slots if is_prunable(slot.weight)]
        self.masks = [
            Parameter(Tensor(np.zeros(slot.weight.shape, np.float32)), name=f"mask.{slot.name}", requires_grad=False)
            for slot in self.slots
        ]
        self.scores = [zeros(f"score.{slot.name}", slot.weight.shape) for slot in self.slots]
        self.mask_gradients = MaskGradients(self.slots, self.masks)
        return {one.name: one for one in (*self.masks, *self.scores)}

    def changes(self, step):
        return step < self.scored

    def change(self, step):
        """Add the gradients of a batch to the scores; after the last one choose."""
        for slot, score in zip(self.slots, self.scores):
            ops.assign(score, Tensor(score.asnumpy() + np.abs(slot.total.asnumpy())))
        if step == self.scored - 1:
            flat = np.concatenate([score.asnumpy().ravel() for score in self.scores])
            chosen, first = largest(flat[None], round(self.share * flat.size))[0], 0
            for mask in self.masks:
                part = chosen[first : first + mask.size].reshape(mask.shape)
                ops.assign(mask, Tensor(part.astype(np.float32)))
                first += mask.size
