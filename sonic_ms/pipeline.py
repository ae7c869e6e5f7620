"""image + audio -> find the face -> prepare -> frames -> paste -> Video. Each model brings a Generator."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from sonic_ms.deploy.bundle import Bundle
from sonic_ms.errors import Cancelled, UsageError, WeightsError
from sonic_ms.face.choose import Detector, choose_face, upright
from sonic_ms.face.mesh import Face
from sonic_ms.files.digest import glance, sha256_of
from sonic_ms.files.model import read_model_file
from sonic_ms.files.shipped import PRETRAINED
from sonic_ms.labels.save import Labels, mark_of
from sonic_ms.labels.visible import VisibleLabel
from sonic_ms.labels.watermark import Marker, too_little
from sonic_ms.live.session import Clock, LiveSession, frames_ahead
from sonic_ms.media.audio import FPS, frame_count, load_audio, speech_note
from sonic_ms.media.image import load_image
from sonic_ms.media.paste import Paster, Scene
from sonic_ms.media.video import Video
from sonic_ms.options import Options, owners, parse
from sonic_ms.runtime.choose import check_engine, open_engine
from sonic_ms.runtime.engine import Engine
from sonic_ms.runtime.turns import check_process

Report = Callable[[str, int, int], None]  # (stage, done, total)
Source = str | os.PathLike[str] | np.ndarray


class ModelEntry(NamedTuple):
    """Where a model lives. package: its folder, with options.py, generator.py and graphs.py. options: the name of its
    class. parts: folders by which a model's folder without model.json is recognised. shipped: comes with the
    package. resumable: takes hours and keeps its finished steps. engines: of those without a bundle. deltas: whether a
    person's delta can be added to it. spreads: one video's work goes to several processes within the model; else its
    frames are made in pieces."""

    package: str
    options: str
    parts: tuple[str, ...]
    shipped: bool = False
    resumable: bool = False
    engines: tuple[str, ...] = ("auto", "mindspore")
    deltas: bool = False
    spreads: bool = False

    @property
    def Options(self) -> type[Options]:
        return getattr(importlib.import_module(f"{self.package}.options"), self.options)

    @property
    def generator(self) -> Any:
        return importlib.import_module(f"{self.package}.generator")

    @property
    def graphs(self) -> Any:
        return importlib.import_module(f"{self.package}.graphs")


MODELS = {
    "sonic-edge": ModelEntry(
        "sonic_ms.edge", "EdgeOptions", ("audio", "painter"), True, False, ("auto", "onnxruntime", "mindspore"), True
    ),
    "sonic-base": ModelEntry("sonic_ms.base", "BaseOptions", ("unet", "vae"), resumable=True, spreads=True),
}
DEFAULT_MODEL = "sonic-edge"


def all_options() -> dict[str, type[Options]]:
    """{model: its options class}."""
    return {name: entry.Options for name, entry in MODELS.items()}


class Progress:
    """What one request says while it runs, and whether it may go on. Its notes and timings end up on the Video.

    report: called as (stage, done, total); note: called with each note as it comes. cancelled: asked between steps and
    frames. state: file that keeps the last finished step of a long run, for models that take hours.
    """

    def __init__(
        self,
        report: Report | None = None,
        note: Callable[[str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        state: str | None = None,
    ) -> None:
        self._report, self._note, self._cancelled, self.state = report, note, cancelled, state
        self.notes: list[str] = []
        self.timings: dict[str, float] = {}
        self.watched = report is not None

    def step(self, stage: str, done: int, total: int) -> None:
        """Report; raises Cancelled when the request was."""
        if self._cancelled and self._cancelled():
            raise Cancelled(f"cancelled at {stage} {done} of {total}")
        if self._report:
            self._report(stage, done, total)

    def note(self, text: str) -> None:
        """Tell the user once."""
        if text not in self.notes:
            self.notes.append(text)
            if self._note:
                self._note(text)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Report a stage without steps, and keep its seconds."""
        self.step(stage, 0, 1)
        started = time.perf_counter()
        yield
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started
        self.step(stage, 1, 1)


class Generator(Protocol):
    """A model, loaded. It keeps nothing of a request."""

    name: str
    Options: type[Options]

    @property
    def engine(self) -> Engine: ...

    @property
    def detector(self) -> Detector: ...

    def fps(self, options: Any) -> float:
        """Frames a second of the video."""
        ...

    def prepare(self, photo: np.ndarray, face: Face, options: Any, progress: Progress) -> Scene:
        """The photo, uint8 (h, w, 3), as the model needs it. Raises FaceError, UsageError."""
        ...

    def frames(self, scene: Any, samples: np.ndarray, options: Any, progress: Progress) -> Any:
        """Iterable of the animated square, or of whole pictures, uint8 RGB. What can fail or takes long is done when it
        returns; every iteration makes the frames anew. Where frames can be made without those before them, its method
        piece(start, stop) yields those alone."""
        ...


class TalkingModel:
    """A loaded model with the pipeline around it, made by `load_model`. It serves many requests; threads take
    turns, see docs/servers.md."""

    def __init__(self, generator: Generator, weights: str = "") -> None:
        """weights: a digest of them; videos by other weights have other numbers."""
        self.generator, self.weights = generator, weights

    @property
    def name(self) -> str:
        return self.generator.name

    def generate(
        self,
        image: Source,
        audio: Source,
        sample_rate: int | None = None,
        report: Report | None = None,
        note: Callable[[str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        state: str | None = None,
        **options: Any,
    ) -> Video:
        """Video (a lazy stream) of the portrait `image` speaking `audio`.

        Args:
            image: path, or array (h, w), (h, w, 3) or (h, w, 4), uint8, uint16 or float in 0..1.
            audio: path of anything ffmpeg reads, or array of samples (n,) or (n, channels) with `sample_rate` in Hz.
            report, note, cancelled, state: see Progress.
            options: fields of the model's Options, see options.py.
        Returns:
            Video; its `notes` and `timings` (seconds by stage) are of this request, and grow while it is iterated.
        Raises:
            UsageError, InputMissingError, ImageError, FaceError, AudioError, ResourceError, Cancelled: see errors.py.
        """
        progress = Progress(report, note, cancelled, state)
        return generate(self.generator, image, audio, sample_rate, progress, options, self.weights)

    def faces(self, image: Source) -> tuple[tuple[int, int], list[tuple[float, ...]]]:
        """((width, height) of the photo as it is looked at, boxes x, y, width, height of its faces, largest first).
        Raises InputMissingError, ImageError."""
        check_process()
        photo = load_image(image)
        boxes = [tuple(float(value) for value in face.box) for face in self.generator.detector.detect(photo)]
        return (photo.shape[1], photo.shape[0]), boxes

    def check(self, image: Source, audio: Source, **options: Any) -> tuple[int, list[str]]:
        """(how many frames a video will have, notes), without making it. Raises what `generate` raises for the photo,
        its face, the recording and the options, besides what only shows while frames are made."""
        inputs = read_inputs(self.generator, image, audio, None, options)
        return _frame_count(self.generator, inputs), inputs.notes

    def live(
        self,
        image: Source,
        look_ahead: float = 0.2,
        microphone: bool = False,
        clock: Clock | None = None,
        note: Callable[[str], None] | None = None,
        **options: Any,
    ) -> LiveSession:
        """A session in which the portrait speaks what is pushed while it is spoken; see docs/live.md.

        Args:
            image: as for `generate`.
            look_ahead: seconds, 0 to 1, that the mouth sees ahead, and by which the sound is shown late.
            microphone: the sound comes as fast as it is spoken; what waits too long is left out.
            clock: keeps the session's time, see live.session.Clock; the machine's by default.
            note: called with what the user may want to know of the photo.
            options: fields of the model's Options but those that need the whole recording.
        Raises:
            UsageError, also of a model that makes whole videos only; InputMissingError, ImageError, FaceError.
        """
        return open_live(self.generator, image, look_ahead, microphone, clock, Progress(note=note), options)


class Inputs(NamedTuple):
    """What was read of a request. photo: uint8 (h, w, 3), turned so that its face stands upright."""

    settings: Options
    samples: np.ndarray
    photo: np.ndarray
    face: Face
    notes: list[str]


def read_inputs(
    generator: Generator, image: Source, audio: Source, sample_rate: int | None, options: dict[str, Any]
) -> Inputs:
    """Everything of a request that can be wrong before a network runs, but the detector's. Raises as `generate`."""
    check_process()  # at once: OpenCV, which comes first, may hang in a fork
    settings = parse(generator.Options, options, "options", owners(all_options(), generator.name))
    rate = {} if sample_rate is None else {"sample_rate": sample_rate}
    notes: list[str] = []
    samples = load_audio(audio, max_seconds=settings.max_audio_seconds, duration=settings.duration, notes=notes, **rate)
    if unheard := speech_note(samples):
        notes.append(unheard)
    photo, face, more = _portrait(generator, image, settings)
    return Inputs(settings, samples, photo, face, notes + more)


def _frame_count(generator: Generator, inputs: Inputs) -> int:
    return math.ceil(frame_count(len(inputs.samples)) * generator.fps(inputs.settings) / FPS)


def generate(
    generator: Generator,
    image: Source,
    audio: Source,
    sample_rate: int | None,
    progress: Progress,
    options: dict[str, Any],
    weights: str = "",
) -> Video:
    """The pipeline; see TalkingModel."""
    inputs = read_inputs(generator, image, audio, sample_rate, options)
    settings, samples, photo, face = inputs[:4]
    for text in inputs.notes:
        progress.note(text)
    scene = generator.prepare(photo, face, settings, progress)
    fps = generator.fps(settings)
    count = _frame_count(generator, inputs)
    height, width = scene.frame.shape[:2]
    watermark = _watermark(settings, (width, height), count / fps, progress)
    label = _visible_label(settings, face, photo.shape, (width, height))
    stream = generator.frames(scene, samples, settings, progress)

    def finished(pictures: Iterable[np.ndarray], total: int) -> Iterator[np.ndarray]:
        check_process()
        paste = Paster(scene).paste if scene.box is not None else None
        started = time.perf_counter()
        for done, picture in enumerate(pictures):
            progress.step("frames", done, total)
            frame = paste(picture) if paste else picture
            yield label(frame) if label else frame
        progress.timings["frames"] = time.perf_counter() - started
        progress.step("frames", total, total)

    def piece(start: int, stop: int) -> Iterator[np.ndarray]:
        return finished(stream.piece(start, stop), stop - start)

    source = None if isinstance(audio, np.ndarray) else audio
    labels = Labels(_number(f"{generator.name} {weights}", photo, samples, settings), watermark)
    return Video(
        lambda: finished(stream, count), (width, height), count, samples, source, fps, progress.notes, progress.timings,
        labels, piece if hasattr(stream, "piece") else None,
    )  # fmt: skip


def _portrait(generator: Generator, image: Source, settings: Options) -> tuple[np.ndarray, Face, list[str]]:
    """The photo, upright, the face that was asked for, and notes. Raises InputMissingError, ImageError, FaceError."""
    photo = load_image(image)
    face, notes = choose_face(photo, generator.detector, settings.face, settings.face_box)
    photo, face, turned = upright(photo, face)
    return photo, face, notes + turned


OF_RECORDINGS = ("duration", "lip_sync_correction", "align_offset", "max_audio_seconds")  # need a whole one


def open_live(
    generator: Generator,
    image: Source,
    look_ahead: float,
    microphone: bool,
    clock: Clock | None,
    progress: Progress,
    options: dict[str, Any],
) -> LiveSession:
    """See TalkingModel.live."""
    check_process()
    frames_ahead(look_ahead)  # before the work
    settings = parse(generator.Options, options, "options", owners(all_options(), generator.name))
    if not hasattr(generator, "live"):
        raise UsageError(f"{generator.name} makes whole videos only; live needs {DEFAULT_MODEL}")
    if wrong := settings.model_fields_set & set(OF_RECORDINGS):
        raise UsageError(f"options: {min(wrong)} is for whole recordings; leave it out of a live session")
    photo, face, notes = _portrait(generator, image, settings)
    for text in notes:
        progress.note(text)
    scene, speaker = generator.live(photo, face, settings, progress)
    height, width = scene.frame.shape[:2]
    label = _visible_label(settings, face, photo.shape, (width, height))
    number = secrets.token_hex(16)
    mark = Marker(mark_of(number)) if _watermark(settings, (width, height), math.inf, progress) else None
    paste = Paster(scene).paste

    def finish(square: np.ndarray, index: int) -> np.ndarray:
        frame = paste(square)
        frame = label(frame) if label else frame
        return mark(frame, index / FPS) if mark else frame

    return LiveSession(speaker, finish, (width, height), number, look_ahead, microphone, clock=clock)


def _visible_label(settings: Options, face: Face, photo: tuple[int, ...], size: tuple[int, int]) -> VisibleLabel | None:
    """What draws the label into a frame, None when it was not asked for. photo: (h, w, ...), size: (width, height) of
    the frame. Raises UsageError when the face leaves no room."""
    if settings.visible_label is None:
        return None
    across, down = size[0] / photo[1], size[1] / photo[0]
    x, y, width, height = face.box
    box = (x * across, y * down, width * across, height * down)
    return VisibleLabel(size, settings.visible_label, settings.label_corner, [box])


def _watermark(settings: Options, size: tuple[int, int], seconds: float, progress: Progress) -> bool:
    """Whether the video will carry the watermark. Raises UsageError when it was asked for and cannot be."""
    if not settings.watermark or not (problem := too_little(size, seconds)):
        return settings.watermark
    if "watermark" in settings.model_fields_set:
        raise UsageError(f"watermark: {problem}; leave it out, or make a larger or longer video")
    progress.note(f"no watermark: {problem}")
    return False


def _number(model: str, photo: np.ndarray, samples: np.ndarray, settings: Options) -> str:
    """The number of a video, 32 hexadecimal digits: the same request has the same, as it has the same frames. model:
    its name and weights."""
    digest = hashlib.sha256(f"{model} {photo.shape} {settings!r}".encode())
    digest.update(photo.tobytes())
    digest.update(samples.tobytes())
    return digest.hexdigest()[:32]


def recognise(folder: str | os.PathLike[str]) -> str:
    """Which model a folder is: as its model.json says, or by its parts where there is none. Raises UsageError,
    WeightsError."""
    if not Path(folder).is_dir():
        raise UsageError(f"model {str(folder)!r} is not known; expected {shipped_models()} or the folder of a model")
    name = read_model_file(folder)
    if name is not None and name not in MODELS:
        raise WeightsError(
            f"{folder} is a model {name!r}, which this version does not know; it knows {', '.join(MODELS)}"
        )
    if name is not None:
        return name
    for name, entry in MODELS.items():
        if all((Path(folder) / part).is_dir() for part in entry.parts):
            return name
    kinds = "; ".join(f"{name} has {', '.join(entry.parts)}" for name, entry in MODELS.items())
    raise WeightsError(
        f"{folder} is not the folder of a model: it has no model.json, and lacks the parts of one ({kinds})"
    )


def shipped_models() -> str:
    return ", ".join(name for name, entry in MODELS.items() if entry.shipped)


def model_of(name: str | os.PathLike[str], bundle: str | os.PathLike[str] | None = None) -> str:
    """Name in MODELS of a shipped model, a model's folder, or a bundle."""
    if bundle is not None:
        return Bundle.load(bundle).model
    return str(name) if str(name) in MODELS and MODELS[str(name)].shipped else recognise(name)


def chips_of(bundle: str | os.PathLike[str]) -> list[str]:
    """The chips that a bundle was built for; none when it runs anywhere."""
    return Bundle.load(bundle).chips


def load_model(
    name: str | os.PathLike[str] = DEFAULT_MODEL,
    engine: str = "auto",
    bundle: str | os.PathLike[str] | None = None,
    precision: str = "fp32",
    delta: str | os.PathLike[str] | None = None,
    processes: int = 1,
) -> TalkingModel:
    """A model with `generate(image, audio, **options)`.

    name: a model that ships with the package, or a model's folder. bundle: folder that `sonic-ms export` wrote, instead
    of a name. engine: one of runtime.choose.ENGINES; without a bundle mindspore, and for sonic-edge onnxruntime. "auto"
    takes the faster one of those that are here, MindSpore where there is an NPU. precision: "fp32", or
    "fp16" for weights and activations of half the size; a bundle has its own. delta: file of a person that `personalize
    --sparse` wrote, added to the model that it was learned on. processes: that share the work of one video, each with
    weights of its own, for a model that spreads it (ModelEntry.spreads).
    Raises UsageError, InputMissingError, WeightsError, EngineError.
    """
    if precision not in ("fp32", "fp16"):
        raise UsageError(f"precision is {precision!r}; expected fp32 or fp16")
    if bundle is not None and delta is not None:
        raise UsageError(f"delta {str(delta)!r} with a bundle, whose weights are fixed; use it with a model")
    if processes > 1 and (bundle is not None or not MODELS[model_of(name)].spreads):
        raise UsageError(f"{bundle or name}: its work is not spread over processes here; leave them out")
    if bundle is not None:
        if precision != "fp32":
            raise UsageError(
                f"precision {precision} with a bundle, which has its own; export it with --dtype {precision}"
            )
        opened = Bundle.load(bundle)
        return load_bundle(opened, open_engine(engine, opened))
    check_engine(engine)
    entry = MODELS[model_of(name)]
    check_engine(engine, entry.engines)
    if delta is not None and not entry.deltas:
        raise UsageError(f"delta {str(delta)!r}: {model_of(name)} takes none; leave it out")
    arguments = () if str(name) in MODELS else (name,)
    more = ({} if delta is None else {"delta": delta}) | ({"processes": processes} if processes > 1 else {})
    generator = entry.generator.open_folder(*arguments, precision=precision, engine=engine, **more)
    weights = glance(arguments[0] if arguments else PRETRAINED / name)
    return TalkingModel(generator, weights if delta is None else f"{weights} {sha256_of(delta)}")


def load_bundle(bundle: Bundle, engine: Engine, **more: Any) -> TalkingModel:
    """The model of a bundle on an open engine. more: for the model's own open_bundle."""
    if bundle.model not in MODELS:
        raise WeightsError(f"{bundle.folder} is a bundle of {bundle.model!r}; this version knows {', '.join(MODELS)}")
    generator = MODELS[bundle.model].generator.open_bundle(bundle, engine, **more)
    return TalkingModel(generator, bundle.manifest["weights_sha256"])


def unit_table(name: str | os.PathLike[str], **settings: Any) -> Any:
    """runtime.unit.UnitTable of a model, for an export; settings as its graphs.py takes them."""
    arguments = () if str(name) in MODELS else (name,)
    return MODELS[model_of(name)].graphs.unit_table(*arguments, **settings)


def sample_inputs(model: str) -> Callable[..., dict[str, np.ndarray]]:
    """Function (unit, seed=0) -> inputs of a unit of `model`, to compare engines on."""
    if model not in MODELS:
        raise WeightsError(f"a bundle of {model!r}; this version knows {', '.join(MODELS)}")
    return MODELS[model].graphs.sample_inputs
