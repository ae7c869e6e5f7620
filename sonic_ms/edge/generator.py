"""sonic-edge: recording -> articulation curves, portrait + curves -> moving squares."""

from pathlib import Path

import numpy as np

from sonic_ms.edge import idle, portrait, postprocess
from sonic_ms.edge.audio_features import hear
from sonic_ms.edge.heard import AudioEncoderConfig, curves_of
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.rig import frame_parameters
from sonic_ms.edge.texture import make_texture, placement
from sonic_ms.edge.units import EDGE_BATCH, EDGE_FOLDER, EDGE_SIDES, NAME, audio_config, edge_units
from sonic_ms.errors import InputMissingError, WeightsError
from sonic_ms.face.choose import place_mesh
from sonic_ms.media import audio


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
        constants = {"texture": make_texture(self.scene.crop), "rows": rows, "columns": columns}
        for first in range(0, len(self.curves), EDGE_BATCH):
            batch = slice(first, first + EDGE_BATCH)
            parameters = frame_parameters(rig, self.curves[batch], self.pose[batch])
            count = len(parameters)
            padded = np.pad(parameters, ((0, EDGE_BATCH - count), (0, 0)), mode="edge")
            outputs = self.engine.run(f"edge_render_{side}", {**constants, "parameters": padded})
            planes = (outputs["frames"] + 0.5).astype(np.uint8)  # (3, EDGE_BATCH, side, side)
            for i in range(count):
                yield cv2.merge(planes[:, i])


def open_folder(folder=EDGE_FOLDER, precision="fp32"):
    """EdgeGenerator on MindSpore with the weights of a folder: audio/ and painter/, each with model.safetensors and
    config.json. Raises WeightsError for missing, wrong or non-finite weights, EngineError."""
    from sonic_ms.runtime.cells import MindSporeEngine

    engine = MindSporeEngine(edge_units(Path(folder), precision=precision))
    for unit in ("edge_audio", "edge_render_256"):
        engine.build(unit)  # weights that are missing or wrong are found now, not in the middle of a video
    return EdgeGenerator(engine, audio_config(folder))


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
