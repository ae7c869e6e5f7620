"""model.json: what the folder of a model says it is."""

import json
import os
from pathlib import Path

from sonic_ms.errors import OutputError, WeightsError
from sonic_ms.files.temporary import Temporary

MODEL_FILE = "model.json"
FORMAT = 1
MAX_BYTES = 1 << 16


def read_model_file(folder):
    """Name of the model in a folder, None for a folder without model.json. Raises WeightsError for a damaged one."""
    path = Path(folder) / MODEL_FILE
    try:
        content = path.read_bytes()[: MAX_BYTES + 1]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    try:
        fields = json.loads(content)
        name, version = fields["model"], fields["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f'{path} is damaged; expected {{"model": NAME, "format": {FORMAT}}}') from error
    if version != FORMAT or not isinstance(name, str):
        raise WeightsError(f"{path} has format {version!r:.40}; this version reads {FORMAT}")
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
