"""AdamW with float32 master weights, an average of the weights, and optimizer states spread over devices.

Three Cells that share their Parameters: `Accumulate` adds up the gradients of a batch, `Reduce` sums them over the
devices and measures them, `Update` takes the step. The host decides between the last two (clipping, loss scale, a
step that is left out), so that no graph has a branch.

A spread tensor (States, `shard`) has its totals, moments, average and any master on one device each, by rows. Its
gradients are summed over the devices batch by batch, since no device has room for the others' rows: AllReduce, then
this device's rows. A reduce-scatter would halve the traffic, but MindSpore's CPU collectives have none.
"""

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

SHARD_FROM = 1024  # elements; smaller tensors are kept whole on every device
BETA1, BETA2 = 0.9, 0.999


def zeros(name, shape):
    return Parameter(Tensor(np.zeros(shape, np.float32)), name=name, requires_grad=False)


def parts_of(shape, devices, shard):
    """On how many devices a tensor is spread by rows: all of them or 1."""
    return devices if shard and shape and shape[0] % devices == 0 and np.prod(shape) >= SHARD_FROM else 1


class Slot:
    """One trained parameter and what belongs to it; see `States`."""

    def __init__(self, parameter, group, shard, average):
        shape = tuple(parameter.shape)
        self.name, self.weight = parameter.name, parameter
        self.parts = parts_of(shape, group.size, shard)
        self.rows = (shape[0] if shape else 1) // self.parts
        self.start = group.rank * self.rows if self.parts > 1 else 0
        values = parameter.asnumpy().astype(np.float32)
        own = values[self.start : self.start + self.rows] if self.parts > 1 else values
        separate = parameter.dtype != mstype.float32
        self.master = Parameter(Tensor(own), name=f"master.{self.name}", requires_grad=False) if separate else parameter
        self.first_moment = zeros(f"first_moment.{self.name}", own.shape)
        self.second_moment = zeros(f"second_moment.{self.name}", own.shape)
        self.total = zeros(f"total.{self.name}", own.shape)
        self.average = Parameter(Tensor(own), name=f"average.{self.name}", requires_grad=False) if average else None

    @property
    def owns_rows_of_weight(self):
        """Spread without a master: a float32 weight, of which this device moves its rows."""
        return self.parts > 1 and self.master is self.weight

    def tensors(self):
        """{name in a checkpoint: Parameter}; the gradients' total is zero between steps."""
        kinds = ("master", "first_moment", "second_moment", "average")
        return {f"{kind}.{self.name}": getattr(self, kind) for kind in kinds if getattr(self, kind) is not None}


class States:
    """What AdamW keeps for every parameter in `weights`.

    Masters are float32 copies of float16 or bfloat16 weights (float32 weights are their own). With `shard`, tensors
    whose first side the number of devices divides are spread over the devices.
    """

    def __init__(self, weights, group, shard=False, average=False):
        self.group = group
        slots = [Slot(parameter, group, shard, average) for parameter in weights]
        self.whole = [slot for slot in slots if slot.parts == 1]
        self.spread = [slot for slot in slots if slot.parts > 1]
        self.slots = self.whole + self.spread
        self.weights = _all(self.slots, "weight")

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


def add_rows(all_reduce, total, gradient, start, stop):
    return ops.assign_add(total, all_reduce(ops.cast(gradient, mstype.float32))[start:stop])


def square_sum(total):
    return ops.reduce_sum(ops.square(total))


def sum_over_devices(all_reduce, total):
    return ops.assign(total, all_reduce(total))


def adam(kernel, factor, rate, epsilon, decay, power1, power2, master, first, second, total):
    """AdamW: the decay, then the kernel, which is Adam."""
    gradient = total * factor
    ops.assign(master, master * decay)
    return kernel(master, first, second, power1, power2, rate, BETA1, BETA2, epsilon, gradient)


def adam_of_rows(all_gather, factor, rate, epsilon, decay, power1, power2, weight, first, second, total, start, stop):
    """The same without the kernel, which moves whole Parameters only; the devices hand each other their rows."""
    gradient = total * factor
    mean, square = BETA1 * first + (1 - BETA1) * gradient, BETA2 * second + (1 - BETA2) * gradient * gradient
    rate = rate * ops.sqrt(1 - power2) / (1 - power1)
    rows = weight[start:stop] * decay - rate * mean / (ops.sqrt(square) + epsilon)
    ops.assign(first, mean)
    ops.assign(second, square)
    return ops.assign(weight, all_gather(rows))


def follow(keep, average, master):
    return ops.assign(average, master + keep * (average - master))


def follow_rows(keep, average, weight, start, stop):
    return follow(keep, average, weight[start:stop])


def copy(weight, source):
    return ops.assign(weight, ops.cast(source, weight.dtype))


def gather(all_gather, weight, source):
    return ops.assign(weight, all_gather(ops.cast(source, weight.dtype)))


def clear(total):
    return ops.assign(total, ops.zeros_like(total))


class Accumulate(nn.Cell):
    """Add the gradients of scale * loss to the totals, summed over devices where spread; returns the loss, float32."""

    def __init__(self, loss_cell, states):
        super().__init__()
        self.loss_cell = loss_cell
        self.gradient = ops.value_and_grad(self.scaled, None, states.weights, has_aux=True)
        self.first_spread = len(states.whole)
        self.totals = _all(states.whole, "total")
        self.spread_totals = _all(states.spread, "total")
        self.starts, self.stops = _rows(states.spread)
        self.each, self.all_reduce = ops.HyperMap(), ops.AllReduce() if states.spread else None

    def scaled(self, scale, *batch):
        loss = ops.cast(self.loss_cell(*batch), mstype.float32)
        return loss * scale, loss

    def construct(self, scale, *batch):
        (_, loss), gradients = self.gradient(scale, *batch)
        if self.first_spread > 0:
            self.each(add, self.totals, gradients[: self.first_spread])
        if self.all_reduce is not None:
            add_own = ops.partial(add_rows, self.all_reduce)
            self.each(add_own, self.spread_totals, gradients[self.first_spread :], self.starts, self.stops)
        return loss


class Reduce(nn.Cell):
    """Sum loss and whole totals over the devices; returns (loss sum, sum of the squares of all totals)."""

    def __init__(self, states):
        super().__init__()
        self.whole = _all(states.whole, "total") if states.whole else None
        self.spread = _all(states.spread, "total") if states.spread else None
        self.each = ops.HyperMap()
        self.all_reduce = ops.AllReduce() if states.group.size > 1 else None

    def construct(self, loss):
        squares = 0.0
        if self.all_reduce is not None:
            loss = self.all_reduce(loss)
        if self.whole is not None:
            if self.all_reduce is not None:
                self.each(ops.partial(sum_over_devices, self.all_reduce), self.whole)
            squares = squares + ops.addn(self.each(square_sum, self.whole))
        if self.spread is not None:
            squares = squares + self.all_reduce(ops.addn(self.each(square_sum, self.spread)))
        return loss, squares


class Update(nn.Cell):
    """One AdamW step with totals * factor as the gradients; the totals are zero afterwards.

    rate, epsilon, decay, power1, power2: float32 scalars from `rates`. keep: share of the average that stays.
    """

    def __init__(self, states):
        super().__init__()
        shared = [slot for slot in states.slots if slot.owns_rows_of_weight]
        others = [slot for slot in states.slots if not slot.owns_rows_of_weight]
        self.others, self.shared = Move(others) if others else None, MoveRows(shared) if shared else None
        self.average = Average([slot for slot in others if slot.average is not None])
        self.average_rows = AverageRows([slot for slot in shared if slot.average is not None])
        self.publish = Publish(states.slots, "master")
        self.totals, self.each = _all(states.slots, "total"), ops.HyperMap()

    def construct(self, factor, rate, epsilon, decay, power1, power2, keep):
        if self.others is not None:
            self.others(factor, rate, epsilon, decay, power1, power2)
        if self.shared is not None:
            self.shared(factor, rate, epsilon, decay, power1, power2)
        self.average(keep)
        self.average_rows(keep)
        self.publish()
        self.each(clear, self.totals)
        return rate


class Move(nn.Cell):
    """AdamW on the masters of some slots."""

    def __init__(self, slots):
        super().__init__()
        self.states = [_all(slots, kind) for kind in ("master", "first_moment", "second_moment", "total")]
        self.each, self.kernel = ops.HyperMap(), ops.Adam()

    def construct(self, factor, rate, epsilon, decay, power1, power2):
        self.each(ops.partial(adam, self.kernel, factor, rate, epsilon, decay, power1, power2), *self.states)
        return rate


class MoveRows(nn.Cell):
    """AdamW on this device's rows of float32 weights."""

    def __init__(self, slots):
        super().__init__()
        self.states = [_all(slots, kind) for kind in ("weight", "first_moment", "second_moment", "total")]
        self.starts, self.stops = _rows(slots)
        self.each, self.all_gather = ops.HyperMap(), ops.AllGather()

    def construct(self, factor, rate, epsilon, decay, power1, power2):
        move = ops.partial(adam_of_rows, self.all_gather, factor, rate, epsilon, decay, power1, power2)
        self.each(move, *self.states, self.starts, self.stops)
        return rate


class Average(nn.Cell):
    """Move the averages of some slots, or none, towards their masters."""

    def __init__(self, slots):
        super().__init__()
        self.slots = len(slots)
        self.averages, self.masters, self.each = _all(slots, "average"), _all(slots, "master"), ops.HyperMap()

    def construct(self, keep):
        if self.slots > 0:
            self.each(ops.partial(follow, keep), self.averages, self.masters)
        return keep


class AverageRows(nn.Cell):
    """Move the averages of some slots, or none, towards this device's rows of their weights."""

    def __init__(self, slots):
        super().__init__()
        self.slots, (self.starts, self.stops) = len(slots), _rows(slots)
        self.averages, self.weights, self.each = _all(slots, "average"), _all(slots, "weight"), ops.HyperMap()

    def construct(self, keep):
        if self.slots > 0:
            self.each(ops.partial(follow_rows, keep), self.averages, self.weights, self.starts, self.stops)
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


def _rows(slots):
    """First rows of this device, and the rows after its last."""
    return tuple(slot.start for slot in slots), tuple(slot.start + slot.rows for slot in slots)


def rates(learning_rate, step, weight_decay, epsilon, bias_correction):
    """Scalars of `Update` for step 0, 1, ...: (rate, epsilon, 1 - rate * decay, beta1^t, beta2^t), float32.

    The kernel divides by sqrt(v) + epsilon, AdamW by sqrt(v / (1 - beta2^t)) + epsilon: epsilon carries the factor.
    Without bias correction both powers are 0.
    """
    power1, power2 = (BETA1 ** (step + 1), BETA2 ** (step + 1)) if bias_correction else (0.0, 0.0)
    values = (learning_rate, epsilon * np.sqrt(1 - power2), 1 - learning_rate * weight_decay, power1, power2)
    return tuple(np.float32(value) for value in values)
