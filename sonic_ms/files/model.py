"""model.json: what the folder of a model says it is."""

import json
import os
from pathlib import Path

from sonic_ms.errors import OutputError, WeightsError, short
from sonic_ms.files.reading import read_json
from sonic_ms.files.temporary import Temporary

MODEL_FILE = "model.json"
FORMAT = 1


def read_model_file(folder):
    """Name of the model in a folder, None for a folder without model.json. Raises WeightsError for a damaged one."""
    path = Path(folder) / MODEL_FILE
    if not os.path.lexists(path):
        return None
    expected = f'{{"model": NAME, "format": {FORMAT}}}'
    fields = read_json(path, f"what says which model this is; expected {expected}")
    if not isinstance(fields, dict) or not {"model", "format"} <= set(fields):
        raise WeightsError(f"{path} is damaged; expected {expected}")
    name, version = fields["model"], fields["format"]
    if version != FORMAT or not isinstance(name, str):
        raise WeightsError(f"{path} has format {short(version)}; this version reads {FORMAT}")
    return name


def write_model_file(folder, name):
    """Write folder/model.json, atomically. Raises OutputError."""
    path = Path(folder) / MODEL_FILE
    try:
        with Temporary(folder) as temporary:
            temporary.write_text(json.dumps({"model": name, "format": FORMAT}) + "\n", encoding="utf-8")
            os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
