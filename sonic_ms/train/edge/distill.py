"""Recipe of sonic-edge that learns to articulate from a teacher's videos, such as those that sonic-base makes.

The landmarks of every frame give what the teacher's mouth does (footage.py): how far jaw and lips are open and how wide
the mouth is. What landmarks don't show, pressed lips, rounding, teeth and tongue, stays as the shipped encoder has it.
The audio encoder is trained from its shipped weights on the videos' sound and these curves; the painter stays.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from sonic_ms.data.sources import find_sources
from sonic_ms.edge.audio_encoder import AudioEncoder, AudioEncoderConfig
from sonic_ms.edge.audio_features import WINDOW
from sonic_ms.edge.curves import JAW, OPEN, WIDTH
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.portrait import prepare_portrait
from sonic_ms.edge.rig import POSE, seen_curves
from sonic_ms.edge.units import EDGE_FOLDER
from sonic_ms.errors import OutputError, UsageError
from sonic_ms.face import mesh
from sonic_ms.files.config import require
from sonic_ms.files.weights import load_config, load_weights, save_model
from sonic_ms.media.audio import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, frame_count, load_audio
from sonic_ms.train.edge.audio import CurveLoss, SpeechWindows, features, predict, store, views
from sonic_ms.train.edge.footage import MAX_FRAMES, aligned, is_turned, parameter_row, reference, still_points, track
from sonic_ms.train.loop.trainer import LoopConfig, identity_of, train

SEEN = (JAW, OPEN, WIDTH)
MAX_DIFFERENCE = 5  # frames between the lengths of a video's pictures and its sound


@dataclass(frozen=True)
class EdgeDistillConfig:
    """teacher: folder of videos, each of one face that speaks what is heard. held_out: share of every video, its end,
    that is not trained on. The weights are those of edge_audio."""

    teacher: str
    loop: LoopConfig
    held_out: float = 0.2
    closure_weight: float = 3.0
    velocity_weight: float = 1.0

    def __post_init__(self):
        checks = (
            ("held_out", 0 < self.held_out <= 0.5, "above 0, at most 0.5"),
            ("closure_weight", self.closure_weight >= 0, "0 or more"),
            ("velocity_weight", self.velocity_weight >= 0, "0 or more"),
        )
        require(self, checks)


@dataclass(frozen=True)
class Lesson:
    """One video: samples at 16 kHz; curves (n, 8), the teacher's; seen (n,) bool, where they were measured."""

    samples: np.ndarray
    curves: np.ndarray
    seen: np.ndarray


def read_lesson(path, encoder):
    """Lesson of a video. Raises FaceError where no frame shows a face, UsageError where few do, AudioError."""
    found = track(path)[:MAX_FRAMES]
    samples = load_audio(str(path), duration=MAX_FRAMES / FPS)
    count = min(len(found), frame_count(len(samples)))
    if max(len(found), frame_count(len(samples))) - count > MAX_DIFFERENCE:
        raise UsageError(
            f"video {path} has {len(found)} frames and {len(samples) / SAMPLE_RATE:.2f} s of sound, expected {FPS} "
            f"frames a second; convert it with ffmpeg -i VIDEO -r {FPS} OUT.mp4"
        )
    curves = predict(encoder, features(samples), count)
    number, picture = reference(path, found)
    landmarks = found[number]
    portrait = prepare_portrait(picture, landmarks, EdgeOptions())
    still, turn = still_points(portrait, landmarks, picture.shape), mesh.pose(landmarks.points)[:2]
    seen = np.array([one is not None and not is_turned(one, turn) for one in found[:count]])
    for number in np.flatnonzero(seen):
        row = parameter_row(portrait.rig, aligned(found[number], still)[1], np.zeros(len(POSE)))
        curves[number] = seen_curves(portrait.rig, row, curves[number])
    return Lesson(samples, curves, seen)


def build(lessons, config, folder):
    """Write the first part of every lesson as folder/teacher.npz for SpeechWindows; returns its path."""
    counts = [first_held_out(lesson, config) for lesson in lessons]
    if sum(counts) <= WINDOW:
        raise UsageError(
            f"{config.teacher} holds {sum(counts) / FPS:g} s to learn from, expected more than {WINDOW / FPS:g}; give "
            "more or longer videos"
        )
    pairs = []
    for number, (lesson, count) in enumerate(zip(lessons, counts)):
        rng = np.random.default_rng([config.loop.seed, 1, number])
        pairs += views(rng, lesson.samples[: SAMPLES_PER_FRAME * count], lesson.curves[:count])
    return store(Path(folder) / "teacher.npz", pairs)


def first_held_out(lesson, config):
    """Number of the first frame that is not trained on."""
    return round(len(lesson.curves) * (1 - config.held_out))


def distance(encoder, lessons, config):
    """Held-out figures: root mean square difference of the curves that are SEEN to the teacher's, and of OPEN alone."""
    errors = []
    for lesson in lessons:
        count = first_held_out(lesson, config)
        own = predict(encoder, features(lesson.samples), len(lesson.curves))[count:][lesson.seen[count:]]
        errors.append((own - lesson.curves[count:][lesson.seen[count:]])[:, SEEN])
    errors = np.concatenate(errors) ** 2
    return {"test_rmse": float(np.sqrt(errors.mean())), "test_open": float(np.sqrt(errors[:, SEEN.index(OPEN)].mean()))}


def run(config, folder, resume=False):
    """The recipe edge_distill of `sonic-ms train`: write folder/model, a complete sonic-edge.

    Returns the last row of the log, with the held-out figures before (`was_*`) and after.
    """
    folder = Path(folder)
    ms.set_seed(config.loop.seed)
    architecture = load_config(AudioEncoderConfig, EDGE_FOLDER / "audio")
    encoder = load_weights(AudioEncoder(architecture).set_train(False), EDGE_FOLDER / "audio")
    lessons = [read_lesson(source.path, encoder) for source in find_sources([config.teacher])]
    windows = SpeechWindows(build(lessons, config, folder))
    before = {f"was_{name[5:]}": value for name, value in distance(encoder, lessons, config).items()}
    loss = CurveLoss(encoder, config.closure_weight, config.velocity_weight)

    def judge(step):
        return before | distance(encoder, lessons, config)

    last = train(loss, windows.batch, config.loop, folder, judge, resume, identity_of(config))
    encoder.set_train(False)
    save_model(encoder, architecture, folder / "model" / "audio")
    try:
        shutil.copytree(EDGE_FOLDER / "painter", folder / "model" / "painter", dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise OutputError(f"cannot write {folder / 'model'}: {error}") from error
    return last
