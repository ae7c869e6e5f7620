"""sonic-edge's graphs for an export: the table of units of a folder, and inputs to compare files on."""

import functools
from pathlib import Path

import numpy as np

from sonic_ms.edge.audio_features import hear
from sonic_ms.edge.curves import CURVES
from sonic_ms.edge.heard import curves_of
from sonic_ms.edge.rig import build_rig, frame_parameters, with_light
from sonic_ms.edge.texture import OVERSAMPLING, make_texture, place_patch
from sonic_ms.edge.units import EDGE_FOLDER, EDGE_SIDES, NAME, NETWORKS, audio_config, edge_units
from sonic_ms.errors import UsageError
from sonic_ms.face.mesh import average_face
from sonic_ms.files.digest import weights_digest
from sonic_ms.runtime.unit import UnitTable, normal_inputs

AVERAGE_FACES, DEMO_BATCHES = 2, 4  # calls of a renderer that calibrate it


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
        calibrate=calibrate,
    )


def calibrate(unit):
    """(operators that int8 quantises, inputs that show the ranges of activations, tensors that halves are enough for):
    what the shipped model makes of the demo's speech and portrait, and an average face in other colours.

    Of the encoder the layers alone: its convolutions read the log-mel, which a byte is too coarse for.
    """
    import cv2

    mels, scene, curves = demo()
    if unit.name == "edge_audio":
        return ("Gemm",), [{"mel": mel} for mel in mels], ("whisper.position_embedding",)
    side, batch = _sizes(unit)
    texture = make_texture(cv2.resize(scene.crop, (side, side), interpolation=cv2.INTER_AREA))
    matrices = place_patch(scene.rig.roi, side).matrices
    found = [sample_inputs(unit, seed) for seed in range(AVERAGE_FACES)]
    for first in np.linspace(0, len(curves) - batch, DEMO_BATCHES).astype(int):
        parameters = frame_parameters(scene.rig, curves[first : first + batch], np.zeros((batch, 6)))
        found.append({"texture": texture, **matrices, "parameters": parameters})
    return ("Conv",), found, ()


@functools.cache
def demo():
    """(windows of log-mel, portrait.Portrait, curves) of the demo that comes with the package."""
    from sonic_ms.edge.generator import open_folder
    from sonic_ms.edge.portrait import prepare_portrait
    from sonic_ms.face.choose import choose_face, place_mesh
    from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
    from sonic_ms.media.audio import load_audio
    from sonic_ms.media.image import load_image

    generator, mels = open_folder(engine="onnxruntime"), []

    def keep(mel):
        mels.append(mel)
        return generator.engine.run("edge_audio", {"mel": mel})["heard"]

    curves = curves_of(hear(keep, load_audio(str(DEMO_AUDIO))), generator.heard)
    photo = load_image(DEMO_IMAGE)
    landmarks, _ = place_mesh(photo, choose_face(photo, generator.detector)[0], generator.detector)
    return mels, prepare_portrait(photo, landmarks, generator.Options()), curves


def sample_inputs(unit, seed=0):
    """{input name: array} for a unit, in the range that the pipeline feeds."""
    if all(tensor.name != "texture" for tensor in unit.inputs):
        return normal_inputs(unit, seed)
    arrays = _render_inputs(unit, np.random.default_rng(seed))
    return {tensor.name: np.ascontiguousarray(arrays[tensor.name], tensor.dtype) for tensor in unit.inputs}


def _sizes(unit):
    """(side of the square, frames a call) of a renderer."""
    shapes = {tensor.name: tensor.shape for tensor in unit.inputs}
    return round(shapes["texture"][0] ** 0.5) // OVERSAMPLING, shapes["parameters"][0]


def _render_inputs(unit, rng):
    """An average face on smooth random colours, speaking and moving."""
    import cv2

    side, batch = _sizes(unit)
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
