"""AdamW with float32 master weights, an average of the weights, and optimizer states spread over devices.

Three Cells that share their Parameters: `Accumulate` adds up the gradients of a batch, `Reduce` averages them over the
devices and measures them, `Update` takes the step. The host decides between the last two (clipping, loss scale, a
step that is left out), so that no graph has a branch.
"""

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

SHARD_FROM = 1024  # elements; smaller tensors are kept whole on every device
BETA1, BETA2 = 0.9, 0.999


def zeros(name, shape):
    return Parameter(Tensor(np.zeros(shape, np.float32)), name=name, requires_grad=False)


class Slot:
    """One trained parameter and what belongs to it; see `States`."""

    def __init__(self, parameter, group, shard, average):
        shape = tuple(parameter.shape)
        rows = shape[0] if shape else 1
        self.name, self.weight = parameter.name, parameter
        self.parts = group.size if shard and rows % group.size == 0 and np.prod(shape) >= SHARD_FROM else 1
        self.rows = rows // self.parts
        self.start = group.rank * self.rows if self.parts > 1 else 0
        values = parameter.asnumpy().astype(np.float32)
        own = values[self.start : self.start + self.rows] if self.parts > 1 else values
        separate = self.parts > 1 or parameter.dtype != mstype.float32
        self.master = Parameter(Tensor(own), name=f"master.{self.name}", requires_grad=False) if separate else parameter
        self.first_moment = zeros(f"first_moment.{self.name}", own.shape)
        self.second_moment = zeros(f"second_moment.{self.name}", own.shape)
        self.total = zeros(f"total.{self.name}", shape)
        self.average = Parameter(Tensor(own), name=f"average.{self.name}", requires_grad=False) if average else None

    def tensors(self):
        """{name in a checkpoint: Parameter}; the gradients' total is zero between steps."""
        kinds = ("master", "first_moment", "second_moment", "average")
        return {f"{kind}.{self.name}": getattr(self, kind) for kind in kinds if getattr(self, kind) is not None}


class States:
    """What AdamW keeps for every parameter in `weights`.

    Masters are float32 copies of float16 or bfloat16 weights (float32 weights are their own). With `shard`, tensors
    whose first side the number of devices divides have master, moments and average on one device each, by rows.
    """

    def __init__(self, weights, group, shard=False, average=False):
        self.group, self.weights = group, ParameterTuple(weights)
        self.slots = [Slot(parameter, group, shard and group.size > 1, average) for parameter in weights]

    def tensors(self):
        """{name: Parameter} of everything that a checkpoint of this device holds."""
        return {name: parameter for slot in self.slots for name, parameter in slot.tensors().items()}

    def clear(self):
        """Forget the gradients of a step that is left out."""
        for slot in self.slots:
            ops.assign(slot.total, Tensor(np.zeros(slot.total.shape, np.float32)))

    def bytes(self):
        """Bytes of the optimizer on this device: masters, moments, averages and totals of gradients."""
        own = [*self.tensors().values(), *(slot.total for slot in self.slots)]
        weights = {id(weight) for weight in self.weights}
        return sum(4 * int(np.prod(parameter.shape)) for parameter in own if id(parameter) not in weights)


# What happens to one parameter. `HyperMap` repeats it for all: a loop in a graph is unrolled by recursion, and a
# UNet has more parameters than the compiler has stack.


def add(total, gradient):
    return ops.assign_add(total, ops.cast(gradient, mstype.float32))


def square_sum(total):
    return ops.reduce_sum(ops.square(total))


def sum_over_devices(all_reduce, total):
    return ops.assign(total, all_reduce(total))


def adam(kernel, factor, rate, epsilon, decay, power1, power2, master, first, second, total):
    """AdamW: the decay, then the kernel, which is Adam."""
    gradient = total * factor
    ops.assign(master, master * decay)
    return kernel(master, first, second, power1, power2, rate, BETA1, BETA2, epsilon, gradient)


def adam_of_rows(kernel, factor, rate, epsilon, decay, power1, power2, master, first, second, total, start, stop):
    gradient = total[start:stop] * factor
    ops.assign(master, master * decay)
    return kernel(master, first, second, power1, power2, rate, BETA1, BETA2, epsilon, gradient)


def follow(keep, average, master):
    return ops.assign(average, master + keep * (average - master))


def copy(weight, source):
    return ops.assign(weight, ops.cast(source, weight.dtype))


def gather(all_gather, weight, source):
    return ops.assign(weight, all_gather(ops.cast(source, weight.dtype)))


def clear(total):
    return ops.assign(total, ops.zeros_like(total))


class Accumulate(nn.Cell):
    """Add the gradients of scale * loss to the totals; returns the loss, float32."""

    def __init__(self, loss_cell, states):
        super().__init__()
        self.loss_cell, self.totals = loss_cell, _all(states.slots, "total")
        self.gradient = ops.value_and_grad(self.scaled, None, states.weights, has_aux=True)
        self.each = ops.HyperMap()

    def scaled(self, scale, *batch):
        loss = ops.cast(self.loss_cell(*batch), mstype.float32)
        return loss * scale, loss

    def construct(self, scale, *batch):
        (_, loss), gradients = self.gradient(scale, *batch)
        self.each(add, self.totals, gradients)
        return loss


class Reduce(nn.Cell):
    """Sum totals and loss over the devices; returns (loss sum, sum of the squares of all totals)."""

    def __init__(self, states):
        super().__init__()
        self.totals, self.each = _all(states.slots, "total"), ops.HyperMap()
        self.all_reduce = ops.AllReduce() if states.group.size > 1 else None

    def construct(self, loss):
        if self.all_reduce is not None:
            loss = self.all_reduce(loss)
            self.each(ops.partial(sum_over_devices, self.all_reduce), self.totals)
        return loss, ops.addn(self.each(square_sum, self.totals))


class Update(nn.Cell):
    """One AdamW step with totals * factor as the gradients; the totals are zero afterwards.

    rate, epsilon, decay, power1, power2: float32 scalars from `rates`. keep: share of the average that stays.
    """

    def __init__(self, states):
        super().__init__()
        whole = [slot for slot in states.slots if slot.parts == 1]
        spread = [slot for slot in states.slots if slot.parts > 1]
        averaged = [slot for slot in states.slots if slot.average is not None]
        self.whole = Move(whole) if whole else None
        self.spread = Move(spread) if spread else None
        self.average = Average(averaged) if averaged else None
        self.publish = Publish(states.slots, "master")
        self.totals, self.each = _all(states.slots, "total"), ops.HyperMap()

    def construct(self, factor, rate, epsilon, decay, power1, power2, keep):
        if self.whole is not None:
            self.whole(factor, rate, epsilon, decay, power1, power2)
        if self.spread is not None:
            self.spread(factor, rate, epsilon, decay, power1, power2)
        if self.average is not None:
            self.average(keep)
        self.publish()
        self.each(clear, self.totals)
        return rate


class Move(nn.Cell):
    """AdamW on the masters of some slots, which are either all whole or all rows of their tensors."""

    def __init__(self, slots):
        super().__init__()
        self.masters, self.totals = _all(slots, "master"), _all(slots, "total")
        self.firsts, self.seconds = _all(slots, "first_moment"), _all(slots, "second_moment")
        self.whole = slots[0].parts == 1
        self.starts = tuple(slot.start for slot in slots)
        self.stops = tuple(slot.start + slot.rows for slot in slots)
        self.each, self.kernel = ops.HyperMap(), ops.Adam()

    def construct(self, factor, rate, epsilon, decay, power1, power2):
        if self.whole:
            move = ops.partial(adam, self.kernel, factor, rate, epsilon, decay, power1, power2)
            self.each(move, self.masters, self.firsts, self.seconds, self.totals)
        else:
            move = ops.partial(adam_of_rows, self.kernel, factor, rate, epsilon, decay, power1, power2)
            self.each(move, self.masters, self.firsts, self.seconds, self.totals, self.starts, self.stops)
        return rate


class Average(nn.Cell):
    """Move the averages towards the masters."""

    def __init__(self, slots):
        super().__init__()
        self.averages, self.masters, self.each = _all(slots, "average"), _all(slots, "master"), ops.HyperMap()

    def construct(self, keep):
        self.each(ops.partial(follow, keep), self.averages, self.masters)
        return keep


class Publish(nn.Cell):
    """Give the weights the values of the masters, or of the averages (kind: "master", "average")."""

    def __init__(self, slots, kind):
        super().__init__()
        slots = [slot for slot in slots if slot.weight is not getattr(slot, kind)]
        whole = [slot for slot in slots if slot.parts == 1]
        spread = [slot for slot in slots if slot.parts > 1]
        self.whole, self.whole_from = (_all(whole, "weight"), _all(whole, kind)) if whole else (None, None)
        self.spread, self.spread_from = (_all(spread, "weight"), _all(spread, kind)) if spread else (None, None)
        self.each, self.all_gather = ops.HyperMap(), ops.AllGather() if spread else None

    def construct(self):
        if self.whole is not None:
            self.each(copy, self.whole, self.whole_from)
        if self.spread is not None:
            self.each(ops.partial(gather, self.all_gather), self.spread, self.spread_from)
        return 0


def _all(slots, kind):
    return ParameterTuple([getattr(slot, kind) for slot in slots])


def rates(learning_rate, step, weight_decay, epsilon, bias_correction):
    """Scalars of `Update` for step 0, 1, ...: (rate, epsilon, 1 - rate * decay, beta1^t, beta2^t), float32.

    The kernel divides by sqrt(v) + epsilon, AdamW by sqrt(v / (1 - beta2^t)) + epsilon: epsilon carries the factor.
    Without bias correction both powers are 0.
    """
    power1, power2 = (BETA1 ** (step + 1), BETA2 ** (step + 1)) if bias_correction else (0.0, 0.0)
    values = (learning_rate, epsilon * np.sqrt(1 - power2), 1 - learning_rate * weight_decay, power1, power2)
    return tuple(np.float32(value) for value in values)
