"""The facts in data/, read once: chips, boards, operators, ATC's flags. Every file names its public sources."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sonic_ms.errors import UsageError

DATA = Path(__file__).parent / "data"
FAMILIES = ("310", "310B", "310P", "910", "910B")
# A cube multiplies and adds 16x16x16 values a clock: two operations each
OPERATIONS_PER_CLOCK = 2 * 16**3


@dataclass(frozen=True)
class Chip:
    """One valid --soc_version and the smallest usual board that carries it. Memory in GB (10^9), bandwidth in GB/s."""

    soc: str
    family: str
    board: str
    memory_gb: float
    reserved_gb: float
    cores: int
    mhz: int
    bandwidth: float
    bf16: bool
    last_cann: str | None

    @property
    def peak(self):
        """fp16 operations a second."""
        return self.cores * self.mhz * 1e6 * OPERATIONS_PER_CLOCK


@cache
def read(name):
    """One of the YAML files in data/."""
    import yaml

    return yaml.safe_load((DATA / f"{name}.yaml").read_text(encoding="utf-8"))


@cache
def primitives():
    """Names of the MindSpore primitives that have an adapter to CANN's graph IR."""
    lines = (DATA / "ge_primitives.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


@cache
def chips():
    """{soc: Chip} of every valid soc_version."""
    return {
        soc: Chip(soc=soc, family=family, bf16=entry["bf16"], last_cann=entry.get("last_cann"), **values)
        for family, entry in read("chips")["families"].items()
        for soc, values in entry["socs"].items()
    }


def default_soc(family):
    """The soc_version of the usual board of a family."""
    return read("chips")["families"][family]["default"]


def version(text):
    """ "8.2.RC1" -> (8, 2), to compare CANN versions."""
    try:
        return tuple(int(part) for part in str(text).split(".")[:2])
    except ValueError as error:
        raise UsageError(f"CANN version {text!r} is not a version such as 8.2 or 9.0") from error


def find_chip(soc, cann=None):
    """Chip of a soc_version, checked against the CANN version when one is given. Raises UsageError.

    A bare family name is refused: `Ascend910B` is not an Atlas A2, but a first 910 with 30 cores.
    """
    if soc == "Ascend910B":
        raise UsageError(
            "soc Ascend910B is a first-generation 910 with 30 cores, not an Atlas A2; name the chip that npu-smi info "
            "shows: Ascend910B1, B2, B3 or B4 for Atlas A2, Ascend910A or Ascend910ProA for the first 910"
        )
    chip = chips().get(soc)
    if chip is None:
        known = ", ".join(name for name in chips() if name != "Ascend910B")
        raise UsageError(f"soc {soc!r} is not a chip; expected 'Ascend' and the name npu-smi info shows: {known}")
    if cann and chip.last_cann and version(cann) > version(chip.last_cann):
        raise UsageError(f"soc {soc} is gone from CANN {cann}; the last with it is {chip.last_cann}: use that CANN")
    return chip
