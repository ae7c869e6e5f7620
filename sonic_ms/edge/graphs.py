"""sonic-edge's graphs for an export: the table of units of a folder, and inputs to compare files on."""

from pathlib import Path

import numpy as np

from sonic_ms.edge.curves import CURVES
from sonic_ms.edge.rig import build_rig, frame_parameters, with_light
from sonic_ms.edge.texture import OVERSAMPLING, make_texture, place_patch
from sonic_ms.edge.units import EDGE_FOLDER, EDGE_SIDES, NAME, NETWORKS, audio_config, edge_units
from sonic_ms.errors import UsageError
from sonic_ms.face.mesh import average_face
from sonic_ms.files.digest import weights_digest
from sonic_ms.runtime.unit import UnitTable, normal_inputs


def unit_table(folder=EDGE_FOLDER, precision="fp32", gears=(), chunk=None, for_cpu=False):
    """UnitTable of a folder. gears: sides of the moving square in pixels, such as ("512",); all by default.

    chunk, for_cpu: for other models, refused. Raises UsageError, WeightsError.
    """
    if chunk is not None:
        raise UsageError(f"{chunk} frames a chunk: {NAME} does not decode in chunks; leave it out")
    if for_cpu:
        raise UsageError(f"--for-cpu is not for {NAME}; leave it out")
    sides = tuple(sorted(int(gear) if gear.isdecimal() else 0 for gear in gears)) or EDGE_SIDES
    if not set(sides) <= set(EDGE_SIDES):
        raise UsageError(f"gears {', '.join(gears)}; {NAME} has {', '.join(map(str, EDGE_SIDES))}")
    units = edge_units(folder, sides, precision)
    digest = weights_digest(Path(folder), NETWORKS)
    return UnitTable(
        NAME,
        units,
        sample_inputs,
        {"sides": sides},
        {"audio": audio_config(folder)},
        digest,
        "Apache-2.0, MIT (Whisper)",
    )


def sample_inputs(unit, seed=0):
    """{input name: array} for a unit, in the range that the pipeline feeds."""
    if unit.name.endswith("audio"):
        return normal_inputs(unit, seed)
    arrays = _render_inputs(unit, np.random.default_rng(seed))
    return {tensor.name: np.ascontiguousarray(arrays[tensor.name], tensor.dtype) for tensor in unit.inputs}


def _render_inputs(unit, rng):
    """An average face on smooth random colours, speaking and moving."""
    import cv2

    shapes = {tensor.name: tensor.shape for tensor in unit.inputs}
    side, batch = round(shapes["texture"][0] ** 0.5) // OVERSAMPLING, shapes["parameters"][0]
    noise = rng.uniform(40, 215, (side, side, 3)).astype(np.float32)
    crop = np.clip(cv2.GaussianBlur(noise, (0, 0), side / 40) * 3 - 255, 0, 255)  # blurring flattens it: stretch
    points = average_face((0.28, 0.25, 0.44, 0.5))[:, :2]
    rig = with_light(build_rig(points), crop)
    curves = rng.uniform(0, 0.8, (batch, len(CURVES)))
    pose = rng.uniform(-0.01, 0.01, (batch, 6))
    pose[:, 4:] = rng.uniform(0, 1, (batch, 2))
    return {
        "texture": make_texture(crop),
        **place_patch(rig.roi, side).matrices,
        "parameters": frame_parameters(rig, curves, pose),
    }
