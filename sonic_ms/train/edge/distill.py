"""Recipe of sonic-edge that learns to articulate from a teacher's videos, such as those that sonic-base makes.

The landmarks of every frame give what the teacher's mouth does (footage.py): how far jaw and lips are open and how wide
the mouth is. What landmarks don't show, pressed lips, rounding, teeth and tongue, stays as the shipped encoder has it.
Only the encoder's head is trained, from its shipped weights, on what the ear hears in the videos' sound; the ear and
the painter stay.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from sonic_ms.data.sources import find_sources
from sonic_ms.edge.audio_encoder import AudioEncoder
from sonic_ms.edge.curves import JAW, OPEN, WIDTH
from sonic_ms.edge.heard import HEARD, WIDE, curves_of, heard_of
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.portrait import prepare_portrait
from sonic_ms.edge.rig import NARROW, POSE, WIDEN, seen_curves
from sonic_ms.edge.units import EDGE_FOLDER, audio_config
from sonic_ms.errors import OutputError, UsageError
from sonic_ms.face import mesh
from sonic_ms.files.config import require
from sonic_ms.files.weights import load_weights
from sonic_ms.media.audio import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, frame_count, load_audio
from sonic_ms.train.edge import augment
from sonic_ms.train.edge.ear import Ear, head_line, save_encoder
from sonic_ms.train.edge.footage import MAX_FRAMES, aligned, is_turned, parameter_row, reference, still_points, track
from sonic_ms.train.edge.lines import apply
from sonic_ms.train.loop.trainer import LoopConfig, identity_of, train

WINDOW = 100  # frames of one piece of a batch
VIEWS = (augment.light, augment.light, augment.heavy)  # spoilt versions of every video's sound
UNITS = np.ones(len(HEARD), np.float32)  # of the columns, so that errors are those of curves
UNITS[[OPEN, WIDTH]] = WIDE, 2 / (WIDEN + NARROW)
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
    """One video: samples at 16 kHz; curves (n, 8), the teacher's; seen (n,) bool, where they were measured; rows
    (n, len(HEARD)) that show these curves."""

    samples: np.ndarray
    curves: np.ndarray
    seen: np.ndarray
    rows: np.ndarray


def read_lesson(path, student):
    """Lesson of a video; student: Student. Raises FaceError where no frame shows a face, UsageError where few do,
    AudioError."""
    found = track(path)[:MAX_FRAMES]
    samples = load_audio(str(path), duration=MAX_FRAMES / FPS)
    count = min(len(found), frame_count(len(samples)))
    if max(len(found), frame_count(len(samples))) - count > MAX_DIFFERENCE:
        raise UsageError(
            f"video {path} has {len(found)} frames and {len(samples) / SAMPLE_RATE:.2f} s of sound, expected {FPS} "
            f"frames a second; convert it with ffmpeg -i VIDEO -r {FPS} OUT.mp4"
        )
    heard = student.hears(student.ear(samples))[:count]
    curves = curves_of(heard, student.config)
    number, picture = reference(path, found)
    landmarks = found[number]
    portrait = prepare_portrait(picture, landmarks, EdgeOptions())
    still, turn = still_points(portrait, landmarks, picture.shape), mesh.pose(landmarks.points)[:2]
    seen = np.array([one is not None and not is_turned(one, turn) for one in found[:count]])
    for number in np.flatnonzero(seen):
        row = parameter_row(portrait.rig, aligned(found[number], still)[1], np.zeros(len(POSE)))
        curves[number] = seen_curves(portrait.rig, row, curves[number])
    rows = np.where(seen[:, None], heard_of(curves, heard, student.config), heard)
    return Lesson(samples, curves, seen, rows)


class Student:
    """The shipped encoder: what its ear makes of samples, what its head, as it is now, makes of that."""

    def __init__(self):
        self.config = audio_config(EDGE_FOLDER)
        self.encoder = load_weights(AudioEncoder(self.config).set_train(False), EDGE_FOLDER / "audio")
        self.ear = Ear(self.encoder)
        for parameter in self.encoder.whisper.get_parameters():
            parameter.requires_grad = False

    def hears(self, features):
        return apply(head_line(self.encoder), features).astype(np.float32)


class FeatureWindows:
    """Random (features, rows) windows out of lessons that follow each other. features (n, c), rows (n, len(HEARD))."""

    def __init__(self, features, rows):
        self.features, self.rows = features, rows

    def batch(self, rng, size):
        starts = rng.integers(0, len(self.rows) - WINDOW, size)[:, None] + np.arange(WINDOW)
        return self.features[starts].astype(np.float32), self.rows[starts].transpose(0, 2, 1).astype(np.float32)


class RowLoss(nn.Cell):
    """Squared error of values and of velocities, in units of curves; frames with closed lips count more, because
    viewers see them. closed: value of the column `open` up to which lips are closed."""

    def __init__(self, encoder, closed, closure_weight, velocity_weight):
        super().__init__()
        self.encoder, self.closed = encoder, closed
        self.closure_weight, self.velocity_weight = closure_weight, velocity_weight
        self.units = ms.Tensor(UNITS[None, :, None])

    def construct(self, features, target):
        closed = ops.cast(target[:, OPEN : OPEN + 1, :] <= self.closed, ms.float32)
        error = (self.encoder.articulate(features) - target) * self.units
        velocity = error[:, :, 1:] - error[:, :, :-1]
        weight = 1 + self.closure_weight * closed
        return ops.reduce_mean(weight * error * error) + self.velocity_weight * ops.reduce_mean(velocity * velocity)


def build(lessons, config, student):
    """FeatureWindows of the first part of every lesson, each as good and as bad recordings."""
    counts = [first_held_out(lesson, config) for lesson in lessons]
    if sum(counts) <= WINDOW:
        raise UsageError(
            f"{config.teacher} holds {sum(counts) / FPS:g} s to learn from, expected more than {WINDOW / FPS:g}; give "
            "more or longer videos"
        )
    features, rows = [], []
    for number, (lesson, count) in enumerate(zip(lessons, counts)):
        rng = np.random.default_rng([config.loop.seed, 1, number])
        for spoil in VIEWS:
            features.append(student.ear(spoil(rng, lesson.samples[: SAMPLES_PER_FRAME * count])))
            rows.append(lesson.rows[: len(features[-1])])
    return FeatureWindows(np.concatenate(features), np.concatenate(rows))


def first_held_out(lesson, config):
    """Number of the first frame that is not trained on."""
    return round(len(lesson.curves) * (1 - config.held_out))


def distance(student, lessons, config):
    """Held-out figures: root mean square difference of the curves that are SEEN to the teacher's, and of OPEN alone."""
    errors = []
    for lesson in lessons:
        count = first_held_out(lesson, config)
        own = curves_of(student.hears(student.ear(lesson.samples))[: len(lesson.curves)], student.config)
        errors.append((own - lesson.curves)[count:][lesson.seen[count:]][:, SEEN])
    errors = np.concatenate(errors) ** 2
    return {"test_rmse": float(np.sqrt(errors.mean())), "test_open": float(np.sqrt(errors[:, SEEN.index(OPEN)].mean()))}


def run(config, folder, resume=False):
    """The recipe edge_distill of `sonic-ms train`: write folder/model, a complete sonic-edge.

    Returns the last row of the log, with the held-out figures before (`was_*`) and after.
    """
    folder = Path(folder)
    ms.set_seed(config.loop.seed)
    student = Student()
    lessons = [read_lesson(source.path, student) for source in find_sources([config.teacher])]
    windows = build(lessons, config, student)
    before = {f"was_{name[5:]}": value for name, value in distance(student, lessons, config).items()}
    loss = RowLoss(student.encoder, student.config.opening[1], config.closure_weight, config.velocity_weight)

    def judge(step):
        return before | distance(student, lessons, config)

    last = train(loss, windows.batch, config.loop, folder, judge, resume, identity_of(config))
    save_encoder(student.encoder, student.config, folder / "model" / "audio")
    try:
        shutil.copytree(EDGE_FOLDER / "painter", folder / "model" / "painter", dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise OutputError(f"cannot write {folder / 'model'}: {error}") from error
    return last
