"""Search for widths under a budget: enumeration where it is small, NSGA-II (Deb et al. 2002) where it is not, the
Pareto front of what was found, and Kendall's tau between two rankings. NumPy; what a candidate is worth is told by
functions."""

import itertools

import numpy as np

WIDTHS = ((8, 16, 24), (16, 24, 32, 40, 48), (16, 24, 32, 40, 48, 56, 64))  # tied, in steps of 8: 105 painters
MUTATION = 0.2  # chance of a gene to change


def candidates(choices=WIDTHS):
    """Every combination of one value of each list."""
    return list(itertools.product(*choices))


def pareto(scores):
    """Indices of rows of `scores` (n, objectives; less is better) that no other row beats, rising in the first."""
    scores = np.asarray(scores, float)
    keep = [i for i, row in enumerate(scores) if not any(_beats(other, row) for other in scores)]
    return sorted(keep, key=lambda i: tuple(scores[i]))


def _beats(one, other):
    return bool((one <= other).all() and (one < other).any())


def ranks(scores):
    """Number of fronts that have to be peeled off before each row is on one."""
    scores, left = np.asarray(scores, float), list(range(len(scores)))
    found = np.zeros(len(scores), int)
    for rank in itertools.count():
        if not left:
            return found
        front = [left[i] for i in pareto(scores[left])]
        found[front] = rank
        left = [i for i in left if i not in front]


def crowding(scores):
    """Room around each row within its front; the ends have infinitely much."""
    scores = np.asarray(scores, float)
    found = np.zeros(len(scores))
    for column in scores.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        found[order[[0, -1]]] = np.inf
        if span > 0:
            found[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return found


def evolve(choices, score, budget=None, population=50, generations=40, seed=0):
    """NSGA-II: [(candidate, scores)] of the Pareto front found, rising in the first objective.

    choices: lists of values, one a gene. score: candidate -> tuple of objectives, less is better. budget: candidate ->
    how much it is over, 0 when it is allowed: those over are worse than all others, the less the better.
    """
    rng, known = np.random.default_rng(seed), {}

    def judged(genes):
        if genes not in known:
            candidate = tuple(values[i] for values, i in zip(choices, genes))
            known[genes] = (float(budget(candidate)) if budget else 0.0, tuple(score(candidate)))
        return known[genes]

    def ordered(pool):
        """Best first, without duplicates: allowed ones by front and room, then the others by excess."""
        pool = list(dict.fromkeys(pool))
        allowed = [genes for genes in pool if judged(genes)[0] <= 0]
        scores = np.array([judged(genes)[1] for genes in allowed]).reshape(len(allowed), -1)
        rank, room = ranks(scores), np.zeros(len(allowed))
        for front in set(rank):
            room[rank == front] = crowding(scores[rank == front])
        best = sorted(range(len(allowed)), key=lambda i: (rank[i], -room[i]))
        over = sorted((genes for genes in pool if judged(genes)[0] > 0), key=lambda genes: judged(genes)[0])
        return [allowed[i] for i in best] + over

    def child(parents):
        picks = [parents[min(rng.integers(len(parents), size=2))] for _ in range(2)]  # the better of two, twice
        genes = [picks[rng.integers(2)][i] for i in range(len(choices))]
        return tuple(int(rng.integers(len(v))) if rng.random() < MUTATION else g for v, g in zip(choices, genes))

    pool = [tuple(int(rng.integers(len(values))) for values in choices) for _ in range(population)]
    for _ in range(generations):
        pool = ordered(pool)[:population]
        pool = ordered(pool + [child(pool) for _ in range(population)])[:population]
    allowed = [genes for genes in known if known[genes][0] <= 0]
    front = pareto([known[genes][1] for genes in allowed]) if allowed else []
    return [(tuple(v[g] for v, g in zip(choices, allowed[i])), known[allowed[i]][1]) for i in front]


def kendall_tau(one, other):
    """Rank correlation (tau-b) of two lists of scores: 1 the same order, -1 the reverse; 0 where one has no order."""
    one, other = np.asarray(one, float), np.asarray(other, float)
    first, second = (np.sign(a[:, None] - a)[np.triu_indices(len(a), 1)] for a in (one, other))
    ties = np.sqrt(np.abs(first).sum() * np.abs(second).sum())
    return float((first * second).sum() / ties) if ties else 0.0
