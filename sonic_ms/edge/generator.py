"""sonic-edge: recording -> articulation curves, portrait + curves -> moving squares."""

import warnings
from pathlib import Path

import numpy as np

from sonic_ms.edge import idle, portrait, postprocess
from sonic_ms.edge.audio_features import hear
from sonic_ms.edge.delta import read_delta
from sonic_ms.edge.heard import AudioEncoderConfig, curves_of
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.rig import frame_parameters
from sonic_ms.edge.shipped import fits, open_shipped
from sonic_ms.edge.texture import make_texture, placement
from sonic_ms.edge.units import EDGE_BATCH, EDGE_FOLDER, EDGE_SIDES, NAME, audio_config, edge_units
from sonic_ms.errors import EngineError, InputMissingError, WeightsError
from sonic_ms.face.choose import place_mesh
from sonic_ms.media import audio
from sonic_ms.runtime.engine import has_npu
from sonic_ms.runtime.ort import import_onnxruntime


class EdgeGenerator:
    """The light model on an open engine with its units. heard: AudioEncoderConfig, which says what the encoder's rows
    mean. sides: of the squares it renders, in pixels, rising."""

    name = NAME
    Options = EdgeOptions

    def __init__(self, engine, heard, sides=EDGE_SIDES):
        self.engine, self.heard, self.sides = engine, heard, sides
        self._detector = None

    @property
    def detector(self):
        """The face nets, loaded when first needed."""
        if self._detector is None:
            from sonic_ms.face.detect import FaceAnalyzer

            self._detector = FaceAnalyzer()
        return self._detector

    def fps(self, options):
        return audio.FPS

    def prepare(self, photo, face, options, progress):
        """portrait.Portrait of a photo and the face chosen in it. Raises FaceError."""
        landmarks, notes = place_mesh(photo, face, self.detector)
        for note in notes:
            progress.note(note)
        return portrait.prepare_portrait(photo, landmarks, options, self.sides)

    def frames(self, scene, samples, options, progress):
        """Moving squares, uint8 (side, side, 3), one a frame: an iterable that renders anew each time."""
        with progress.timed("compile"):
            self.engine.prepare(f"edge_render_{scene.crop.shape[0]}")
        envelope = audio.speech_envelope(samples)
        curves, notes = self.curves(samples, options, envelope)
        for note in notes:
            progress.note(note)
        pose = idle.idle_motion(len(curves), options.seed, envelope, options.motion_scale)
        return Squares(self.engine, scene, curves, pose)

    def curves(self, samples, options, envelope=None):
        """(curves as they are shown, float32 (frame_count, 8); list of notes). envelope: of the samples, if known."""
        envelope = audio.speech_envelope(samples) if envelope is None else envelope
        return postprocess.post_process(self.articulate(samples), audio.voice_activity(samples), envelope, options)

    def articulate(self, samples):
        """float32 mono samples at 16 kHz -> curves, float32 (frame_count, 8), unprocessed."""
        return curves_of(hear(lambda mel: self.engine.run("edge_audio", {"mel": mel})["heard"], samples), self.heard)


class Squares:
    """The moving squares of a portrait, rendered while they are iterated, EDGE_BATCH at a time.

    curves: (n, 8); pose: (n, 6) in the order of rig.POSE.
    """

    def __init__(self, engine, scene, curves, pose):
        self.engine, self.scene, self.curves, self.pose = engine, scene, curves, pose

    def __iter__(self):
        import cv2

        side, rig = self.scene.crop.shape[0], self.scene.rig
        rows, columns = placement(rig.roi, side)
        painted = np.ix_(rows.any(1), columns.any(0))  # the painter's rectangle: the only place for new colours
        constants = {"texture": make_texture(self.scene.crop), "rows": rows, "columns": columns}
        for first in range(0, len(self.curves), EDGE_BATCH):
            batch = slice(first, first + EDGE_BATCH)
            parameters = frame_parameters(rig, self.curves[batch], self.pose[batch])
            count = len(parameters)
            padded = np.pad(parameters, ((0, EDGE_BATCH - count), (0, 0)), mode="edge")
            outputs = self.engine.run(f"edge_render_{side}", {**constants, "parameters": padded})
            planes = (outputs["frames"] + 0.5).astype(np.uint8)  # (3, EDGE_BATCH, side, side)
            for i in range(count):
                frame = cv2.merge(planes[:, i])
                if self.scene.tone is not None:
                    frame[painted] = self.scene.tone.apply(frame[painted])
                yield frame


def open_folder(folder=EDGE_FOLDER, precision="fp32", engine="auto", delta=None):
    """EdgeGenerator with the weights of a folder: audio/ and painter/, each with model.safetensors and config.json.

    engine: "onnxruntime" for the graphs that come with the package, "mindspore" for the Cells; "auto" takes what starts
    and runs faster here: onnxruntime on a CPU, in float32, for networks of the shipped sizes; else MindSpore. delta:
    path of a file of delta.py, made for this very folder.
    Raises WeightsError for missing, wrong or non-finite weights, UsageError for another's delta, EngineError.
    """
    delta = read_delta(delta, folder) if delta else None
    if engine == "auto":
        engine = "onnxruntime" if precision == "fp32" and _has_onnxruntime() and fits(folder) else "mindspore"
    heard = audio_config(folder)
    if engine == "onnxruntime":
        if precision != "fp32":
            raise EngineError(
                f"precision {precision} in onnxruntime needs a bundle: sonic-ms export --dtype {precision}"
            )
        return EdgeGenerator(open_shipped(folder, delta), heard)
    from sonic_ms.runtime.cells import MindSporeEngine

    opened = MindSporeEngine(edge_units(Path(folder), precision=precision, delta=delta))
    for unit in ("edge_audio", "edge_render_256"):
        opened.build(unit)  # weights that are missing or wrong are found now, not in the middle of a video
    return EdgeGenerator(opened, heard)


def _has_onnxruntime():
    """Whether auto takes onnxruntime; where it is wanted and not to be had, one line says so."""
    if has_npu():
        return False
    try:
        import_onnxruntime()
    except EngineError as error:
        warnings.warn(f"{error}; MindSpore runs instead, and starts and renders more slowly", stacklevel=3)
        return False
    return True


def open_bundle(bundle, engine, sides=None):
    """EdgeGenerator on an open engine with the graphs of a bundle. sides: fewer than the bundle has."""
    try:
        heard = bundle.config(AudioEncoderConfig, "audio")
    except (InputMissingError, WeightsError) as error:
        raise WeightsError(f"{bundle.folder} is of another version ({error}); export the bundle again") from error
    sides = tuple(sides or bundle.manifest["gear"].get("sides", ()))
    if not sides or any(f"edge_render_{side}" not in bundle.units for side in sides):
        raise WeightsError(f"{bundle.folder} has sides {sides}, and no graph of them; export the bundle again")
    return EdgeGenerator(engine, heard, sides)
