"""sonic-base's graphs for an export: the table of units of a converted folder, and inputs to compare files on."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from sonic_ms.base import networks
from sonic_ms.base.boxes import input_size
from sonic_ms.base.units import CACHE_BRANCHES, CONFIGS, NAME, BaseGear, base_units
from sonic_ms.errors import UsageError
from sonic_ms.files.digest import weights_digest
from sonic_ms.runtime.unit import UnitTable

LICENCE = "CC-BY-NC-SA-4.0 (Sonic), Stability AI Community (VAE, CLIP), MIT (Whisper, RIFE), GPL-3.0 (YOLO)"
UNETS = {"unet", *(f"unet_{way}{branch}" for way in ("features", "shallow") for branch in CACHE_BRANCHES)}
SINUSOIDS = ("time", "ids", "sinusoids")  # -1..1
PICTURES = ("first", "second", "masks")  # 0..1


def unit_table(folder, precision="fp32", gears=(), chunk=None, for_cpu=False, cache_branches=()):
    """UnitTable of a converted folder.

    gears: one "WIDTHxHEIGHT" in pixels, 512x512 by default. chunk: frames that the decoder takes at once, 1 to 64, 8 by
    default: fewer need less memory. for_cpu: rearrange the UNet for MindSpore on a CPU, see winograd.py.
    cache_branches: of CACHE_BRANCHES, feature caches to have graphs for, each of them another UNet and a small one.
    Raises UsageError, WeightsError.
    """
    folder = Path(folder)
    if for_cpu and precision != "fp32":
        raise UsageError("--for-cpu is for graphs in float32; leave it out, or --dtype")
    width, height = _size(gears)
    if chunk is not None and not 1 <= chunk <= 64:
        raise UsageError(f"{chunk} frames a chunk; expected 1 to 64")
    configs = networks.CellEngine(folder, precision).configs
    detector, caches = input_size(width, height)[::-1], tuple(sorted(set(cache_branches)))
    gear = BaseGear(height, width, chunk or BaseGear.chunk, detector=detector, cache_branches=caches)

    def build(network, part, *size):
        from sonic_ms.base import cells

        cell = networks.CellEngine(folder, precision).cell(network, *size)  # a fresh one, freed after its export
        return cells.part_of(cell, part)

    def use_winograd(cell):
        from sonic_ms.base.winograd import rearrange

        rearrange(getattr(cell, "unet", cell), height // configs["vae"].downscale, width // configs["vae"].downscale)
        return cell

    units = base_units(configs, gear, build, precision)
    return UnitTable(
        NAME,
        units,
        sample_inputs,
        asdict(gear),
        configs,
        weights_digest(folder, CONFIGS),
        LICENCE,
        dict.fromkeys(UNETS & set(units), use_winograd) if for_cpu else {},
    )


def _size(gears):
    """(width, height) of the one gear."""
    text = gears[0] if gears else "512x512"
    parts = text.split("x")
    if len(gears) > 1 or len(parts) != 2 or not all(part.isdecimal() and int(part) % 64 == 0 for part in parts):
        raise UsageError(f"gears {', '.join(gears)}; sonic-base takes one WIDTHxHEIGHT, both divisible by 64")
    return int(parts[0]), int(parts[1])


def sample_inputs(unit, seed=0):
    """{input name: array} for a unit, in the range that the pipeline feeds."""
    rng = np.random.default_rng(seed)
    arrays = {tensor.name: _values(unit, tensor, rng) for tensor in unit.inputs}
    return {tensor.name: np.ascontiguousarray(arrays[tensor.name], tensor.dtype) for tensor in unit.inputs}


def _values(unit, tensor, rng):
    if tensor.name in SINUSOIDS:
        return rng.uniform(-1, 1, tensor.shape)
    if tensor.name in PICTURES or (unit.name, tensor.name) == ("yoloface", "image"):
        return rng.uniform(0, 1, tensor.shape)
    return rng.standard_normal(tensor.shape)
