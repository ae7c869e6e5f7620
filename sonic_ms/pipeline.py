"""image + audio -> prepare -> encode -> generate -> post-process -> paste -> write. Each call leads to one file."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from sonic_ms.deploy.bundle import Bundle
from sonic_ms.edge import idle, portrait, postprocess
from sonic_ms.errors import UsageError
from sonic_ms.face import choose, detect
from sonic_ms.files.config import GenerateOptions, from_dict
from sonic_ms.media import audio as audio_stage
from sonic_ms.media.image import load_image
from sonic_ms.media.video import Video
from sonic_ms.runtime.engine import check_engine, open_engine


@dataclass
class TalkingModel:
    """A loaded model with the pipeline around it; made by `load_model`. Not shared between threads."""

    network: object
    notes: list = field(default_factory=list)  # of the last `generate`: what the user may want to know
    compile_seconds: float = 0.0  # spent by the last `generate` on building graphs; about 0 from the second time on
    _analyzer: object = None

    def generate(self, image, audio, sample_rate=None, **options):
        """Video (a lazy stream) of the portrait `image` speaking `audio`.

        Args:
            image: path, or array (h, w), (h, w, 3) or (h, w, 4), uint8, uint16 or float in 0..1.
            audio: path of anything ffmpeg reads, or array of samples (n,) or (n, channels) with `sample_rate` in Hz.
            options: fields of config.GenerateOptions.
        Raises:
            UsageError, InputMissingError, ImageError, FaceError, AudioError: see sonic_ms.errors.
        """
        settings = from_dict(GenerateOptions, options, "options")
        self.notes = []
        samples = self._load_audio(audio, sample_rate, settings)
        photo = load_image(image)
        landmarks = self._find_face(photo, settings)
        scene = portrait.prepare_portrait(photo, landmarks, settings, self.network.sides)
        n_frames = audio_stage.frame_count(len(samples))
        started = time.perf_counter()
        self.network.compile(scene.crop.shape[0])
        self.compile_seconds = time.perf_counter() - started

        envelope = audio_stage.speech_envelope(samples)
        voiced = audio_stage.voice_activity(samples)
        curves = self.network.articulate(samples)
        curves, notes = postprocess.post_process(curves, voiced, envelope, settings)
        self.notes += notes
        pose = idle.idle_motion(n_frames, settings.seed, envelope, settings.motion_scale)

        def frames():
            paster = portrait.Paster(scene)
            for square in self.network.render(scene, curves, pose):
                yield paster.paste(square)

        height, width = scene.frame.shape[:2]
        source = audio if isinstance(audio, (str, Path)) else None
        return Video(frames, (width, height), n_frames, samples, source)

    def _load_audio(self, audio, sample_rate, settings):
        extra = {} if sample_rate is None else {"sample_rate": sample_rate}
        return audio_stage.load_audio(
            audio, max_seconds=settings.max_audio_seconds, duration=settings.duration, **extra
        )

    def _find_face(self, photo, settings):
        if self._analyzer is None:
            self._analyzer = detect.FaceAnalyzer()
        wanted = settings.face if settings.face == "largest" else int(settings.face)
        landmarks, notes = choose.choose_face(photo, wanted, settings.face_box, self._analyzer)
        self.notes += notes
        return landmarks


def is_base(name, bundle=None):
    """Whether a model is sonic-base. A model is the name that ships with the package, the folder of a converted
    sonic-base, or the folder of a sonic-edge trained elsewhere (it holds audio/ and painter/)."""
    if bundle is not None:
        return Bundle.load(bundle).model == "sonic-base"
    if name == "sonic-edge":
        return False
    if not Path(name).is_dir():
        raise UsageError(f"model {name!r} is not known; expected sonic-edge or the folder of a model")
    return not (Path(name) / "painter").is_dir()


def check_options(base, options, where):
    """Refuse options that sonic-base (or sonic-edge) does not have or whose values are out of range."""
    if base:
        from sonic_ms.base.generator import BaseOptions

        from_dict(BaseOptions, options, where)
    else:
        from_dict(GenerateOptions, options, where)


def load_model(name="sonic-edge", engine="auto", bundle=None):
    """A model with `generate(image, audio, **options)`.

    name: see `is_base`. bundle: folder that `sonic-ms export` wrote, instead of a name. engine: one of
    runtime.engine.ENGINES; those besides mindspore need a bundle.
    Raises UsageError, InputMissingError, WeightsError, EngineError.
    """
    if bundle is not None:
        return load_bundle(bundle, engine)
    check_engine(engine)
    if is_base(name):
        from sonic_ms.base.generator import BaseModel
        from sonic_ms.base.networks import CellNetworks

        return BaseModel(CellNetworks(name))
    from sonic_ms.edge.generator import EdgeModel

    return TalkingModel(EdgeModel() if name == "sonic-edge" else EdgeModel(name))


def load_bundle(folder, engine="auto"):
    """The model of a bundle, on an engine."""
    bundle = Bundle.load(folder)
    runtime = open_engine(engine, bundle)
    if bundle.model == "sonic-base":
        from sonic_ms.base.generator import BaseModel
        from sonic_ms.base.networks import BundleNetworks

        return BaseModel(BundleNetworks(bundle, runtime))
    from sonic_ms.edge.generator import EdgeModel

    return TalkingModel(EdgeModel(engine=runtime, sides=tuple(bundle.manifest["gear"]["sides"])))


def print_notes(notes):
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
