"""What one person's painter has that the shipped one has not: a file of some 60 kB for `generate --delta`.

    delta.safetensors   gaps    U8 (m,)   steps from one changed weight to the next, 255: go on without a weight
                        values  F16 (n,)  what is added to them
                        NAME    F16       what is added to every bias
                        metadata: {"format": "delta 1", "base": sha256 of the painter it was learned on}

The weights are those of the painter with its normalisations folded, all convolutions one after the other by name.
NumPy, no MindSpore.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonic_ms.errors import UsageError, WeightsError, short
from sonic_ms.files.digest import weights_digest
from sonic_ms.files.weights import TensorFile, write_tensors

FORMAT = "delta 1"
SKIP = 255  # a gap that only goes on
PARTS = ("painter",)  # networks that the base is recognised by


@dataclass(frozen=True)
class Delta:
    """base: digest of the painter that it changes. places: of changed weights, rising; values: float32, added to them;
    biases: {name: float32}."""

    base: str
    places: np.ndarray
    values: np.ndarray
    biases: dict

    def added(self, tensors):
        """Folded painter's {name: array} with the delta. Raises WeightsError for another network."""
        names, found = weight_names(tensors), dict(tensors)
        total = sum(tensors[name].size for name in names)
        biases = {name for name in tensors if name.endswith("bias")}
        fits = all(value.shape == tensors[name].shape for name, value in self.biases.items() if name in biases)
        if self.places.max(initial=0) >= total or set(self.biases) != biases or not fits:
            raise WeightsError("the delta is of another network than this painter")
        flat = np.concatenate([tensors[name].ravel() for name in names])
        flat[self.places] += self.values
        first = 0
        for name in names:
            found[name] = flat[first : first + tensors[name].size].reshape(tensors[name].shape)
            first += tensors[name].size
        return found | {name: tensors[name] + value for name, value in self.biases.items()}


def weight_names(tensors):
    """Names of the weights in the order of the file."""
    return sorted(name for name in tensors if name.endswith("weight"))


def difference(before, after, base):
    """Delta between two folded painters {name: array}, in half precision as it will be stored."""
    names = weight_names(before)
    old, new = (np.concatenate([tensors[name].ravel() for name in names]) for tensors in (before, after))
    places = np.flatnonzero(new != old)
    values = (new - old)[places].astype(np.float16).astype(np.float32)
    biases = {n: (after[n] - before[n]).astype(np.float16).astype(np.float32) for n in before if n.endswith("bias")}
    return Delta(base, places, values, biases)


def write_delta(path, delta):
    """Write a Delta. Raises OutputError."""
    gaps = []
    for gap in np.diff(delta.places, prepend=-1):
        gaps += [SKIP] * ((gap - 1) // SKIP) + [(gap - 1) % SKIP]
    arrays = {"gaps": np.array(gaps, np.uint8), "values": delta.values.astype(np.float16)}
    arrays |= {name: value.astype(np.float16) for name, value in delta.biases.items()}
    kinds = {np.dtype(np.uint8): "U8", np.dtype(np.float16): "F16"}
    entries = [(name, kinds[a.dtype], a.shape, lambda a=a: a) for name, a in arrays.items()]
    write_tensors(path, entries, {"format": FORMAT, "base": delta.base})


def read_delta(path, folder):
    """Delta of a file for the model in `folder`.

    Raises InputMissingError, WeightsError for a file that is no delta, UsageError for one of another base.
    """
    with TensorFile(path) as file:
        names = set(file.shapes) - {"gaps", "values"}
        good = {"gaps", "values"} <= set(file.shapes) and file.metadata.get("format") == FORMAT
        good = good and file.dtypes["gaps"] == "U8" and all(file.dtypes[name] == "F16" for name in {*names, "values"})
        if not good or not all(len(file.shapes[name]) == 1 for name in file.shapes):
            raise WeightsError(f"{path} is no delta ({short(file.metadata)}); expected what personalize --sparse wrote")
        gaps, values = file.read("gaps"), np.float32(file.read("values"))
        biases = {name: np.float32(file.read(name)) for name in names}
        base = file.metadata.get("base", "")
    ends = np.cumsum(gaps.astype(np.int64) + (gaps != SKIP))[gaps != SKIP] - 1
    finite = all(np.isfinite(array).all() for array in (values, *biases.values()))
    if len(ends) != len(values) or not finite:
        raise WeightsError(f"{path} is damaged; write it again with personalize --sparse")
    found = weights_digest(Path(folder), PARTS)
    if base != found:
        raise UsageError(
            f"{path} was learned on another painter ({base[:12]}, this one is {found[:12]}); use it with the model it "
            "was made from, or run personalize --sparse again"
        )
    return Delta(base, ends, values, biases)
