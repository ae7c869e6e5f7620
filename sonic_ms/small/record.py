"""small.json: what one run of a comparison found. `sonic-ms small report` reads nothing else but this and loss.csv."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import OutputError, WeightsError, short
from sonic_ms.files.reading import read_json
from sonic_ms.files.temporary import Temporary

FILE = "small.json"


@dataclass(frozen=True)
class Record:
    """folder: of the run; recipe, arm: what was compared; seed; figures: {name: number}."""

    folder: Path
    recipe: str
    arm: str
    seed: int
    figures: dict


def write_record(folder, recipe, arm, seed, figures):
    """Write folder/small.json, atomically. Raises OutputError."""
    path = Path(folder) / FILE
    record = {"recipe": recipe, "arm": arm, "seed": seed, "figures": figures}
    try:
        with Temporary(folder) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def read_record(folder):
    """Record of a run. Raises InputMissingError, WeightsError for a damaged one."""
    path = Path(folder) / FILE
    fields = read_json(path, "what a run found")
    kinds = {"recipe": str, "arm": str, "seed": int, "figures": dict}
    good = isinstance(fields, dict) and all(type(fields.get(name)) is kind for name, kind in kinds.items())
    if not good or not all(_is_number(value) for value in fields["figures"].values()):
        raise WeightsError(f"{path} is damaged ({short(fields)}); run its recipe again")
    return Record(Path(folder), *(fields[name] for name in kinds))


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)
