"""How many weights each layer keeps, and what that costs: uniform and ERK densities, FLOPs of a training.

ERK (Mocanu et al. 2018, Evci et al. 2020): a layer's density is in proportion to the sum of its sides over their
product; layers that would get more than all of their weights are dense, and the others share what is left.
"""

import numpy as np


def uniform(shapes, density):
    """{name: density} of {name: shape}; the first layer is dense, and the others are all alike."""
    names = list(shapes)
    return {name: 1.0 if name == names[0] else density for name in names}


def erk(shapes, density):
    """{name: density}; together the layers keep `density` of all weights."""
    counts = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    raw = {name: sum(shape) / np.prod(shape) for name, shape in shapes.items()}
    dense = set()
    while len(dense) < len(shapes):
        room = density * sum(counts.values()) - sum(counts[name] for name in dense)
        scale = room / sum(raw[name] * counts[name] for name in shapes if name not in dense)
        over = [name for name in shapes if name not in dense and raw[name] * scale > 1]
        if not over:
            return {name: 1.0 if name in dense else float(raw[name] * scale) for name in shapes}
        dense |= {max(over, key=raw.get)}
    return dict.fromkeys(shapes, 1.0)


DISTRIBUTIONS = {"uniform": uniform, "erk": erk}


def forward_flops(work, densities):
    """Multiply-adds of a forward pass. work: {name: those of the dense layer}; layers not named are dense."""
    return sum(macs * densities.get(name, 1.0) for name, macs in work.items())


def training_flops(method, work, densities, steps, every, path=()):
    """Multiply-adds of a whole training on one sample, counted as the papers do: a step costs three forward passes,
    RigL (2 f_sparse + f_dense) at every `every`-th step, and whoever prunes gradually what is left at each.

    path: for gradual methods, the density of each step relative to a dense forward pass. CPUs multiply the zeros as
    well: this is counted, not saved.
    """
    dense, sparse = sum(work.values()), forward_flops(work, densities)
    if method == "gmp":
        return sum(2 * share * dense + dense for share in path)
    if method == "granet":
        return sum((3 * share * dense * every + 2 * share * dense + dense) / (every + 1) for share in path)
    if method in ("rigl", "srigl"):
        return steps * (3 * sparse * every + 2 * sparse + dense) / (every + 1)
    return steps * 3 * sparse
