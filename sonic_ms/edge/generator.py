"""sonic-edge: recording -> articulation curves, portrait + curves -> moving squares."""

import warnings
from pathlib import Path

from sonic_ms.edge import idle, portrait, postprocess
from sonic_ms.edge.audio_features import WINDOW, hear
from sonic_ms.edge.delta import read_delta
from sonic_ms.edge.heard import AudioEncoderConfig, curves_of
from sonic_ms.edge.live import LiveEdge, LiveUnits
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.shipped import check_weights, fits, open_shipped
from sonic_ms.edge.squares import Squares
from sonic_ms.edge.units import (
    EDGE_BATCH,
    EDGE_FOLDER,
    EDGE_SIDES,
    LIVE_SIDES,
    LIVE_WINDOW,
    NAME,
    audio_config,
    configs,
    edge_units,
)
from sonic_ms.errors import EngineError, InputMissingError, WeightsError
from sonic_ms.face.choose import place_mesh
from sonic_ms.media import audio
from sonic_ms.runtime.engine import has_npu
from sonic_ms.runtime.ort import import_onnxruntime


class EdgeGenerator:
    """The light model on an open engine with its units. heard: AudioEncoderConfig, which says what the encoder's rows
    mean. sides: of the squares it renders, in pixels, rising. live: whether the engine has the units for single frames
    too."""

    name = NAME
    Options = EdgeOptions

    def __init__(self, engine, heard, sides=EDGE_SIDES, live=False):
        self.engine, self.heard, self.sides, self.live_sides = engine, heard, sides, LIVE_SIDES if live else ()
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

    def live(self, photo, face, options, progress):
        """(portrait.Portrait, live.LiveEdge) of a photo that is to speak while the speech comes in. Raises FaceError.

        An engine without the units for single frames draws them by those for eight, slowly."""
        landmarks, notes = place_mesh(photo, face, self.detector)
        for note in notes:
            progress.note(note)
        scene = portrait.prepare_portrait(photo, landmarks, options, self.live_sides or self.sides)
        side = scene.crop.shape[0]
        if self.live_sides:
            units = LiveUnits("edge_live_audio", LIVE_WINDOW, f"edge_live_{side}", 1)
        else:
            units = LiveUnits("edge_audio", WINDOW, f"edge_render_{side}", EDGE_BATCH)
        with progress.timed("compile"):
            for unit in (units.encoder, units.renderer):
                self.engine.prepare(unit)
        return scene, LiveEdge(self.engine, self.heard, units, scene, options)

    def curves(self, samples, options, envelope=None):
        """(curves as they are shown, float32 (frame_count, 8); list of notes). envelope: of the samples, if known."""
        envelope = audio.speech_envelope(samples) if envelope is None else envelope
        return postprocess.post_process(self.articulate(samples), audio.voice_activity(samples), envelope, options)

    def articulate(self, samples):
        """float32 mono samples at 16 kHz -> curves, float32 (frame_count, 8), unprocessed."""
        return curves_of(hear(lambda mel: self.engine.run("edge_audio", {"mel": mel})["heard"], samples), self.heard)


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
        return EdgeGenerator(open_shipped(folder, delta), heard, live=True)
    from sonic_ms.runtime.cells import MindSporeEngine

    units = edge_units(Path(folder), precision=precision, live=LIVE_SIDES, delta=delta)
    opened = MindSporeEngine(units, f"{precision} {configs(folder)}")
    # weights that are missing or wrong are found now, not in the middle of a video
    if fits(folder):
        check_weights(folder)
    else:
        for unit in ("edge_audio", "edge_render_256"):
            opened.build(unit)
    return EdgeGenerator(opened, heard, live=True)


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
