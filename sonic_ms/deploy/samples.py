"""Inputs on which exported graphs are compared with their Cells: seeded, and in the range that the pipeline feeds."""

import numpy as np

from sonic_ms.edge.curves import CURVES
from sonic_ms.edge.rig import build_rig, frame_parameters, with_light
from sonic_ms.edge.texture import make_texture, placement
from sonic_ms.face.mesh import average_face

SINUSOIDS = ("time", "ids", "sinusoids")  # -1..1
PICTURES = ("first", "second", "masks")  # 0..1


def sample_inputs(unit, seed=0):
    """{input name: array} for a unit of units.py."""
    rng = np.random.default_rng(seed)
    if unit.name.startswith("edge_render"):
        arrays = _render_inputs(unit, rng)
    else:
        arrays = {tensor.name: _values(unit, tensor, rng) for tensor in unit.inputs}
    return {tensor.name: np.ascontiguousarray(arrays[tensor.name], tensor.dtype) for tensor in unit.inputs}


def _values(unit, tensor, rng):
    if tensor.name in SINUSOIDS:
        return rng.uniform(-1, 1, tensor.shape)
    if tensor.name in PICTURES or (unit.name, tensor.name) == ("yoloface", "image"):
        return rng.uniform(0, 1, tensor.shape)
    return rng.standard_normal(tensor.shape)


def _render_inputs(unit, rng):
    """An average face on smooth random colours, speaking and moving."""
    import cv2

    shapes = {tensor.name: tensor.shape for tensor in unit.inputs}
    side, batch = shapes["rows"][0], shapes["parameters"][0]
    noise = rng.uniform(40, 215, (side, side, 3)).astype(np.float32)
    crop = np.clip(cv2.GaussianBlur(noise, (0, 0), side / 40) * 3 - 255, 0, 255)  # blurring flattens it: stretch
    points = average_face((0.28, 0.25, 0.44, 0.5))[:, :2]
    rig = with_light(build_rig(points), crop)
    curves = rng.uniform(0, 0.8, (batch, len(CURVES)))
    pose = rng.uniform(-0.01, 0.01, (batch, 6))
    pose[:, 4:] = rng.uniform(0, 1, (batch, 2))
    rows, columns = placement(rig.roi, side)
    return {
        "texture": make_texture(crop),
        "rows": rows,
        "columns": columns,
        "parameters": frame_parameters(rig, curves, pose),
    }
