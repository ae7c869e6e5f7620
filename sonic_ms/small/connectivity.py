"""Linear mode connectivity (Frankle et al. 2020): does the loss rise on the line between two trained networks?"""

import numpy as np

POINTS = 11


def between(one, other, share):
    """{name: array} on the line from `one` (share 0) to `other` (1)."""
    return {name: ((1 - share) * array + share * other[name]).astype(np.float32) for name, array in one.items()}


def barrier(one, other, loss, points=POINTS):
    """(largest loss on the line minus the mean of its ends, [loss at every point]).

    loss: function of {name: array}; where the network has normalisations, it has to measure their statistics anew at
    every point, or the barrier is that of stale statistics. About 0 is called stable.
    """
    losses = [float(loss(between(one, other, share))) for share in np.linspace(0, 1, points)]
    return max(losses) - (losses[0] + losses[-1]) / 2, losses
