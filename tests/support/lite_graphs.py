"""Units of the Lite engine's tests, and inputs for them."""

import numpy as np

from sonic_ms.runtime.unit import Tensor, Unit

MIX = Unit(
    "mix",
    (Tensor("left", (2, 5)), Tensor("picture", (1, 3, 8, 6)), Tensor("right", (2, 5))),
    (Tensor("difference", (2, 5)), Tensor("features", (1, 4, 8, 6))),
    None,
)
TWICE = Unit("twice", (Tensor("x", (3,)),), (Tensor("y", (3,)),), None)
SLOW = Unit("slow", (Tensor("x", (3000, 3000)),), (Tensor("y", (3000, 3000)),), None)
HUGE = Unit("huge", (Tensor("x", (30000, 1)),), (Tensor("y", (30000,)),), None)


def values(unit, seed=0):
    rng = np.random.default_rng(seed)
    return {tensor.name: rng.standard_normal(tensor.shape).astype(np.float32) for tensor in unit.inputs}
