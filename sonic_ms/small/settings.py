"""What a recipe says of sparsity."""

from dataclasses import dataclass

from sonic_ms.errors import UsageError
from sonic_ms.files.config import require
from sonic_ms.small.density import DISTRIBUTIONS
from sonic_ms.small.patterns import NofM, parse_pattern

METHODS = ("static", "set", "rigl", "srigl", "gmp", "granet")
GRADUAL = ("gmp", "granet")  # begin with more weights than they end with


@dataclass(frozen=True)
class SparsityConfig:
    """density: share of the weights that remain; 1 is a dense training, to the bit. method: one of METHODS.
    distribution: uniform or erk. pattern: see parse_pattern; of N:M the density follows. start: which weights remain at
    first, random ones or those of the largest magnitude.

    every: steps between two changes of the masks. drop: share of a layer's weights that the first change replaces,
    falling as a cosine. begin, end: shares of the steps between which masks change. first_density: of granet, which
    begins sparse. ablate: of srigl, share of its fan-in that a neuron must hold among the strongest weights.
    dense: names of layers that stay so. masks: file of masks to begin with.
    """

    density: float = 1.0
    method: str = "static"
    distribution: str = "erk"
    pattern: str = "unstructured"
    start: str = "random"
    every: int = 50
    drop: float = 0.3
    begin: float = 0.0
    end: float = 0.75
    first_density: float = 0.5
    ablate: float = 0.3
    dense: tuple[str, ...] = ()
    masks: str | None = None
    seed: int = 0

    def __post_init__(self):
        checks = (
            ("density", 0 < self.density <= 1, "above 0, at most 1"),
            ("method", self.method in METHODS, ", ".join(METHODS)),
            ("distribution", self.distribution in DISTRIBUTIONS, " or ".join(DISTRIBUTIONS)),
            ("start", self.start in ("random", "magnitude"), "random or magnitude"),
            ("every", self.every >= 1, "at least 1 step"),
            ("drop", 0 <= self.drop <= 1, "0 to 1"),
            ("begin", 0 <= self.begin < self.end, "0 or more, below end"),
            ("end", self.end <= 1, "at most 1"),
            ("first_density", self.density <= self.first_density <= 1 or self.method != "granet", "density to 1"),
            ("ablate", 0 <= self.ablate <= 1, "0 to 1"),
            ("seed", self.seed >= 0, "0 or more"),
        )
        require(self, checks, "sparsity: ")
        pattern = parse_pattern(self.pattern)
        if isinstance(pattern, NofM) and self.method in GRADUAL:
            raise UsageError(f"sparsity: method {self.method} has no N:M pattern; take static, set or rigl")
        if self.method == "granet" and self.pattern != "unstructured":
            raise UsageError(f"sparsity: pattern is {self.pattern!r}; granet prunes all layers together, unstructured")
        if self.method == "srigl" and self.pattern != "fan_in":
            raise UsageError(f"sparsity: pattern is {self.pattern!r}; srigl has fan_in")

    @property
    def is_dense(self):
        return self.density == 1 and self.masks is None and not isinstance(parse_pattern(self.pattern), NofM)
