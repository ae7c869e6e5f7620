"""Straight lines from features to mouths, in closed form and double precision. NumPy only.

Features (n, c) -> deviations from their mean in units of their spread -> principal components -> five frames side by
side -> ridge. `fold` makes of all that one line per tap, which is a convolution.
"""

from dataclasses import dataclass

import numpy as np

REACH = 2  # frames on each side that a line sees


def context(rows, lengths, reach=REACH):
    """(n, c) -> (n, (2 reach + 1) c): each row beside its neighbours in its own recording, of which there are
    len(lengths); beyond the ends the end is repeated."""
    ends = np.cumsum(lengths)
    low, high = np.repeat(ends - lengths, lengths), np.repeat(ends, lengths) - 1
    index = np.arange(len(rows))
    return np.concatenate([rows[np.clip(index + step, low, high)] for step in range(-reach, reach + 1)], 1)


@dataclass(frozen=True)
class Components:
    """Principal components of standardised features: mean, spread (c,); vectors (c, dims)."""

    mean: np.ndarray
    spread: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, features, weights, dims):
        weights = weights / weights.sum()
        mean = weights @ features
        spread = np.sqrt(weights @ (features - mean) ** 2) + 1e-6
        standard = (features - mean) / spread
        _, vectors = np.linalg.eigh((standard * weights[:, None]).T @ standard)
        return cls(mean, spread, vectors[:, ::-1][:, :dims])

    def __call__(self, features):
        return ((features - self.mean) / self.spread) @ self.vectors

    def first(self, dims):
        return Components(self.mean, self.spread, self.vectors[:, :dims])


@dataclass(frozen=True)
class Sums:
    """Weighted sums over frames, from which any choice of speakers is fitted: inputs (d + 1, d + 1) with a column of
    ones, both (d + 1, k)."""

    inputs: np.ndarray
    both: np.ndarray

    @classmethod
    def of(cls, inputs, targets, weights=None):
        wide = np.column_stack([inputs, np.ones(len(inputs))])
        weighted = wide if weights is None else wide * weights[:, None]
        return cls(weighted.T @ wide, weighted.T @ targets)

    def __add__(self, other):
        return Sums(self.inputs + other.inputs, self.both + other.both)

    def moments(self):
        """(covariance of the inputs (d, d), with the targets (d, k), means (d,), means of the targets (k,))."""
        inputs, both = self.inputs / self.inputs[-1, -1], self.both / self.inputs[-1, -1]
        mean, target = inputs[-1, :-1], both[-1]
        return inputs[:-1, :-1] - np.outer(mean, mean), both[:-1] - np.outer(mean, target), mean, target


def ridge(moments, penalty, rehearsed=None, share=0.0):
    """(slopes (d, k), intercepts (k,)) of the line through `moments`. penalty: in units of the mean variance of the
    inputs. rehearsed: moments of other frames whose slopes count `share`; their means do not move the level."""
    inputs, both, mean, target = moments
    if rehearsed is not None:
        inputs, both = inputs + share * rehearsed[0], both + share * rehearsed[1]
    size = len(inputs)
    slopes = np.linalg.solve(inputs + penalty * np.trace(inputs) / size * np.eye(size), both)
    return slopes, target - mean @ slopes


def fold(components, slopes, intercepts):
    """A line on components in context -> (weight (taps, c, k), bias (k,)) on the features themselves."""
    dims = components.vectors.shape[1]
    taps = slopes.reshape(-1, dims, slopes.shape[1])
    weight = np.einsum("cd,tdk->tck", components.vectors / components.spread[:, None], taps)
    return weight, intercepts - np.einsum("c,tck->k", components.mean, weight)


def apply(line, features):
    """A folded line on one recording's features (n, c): (n, k)."""
    weight, bias = line
    wide = context(np.asarray(features, np.float64), np.array([len(features)]), len(weight) // 2)
    return wide @ weight.reshape(-1, weight.shape[2]) + bias


def logistic(inputs, labels, penalty, steps=12):
    """(slopes (d,), intercept) of the log-odds of labels (n,) bool, by Newton's method; inputs (n, d) are standardised
    inside."""
    mean, spread = inputs.mean(0), inputs.std(0) + 1e-9
    design = np.column_stack([(inputs - mean) / spread, np.ones(len(inputs))])
    ridge = penalty * np.append(np.ones(inputs.shape[1]), 0.0)
    slopes = np.zeros(design.shape[1])
    for _ in range(steps):
        share = 1 / (1 + np.exp(-np.clip(design @ slopes, -30, 30)))
        change = design.T @ (labels - share) / len(design) - ridge * slopes
        curvature = (design * (share * (1 - share))[:, None]).T @ design / len(design) + np.diag(ridge + 1e-9)
        slopes = slopes + np.linalg.solve(curvature, change)
    return slopes[:-1] / spread, slopes[-1] - mean @ (slopes[:-1] / spread)


class Classes:
    """Which of several classes a row is of: Gaussians of one covariance. inputs (n, d), labels (n,) from 0."""

    def __init__(self, inputs, labels, count, shrink=0.1):
        have = np.bincount(labels, minlength=count).astype(float)
        sums = np.stack([inputs[labels == one].sum(0) for one in range(count)])
        means = sums / np.maximum(have, 1)[:, None]
        rest = inputs - means[labels]
        covariance = rest.T @ rest / len(rest)
        covariance += shrink * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        self._slopes = np.linalg.solve(covariance, means.T)
        self._level = -0.5 * np.sum(means.T * self._slopes, 0) + np.where(have > 0, 0, -1e9)
        self._prior = np.log((have + 1) / have.sum())

    def posterior(self, inputs, scale=0.3, prior=0.5):
        """Shares of the classes, (n, count). scale: below 1, since neighbouring frames are one event, not several."""
        score = (inputs @ self._slopes + self._level) * scale + prior * self._prior
        share = np.exp(score - score.max(1, keepdims=True))
        return share / share.sum(1, keepdims=True)


def balanced(names):
    """Weight of every row: 1 over the root of the rows that its name has."""
    _, place, count = np.unique(names, return_inverse=True, return_counts=True)
    return 1 / np.sqrt(count[place])
