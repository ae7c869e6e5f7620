"""`sonic-ms personalize`: sonic-edge's painter learns the mouth of one person from a short clip.

The shipped painter knows an average set of teeth from drawings. Here it sees what the mouth of this person really
looked like (footage.py) and is trained on for a few hundred steps. Mouths that the clip lacks are rehearsed, half of
every batch: the portrait as the shipped painter shows it there. Without them a clip of smiles makes the painter forget
what an open mouth looks like. The motion field has no weights; the audio encoder stays as it is, and so do the
painter's normalisations: they are folded, because a few hundred pictures of one face are no basis for new ones.
"""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn, ops

from sonic_ms.edge.delta import PARTS, difference, write_delta
from sonic_ms.edge.renderer import ConvBlock, Painter, PainterConfig, composite, fold_norms
from sonic_ms.edge.units import EDGE_FOLDER, NAME
from sonic_ms.errors import OutputError, UsageError
from sonic_ms.evaluate import evaluate
from sonic_ms.files.digest import weights_digest
from sonic_ms.files.model import write_model_file
from sonic_ms.files.shipped import DEMO_AUDIO
from sonic_ms.files.weights import load_config, load_weights, save_model
from sonic_ms.media.audio import load_audio, voice_activity
from sonic_ms.media.ffmpeg import read_header
from sonic_ms.runtime.ms import start
from sonic_ms.train.edge.footage import lower_the_teeth, read_footage
from sonic_ms.train.edge.mouth_pairs import draw_details, find_teeth, make_pairs, move, rehearse, show, split
from sonic_ms.train.loop.trainer import LoopConfig, train

STEPS, BATCH, RATE = 800, 8, 1e-3
LIGHT = 0.1  # most that a training picture is made lighter or darker
SYNC_SECONDS = 20.0  # of speech in the videos whose sync is measured
SPOKEN = 0.2  # share of frames with voice below which a clip counts as silent
SYNC = ("envelope_r", "envelope_lag", "pauses")  # figures of sonic_ms/evaluate
SHOWN = 8  # held-out frames in frames.png
INSIDE_WEIGHT = 4.0  # of the mouth's inside, besides the 1 of the lips; the skin around does not count
REHEARSED = 720  # mouths that the clip lacks
UNHEARD = 120  # others of that kind, which are measured and shown
MOST_FORGOTTEN = 0.1  # mean change of such mouths, 0..1: 0.0040 on the clip of docs/measured/personalize.md


class ClipLoss(nn.Cell):
    """L1 on lips and opening and on their gradients, as PaintLoss of the drawings, but blind to the skin around: it
    moves in ways that no paint explains."""

    def __init__(self, painter):
        super().__init__()
        self.painter = painter

    def construct(self, features, target, weight):
        picture = composite(features, self.painter(features))
        error = (picture - target) * weight * (1.0 + INSIDE_WEIGHT * features[:, 7:8])
        across = error[:, :, :, 1:] - error[:, :, :, :-1]
        down = error[:, :, 1:, :] - error[:, :, :-1, :]
        edges = ops.reduce_mean(ops.abs(across)) + ops.reduce_mean(ops.abs(down))
        return ops.reduce_mean(ops.abs(error)) + edges


def measure(painter, pairs):
    """Mean absolute error (0..1) on lips and opening, and on the opening alone; and how much of the target's gradients
    inside the opening the picture has: {"mouth", "inside", "detail"}."""
    sums = np.zeros(6)
    for i in range(len(pairs)):
        features = Tensor(pairs.features[i : i + 1])
        picture = composite(features, painter(features)).asnumpy()[0]
        error = np.abs(picture - pairs.targets[i]).mean(0)
        mouth, inside = pairs.weights[i, 0] > 0, pairs.features[i, 7] > 0.5
        steep = [np.abs(np.diff(p.mean(0), axis=1))[inside[:, 1:]].sum() for p in (picture, pairs.targets[i])]
        sums += [error[mouth].sum(), mouth.sum(), error[inside].sum(), inside.sum(), *steep]
    return {"mouth": sums[0] / sums[1], "inside": sums[2] / sums[3], "detail": sums[4] / sums[5]}


def unfolded(painter, config):
    """A painter as it is stored, whose normalisations do nothing, from one whose norms were folded."""
    stored = Painter(config).set_train(False)
    trained = dict(painter.parameters_and_names())
    for _, block in stored.cells_and_names():
        if isinstance(block, ConvBlock):
            count = block.norm.moving_variance.shape
            block.norm.moving_variance.set_data(Tensor(np.full(count, 1 - block.norm.eps, np.float32)))
    for name, parameter in stored.parameters_and_names():
        if name in trained:
            parameter.set_data(Tensor(trained[name].asnumpy()))
    return stored


class PairBatches:
    """make_batch of the trainer: random pairs of each list in equal parts, a little lighter or darker, so that no one
    exposure is learned."""

    def __init__(self, *lists):
        self.lists = [pairs for pairs in lists if pairs]

    def __call__(self, rng, size):
        share = size // len(self.lists)
        picked = [pairs[rng.integers(len(pairs), size=share)] for pairs in self.lists]
        features, targets, weights = (
            np.concatenate([getattr(one, name) for one in picked]) for name in ("features", "targets", "weights")
        )
        gain = rng.uniform(1 - LIGHT, 1 + LIGHT, (len(features), 1, 1, 1)).astype(np.float32)
        features[:, :3] *= gain  # the warped photo
        features[:, -3:] *= gain  # the light that the painter is told
        return features, targets * gain, weights


def tensors_of(painter):
    """{name: array} of a painter, copied."""
    return {name: parameter.asnumpy().copy() for name, parameter in painter.parameters_and_names()}


def store_delta(painter, before, path):
    """Write what a folded painter has that `before` {name: array}, the shipped one, has not; the painter gets the
    values that the file holds: what is measured is what a user gets."""
    delta = difference(before, tensors_of(painter), weights_digest(EDGE_FOLDER, PARTS))
    write_delta(path, delta)
    parameters = dict(painter.parameters_and_names())
    for name, array in delta.added(before).items():
        parameters[name].set_data(Tensor(array))


def shipped_painter(folder):
    """(config, Painter with folded norms) of a sonic-edge folder."""
    config = load_config(PainterConfig, folder / "painter")
    painter = load_weights(Painter(config).set_train(False), folder / "painter")
    return config, fold_norms(painter)


def personalize(video, out, photo=None, steps=STEPS, pruner=None):
    """Fine-tune sonic-edge on a clip of one person; returns the report, which is also written.

    video: path of the clip. photo: another picture of that person to start from; by default the clip's best frame.
    out: new folder. It gets audio/ and painter/ (a model for `generate --model`), portrait.png (the picture it was
    tuned for), frames.png (held-out frames: before, after, the clip), rehearsed.png (mouths that the clip lacks:
    before, after), report.json and training/ (the loss). pruner: small.personal.Chosen, which changes some weights
    only: then there is delta.safetensors too, which does the same to the shipped model. When anything fails, the folder
    is not left behind.
    Raises InputMissingError, FaceError, ImageError, UsageError for clips that cannot serve, OutputError.
    """
    out = Path(out)
    if out.exists():
        raise OutputError(f"{out} exists already; choose another --out")
    began = time.perf_counter()
    footage = read_footage(video, photo)
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot write in {out}: {error.strerror}") from error
    try:
        report = _tune(video, out, footage, steps, began, pruner)
        (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    except BaseException as error:  # also when interrupted
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputError(f"cannot write in {out}: {error.strerror}; nothing is left there") from error
        raise
    return report


def _tune(video, out, footage, steps, began, pruner):
    """The work of `personalize` in the empty folder `out`; the report."""
    start()
    pairs = make_pairs(footage)
    training, held_out = split(pairs, footage.frames)
    if len(training) < BATCH:
        raise UsageError(f"clip {video}: {len(training)} frames to learn from, expected {BATCH}; give a longer clip")
    config, painter = shipped_painter(EDGE_FOLDER)
    teeth = find_teeth(footage, painter, training)
    footage = lower_the_teeth(footage, teeth)
    rows = footage.parameters[np.isin(footage.numbers, pairs.numbers)]
    training, held_out = split(replace(pairs, features=move(footage.portrait, rows)), footage.frames)
    rehearsal = rehearse(footage, painter, training.numbers, 0, REHEARSED)
    unheard = rehearse(footage, painter, training.numbers, 1, UNHEARD)
    before, was = measure(painter, held_out), show(painter, held_out.features)
    learned = draw_details(training, painter)
    loop = LoopConfig(steps, BATCH, RATE, warmup=20, weight_decay=0.0, log_every=20, save_every=steps)
    shipped = tensors_of(painter)
    train(ClipLoss(painter), PairBatches(learned, rehearsal), loop, out / "training", pruner=pruner)
    shutil.rmtree(out / "training" / "checkpoints", ignore_errors=True)  # the model itself is saved below
    painter.set_train(False)
    if pruner:
        store_delta(painter, shipped, out / "delta.safetensors")
    after = measure(painter, held_out)
    forgotten = measure(painter, unheard)["inside"] if unheard else 0.0
    write_sheet(out / "frames.png", was, show(painter, held_out.features), held_out.targets)
    if unheard:
        write_sheet(out / "rehearsed.png", unheard.targets, show(painter, unheard.features))
    if after["mouth"] >= before["mouth"]:
        raise UsageError(
            f"clip {video}: nothing was learned, the error of the mouth on held-out frames went from "
            f"{before['mouth']:.4f} to {after['mouth']:.4f}; give a longer, sharper clip"
        )
    if forgotten > MOST_FORGOTTEN:
        raise UsageError(
            f"clip {video}: mouths that it does not show would look different by {forgotten:.3f}, expected at most "
            f"{MOST_FORGOTTEN}; give a clip of speech"
        )
    save_model(unfolded(painter, config), config, out / "painter")
    shutil.copytree(EDGE_FOLDER / "audio", out / "audio")
    write_model_file(out, NAME)
    write_png(out / "portrait.png", footage.picture)
    report = {
        "video": str(video),
        "frames": {"clip": footage.frames, "training": len(training), "held_out": len(held_out)},
        "teeth": teeth,
        "before": before,
        "after": after,
        "improvement": 1 - after["mouth"] / before["mouth"],
        "forgotten": forgotten,
        "training_seconds": round(time.perf_counter() - began, 1),
        "sync": {name: measure_sync(folder, video, out) for name, folder in (("before", EDGE_FOLDER), ("after", out))},
        "notes": footage.notes,
    }
    if pruner:
        report["delta_bytes"] = (out / "delta.safetensors").stat().st_size
    report["seconds"] = round(time.perf_counter() - began, 1)
    return report


def write_png(path, rgb):
    import cv2

    if not cv2.imwrite(str(path), rgb[:, :, ::-1]):
        raise OutputError(f"cannot write {path}")


def write_sheet(path, *rows):
    """Rows of mouth rectangles (n, 3, 96, 128), SHOWN of them spread evenly, as one PNG."""
    shown = np.linspace(0, len(rows[0]) - 1, min(SHOWN, len(rows[0]))).round().astype(int)
    sheet = np.concatenate([np.concatenate(list(row[shown]), axis=2) for row in rows], axis=1)
    write_png(path, np.round(np.clip(sheet, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def measure_sync(folder, video, out):
    """{figure: value} of `sonic-ms evaluate` on a video of out/portrait.png by the model in `folder`, which speaks what
    the clip says, or the speech that comes with the package when the clip is silent."""
    from sonic_ms.media.video import write_video
    from sonic_ms.pipeline import load_model

    header = read_header(video)
    samples = load_audio(str(video), duration=SYNC_SECONDS) if header and header.audio else np.zeros(1, np.float32)
    if voice_activity(samples).mean() < SPOKEN:
        samples = load_audio(DEMO_AUDIO, duration=SYNC_SECONDS)
    path = out / "sync.mp4"
    made = load_model(folder).generate(image=out / "portrait.png", audio=samples)
    write_video(made, path, overwrite=True, progress=False)
    figures = evaluate(path, samples, out / "portrait.png")
    path.unlink()
    return {name: figures[name]["value"] for name in SYNC}


def format_report(report):
    """The report as the lines a user wants to see."""
    before, after, sync = report["before"], report["after"], report["sync"]
    names = {"mouth": "error of the mouth", "inside": "error inside it", "detail": "detail inside it, of the clip's"}
    lines = [f"{text}: {before[name]:.4f} -> {after[name]:.4f}" for name, text in names.items()]
    lines[0] += f" ({100 * report['improvement']:.0f} % less, {report['frames']['held_out']} held-out frames)"
    lines.append(f"teeth: {report['teeth']:.2f} half mouth widths below the average")
    lines.append(f"change inside mouths that the clip lacks: {report['forgotten']:.4f}")
    lines += [f"sync, {name}: {sync['before'][name]} -> {sync['after'][name]}" for name in SYNC]
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"]), f"{report['seconds']:.0f} s"])
