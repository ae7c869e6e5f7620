"""sha256 of files: what bundles, training data and resumed runs are recognised by."""

import hashlib
from pathlib import Path

from sonic_ms.errors import InputMissingError, WeightsError
from sonic_ms.files.reading import open_binary

BLOCK = 1 << 20  # bytes read at once
SAMPLES, SAMPLE = 64, 4096  # how many places of a file are looked at for `glance`, and how many bytes at each


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


def glance(folder):
    """A hex digest by which the weights in a folder are told from others in milliseconds, whatever their size: of every
    model.safetensors below it the name, the length and SAMPLES places. Training changes all numbers of a file, so it
    need not be read as a whole; it is no proof against who wants to deceive. WeightsError if a file cannot be read."""
    total = hashlib.sha256()
    for path in sorted(Path(folder).rglob("model.safetensors")):
        try:
            with open_binary(path) as file:
                length = file.seek(0, 2)
                total.update(f"{path.relative_to(folder)}:{length}\n".encode())
                for number in range(SAMPLES):
                    file.seek(max(0, length - SAMPLE) * number // (SAMPLES - 1))
                    total.update(file.read(SAMPLE))
        except OSError as error:
            raise WeightsError(f"cannot read {path}: {error.strerror}") from error
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
