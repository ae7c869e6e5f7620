"""sha256 of files: what bundles, training data and resumed runs are recognised by."""

import hashlib
from pathlib import Path

from sonic_ms.errors import InputMissingError, WeightsError
from sonic_ms.files.reading import open_binary

BLOCK = 1 << 20  # bytes read at once


def sha256_of(path):
    """Hex digest of a file. InputMissingError if it cannot be read."""
    total = hashlib.sha256()
    try:
        with open_binary(path) as file:
            for block in iter(lambda: file.read(BLOCK), b""):
                total.update(block)
    except OSError as error:
        raise InputMissingError(f"cannot read {path}: {error.strerror}") from error
    return total.hexdigest()


def weights_digest(folder, networks):
    """One hex digest over the weight files of `networks` in the folder of a model. WeightsError if one is missing."""
    total = hashlib.sha256()
    for network in networks:
        path = Path(folder) / network / "model.safetensors"
        if not path.is_file():
            raise WeightsError(f"{path} is missing; is {folder} the folder of a model?")
        total.update(f"{network}:{sha256_of(path)}\n".encode())
    return total.hexdigest()
