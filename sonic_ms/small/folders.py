"""Folders of sonic-edge with another painter: cut or rounded. NumPy, no MindSpore."""

import shutil
from pathlib import Path

import numpy as np

from sonic_ms.edge.shipped import fold_norms
from sonic_ms.edge.units import EDGE_FOLDER, NAME
from sonic_ms.errors import OutputError, WeightsError
from sonic_ms.files.model import write_model_file
from sonic_ms.files.temporary import Temporary
from sonic_ms.files.weights import MODEL_FILE, TensorFile, load_config, save_config, write_tensors
from sonic_ms.small.groups import choose, cut, live_channels, sized
from sonic_ms.small.quantize import quantize, stored_bytes

EPSILON = 1e-5  # of BatchNorm2d


def read_painter(name):
    """(folder, PainterConfig, {name: float32 array}) of "shipped" or a model's folder."""
    from sonic_ms.edge.renderer import PainterConfig

    folder = EDGE_FOLDER if name == "shipped" else Path(name)
    config = load_config(PainterConfig, folder / "painter")
    with TensorFile(folder / "painter" / MODEL_FILE) as file:
        if any("norm" not in one and file.dtypes[one] != "F32" for one in file.shapes):
            raise WeightsError(f"{file.path} is not float32; take the model that it was made from")
        return folder, config, {one: np.float32(file.read(one)) for one in file.shapes}


def write_painter(folder, out, config, tensors):
    """Write a model at `out`, whole or not at all: these tensors, and the audio encoder of `folder`."""
    out = Path(out)
    if out.exists():
        raise OutputError(f"{out} exists; choose another --out")
    entries = [(name, "F32", array.shape, lambda array=array: array) for name, array in tensors.items()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Temporary(out.parent, is_folder=True) as part:
            (part / "painter").mkdir()
            save_config(config, part / "painter")
            write_tensors(part / "painter" / MODEL_FILE, entries, {"format": "mindspore", "config": "PainterConfig"})
            shutil.copytree(folder / "audio", part / "audio")
            write_model_file(part, NAME)
            part.rename(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from error


def prune_folder(model, out, widths=None, seed=None):
    """Write a model with fewer channels; {"channels", "weights"}.

    widths: channels to keep at the three resolutions, the strongest ones, or random ones of a seed; None cuts those
    that are always 0. Raises UsageError, WeightsError, OutputError.
    """
    from sonic_ms.edge.renderer import PainterConfig

    folder, config, tensors = read_painter(model)
    if widths is None:
        keep = live_channels(tensors)
    else:
        rng = None if seed is None else np.random.default_rng(seed)
        keep = choose(tensors, PainterConfig(widths).blocks(), rng)
    smaller, found = cut(tensors, config, keep)
    write_painter(folder, out, smaller, found)
    count = sum(array.size for name, array in found.items() if name.endswith("weight"))
    return {"channels": list(sized(list(smaller.blocks())).blocks()), "weights": count}


def quantize_folder(model, out, kind):
    """Write a model whose painter has rounded weights, its normalisations folded; {"bytes"} that they would take."""
    folder, config, tensors = read_painter(model)
    folded = fold_norms(tensors)
    stored = dict(tensors)
    for name, array in folded.items():
        stored[name] = quantize(array, kind) if name.endswith("weight") else array
    for name, array in tensors.items():  # normalisations that do nothing
        if ".norm." in name:
            value = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1 - EPSILON}[name.rsplit(".", 1)[1]]
            stored[name] = np.full_like(array, value)
    write_painter(folder, out, config, stored)
    return {"bytes": sum(stored_bytes(a.shape, kind) for n, a in folded.items() if n.endswith("weight"))}
