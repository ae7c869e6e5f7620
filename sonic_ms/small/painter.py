"""Recipe small_painter: the painter's training with masks, other widths, a teacher or rounded weights.

One run is one point of a comparison: it writes a painter that `generate` takes beside the shipped audio encoder, its
masks, and small.json with its figures, from which `sonic-ms small report` makes the tables. Drawings are shared by the
runs; faces of the published figures (HELD_OUT) are never trained or chosen on.
"""

import dataclasses
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from sonic_ms.edge.renderer import FEATURES, Painter, PainterConfig, composite, fold_norms
from sonic_ms.edge.texture import ROI_HEIGHT, ROI_WIDTH
from sonic_ms.edge.units import EDGE_FOLDER, NAME
from sonic_ms.errors import UsageError
from sonic_ms.files.config import require
from sonic_ms.files.digest import sha256_of, weights_digest
from sonic_ms.files.model import write_model_file
from sonic_ms.files.temporary import Temporary
from sonic_ms.files.weights import load_config, load_weights, save_model
from sonic_ms.small.density import forward_flops, training_flops
from sonic_ms.small.methods import progress
from sonic_ms.small.pruner import Pruner, write_masks
from sonic_ms.small.qat import quantize_convs
from sonic_ms.small.quantize import KINDS, quantize, stored_bytes
from sonic_ms.small.record import write_record
from sonic_ms.small.settings import GRADUAL, SparsityConfig
from sonic_ms.train.edge import renderer
from sonic_ms.train.edge.personalize import unfolded
from sonic_ms.train.edge.renderer import (
    HELD_OUT,
    TEST_FACES,
    EdgeRendererConfig,
    PaintLoss,
    Pictures,
    draw_faces,
    inside_l1,
)
from sonic_ms.train.loop.trainer import LoopConfig, identity_of, train

DRAWN_WITH = 2  # seed of the drawings, that of the shipped painter's


@dataclass(frozen=True)
class SmallPainterConfig:
    """arm: name of the comparison's arm. drawings: folder of the training set, drawn when it is not there; faces: how
    many. widths: of a new painter; begin: folder of a model to go on from instead, whose widths are taken.

    teacher: "shipped" or a model's folder to learn from, besides the drawings, and teaching: its weight. thin: weight
    of L1 on the normalisations' scales, which makes channels fade. bits: one of quantize.KINDS to train with rounded
    weights, which needs `begin`.
    """

    loop: LoopConfig
    arm: str = "dense"
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    drawings: str = "runs/drawings"
    faces: int = 1000
    widths: tuple[int, int, int] = (24, 48, 64)
    begin: str | None = None
    teacher: str | None = None
    teaching: float = 1.0
    thin: float = 0.0
    bits: str | None = None

    def __post_init__(self):
        checks = (
            ("faces", self.faces >= 2, "at least 2"),
            ("widths", min(self.widths) >= 1, "at least 1"),
            ("teaching", self.teaching >= 0, "0 or more"),
            ("thin", self.thin >= 0, "0 or more"),
            ("bits", self.bits is None or self.bits in KINDS, f"one of {', '.join(KINDS)}"),
            ("arm", 0 < len(self.arm) <= 60 and self.arm.isprintable(), "a short name"),
        )
        require(self, checks)
        if self.bits and not self.begin:
            raise UsageError(
                f"bits is {self.bits!r} without begin; rounding begins with a trained model: begin: shipped"
            )


class SmallLoss(nn.Cell):
    """PaintLoss, with L1 to a teacher's picture and L1 on the scales of normalisations, where they have weight."""

    def __init__(self, painter, teacher, teaching, thin):
        super().__init__()
        self.paint = PaintLoss(painter, 4.0, 1.0)  # weights of the shipped recipe
        self.teacher, self.teaching, self.thin = teacher, teaching, thin
        self.scales = [p for p in painter.trainable_params() if p.name.endswith("gamma")] if thin else []
        self.scales = ms.ParameterTuple(self.scales)

    def construct(self, features, target):
        painted = self.paint.painter(features)
        loss = self.paint.of(features, painted, target)
        if self.teacher is not None:
            learned = composite(features, painted)
            told = ops.stop_gradient(composite(features, self.teacher(features)))
            weight = 1.0 + 4.0 * features[:, 7:8]
            loss = loss + self.teaching * ops.reduce_mean(ops.abs(learned - told) * weight)
        for scale in self.scales:
            loss = loss + self.thin * ops.reduce_sum(ops.abs(scale))
        return loss


def model_folder(name):
    """Path of "shipped" or of a folder."""
    return EDGE_FOLDER if name == "shipped" else Path(name)


def load_painter(name):
    """(PainterConfig, Painter) of "shipped" or of a model's folder. Raises InputMissingError, WeightsError."""
    folder = model_folder(name)
    config = load_config(PainterConfig, folder / "painter")
    return config, load_weights(Painter(config), folder / "painter")


def layer_work(painter):
    """{name of a weight: multiply-adds for one rectangle}, by the shapes its convolutions see."""
    found = {}
    for name, cell in painter.cells_and_names():
        if isinstance(cell, nn.Conv2d):
            scale = {"down1": 4, "down2": 16, "down3": 64, "up2": 16, "up1": 4, "leave": 4}[name.split(".")[0]]
            found[f"{name}.weight"] = int(np.prod(cell.weight.shape)) * ROI_HEIGHT * ROI_WIDTH // scale
    return found


class Drawings:
    """Training pictures of a folder, shared by runs, and faces to judge by."""

    def __init__(self, folder, faces):
        any_loop = LoopConfig(steps=1, batch_size=1, learning_rate=0.1, seed=DRAWN_WITH)
        self.folder = folder = Path(folder)
        drawn = (folder / "targets.npy").is_file() and (folder / "features.npy").is_file()
        self.pictures = Pictures(EdgeRendererConfig(any_loop, faces=faces), [] if drawn else renderer.real_portraits())
        self.pictures.build(folder)
        stored = self.pictures.stored[0].shape
        if stored[1:] != (FEATURES, ROI_HEIGHT, ROI_WIDTH):
            raise UsageError(f"{folder} has drawings of shape {stored}; remove it, they are drawn again")

    def batch(self, rng, size):
        return self.pictures.batch(rng, size)

    def judged(self, kind=HELD_OUT):
        """[(features, targets)] of the faces of a kind, float32; drawn once, they are kept beside the drawings."""
        path = self.folder / f"judged_{kind}_{TEST_FACES}.npz"
        if not path.is_file():
            faces = draw_faces(self.pictures, DRAWN_WITH, kind, TEST_FACES)
            with Temporary(self.folder, ".npz") as temporary:
                np.savez(temporary, features=[one for one, _ in faces], targets=[one for _, one in faces])
                os.replace(temporary, path)
        with np.load(path) as stored:
            return list(zip(stored["features"], stored["targets"]))


def weights_named(painter):
    """{name: array} of the convolutions' weights."""
    return {n: p.asnumpy() for n, p in painter.parameters_and_names() if n.endswith("weight")}


def round_weights(painter, kind):
    """Store the rounded weights in the painter: what is written is what was trained with."""
    for name, parameter in painter.parameters_and_names():
        if name.endswith("weight"):
            parameter.set_data(Tensor(quantize(parameter.asnumpy(), kind)))


def build(config):
    """(PainterConfig, Painter to train)."""
    if not config.begin:
        sizes = PainterConfig(config.widths)
        return sizes, Painter(sizes)
    sizes, painter = load_painter(config.begin)
    if config.bits:
        painter = quantize_convs(fold_norms(painter.set_train(False)), config.bits)
    return sizes, painter


def identity(config):
    """What must be the same in a resumed run: the settings, and what the files hold that they name."""
    files = {}
    if config.begin:
        files["begins_with"] = weights_digest(model_folder(config.begin), ["painter"])
    if config.teacher:
        files["taught_by"] = weights_digest(model_folder(config.teacher), ["painter"])
    if config.sparsity.masks:
        files["masks"] = sha256_of(config.sparsity.masks)
    return identity_of(config, **files)


def run(config, folder, resume=False):
    """Train and write folder/{audio,painter}, masks.safetensors where there are masks, and small.json."""
    folder = Path(folder)
    known = identity(config)
    ms.set_seed(config.loop.seed)
    sizes, painter = build(config)
    teacher = fold_norms(load_painter(config.teacher)[1].set_train(False)) if config.teacher else None
    for parameter in teacher.get_parameters() if teacher else ():
        parameter.requires_grad = False
    pruner = None if config.sparsity.is_dense else Pruner(config.sparsity)
    drawings = Drawings(config.drawings, config.faces)
    judged = drawings.judged()
    loss = SmallLoss(painter, teacher, config.teaching, config.thin)

    def validate(step):
        return {"test_inside_l1": inside_l1(painter, judged)}

    work = layer_work(Painter(sizes))
    last = train(loss, drawings.batch, config.loop, folder, validate, resume, known, pruner=pruner)
    painter.set_train(False)
    if config.bits:
        round_weights(painter, config.bits)
    figures = figures_of(config, painter, pruner, work, {"inside_l1": inside_l1(painter, judged)})
    save_small(folder, unfolded(painter, sizes) if config.bits else painter, sizes)
    if pruner:
        write_masks(folder / "masks.safetensors", pruner.arrays())
    write_record(folder, "small_painter", config.arm, config.loop.seed, figures)
    return last | {"test_inside_l1": f"{figures['inside_l1']:.6f}"}


def save_small(folder, painter, sizes):
    """Write a whole model of sonic-edge: this painter, and the shipped audio encoder."""
    save_model(painter, sizes, folder / "painter")
    shutil.copytree(EDGE_FOLDER / "audio", folder / "audio", dirs_exist_ok=True)
    write_model_file(folder, NAME)


def figures_of(config, painter, pruner, work, figures):
    """Figures of the written painter: weights that are not 0, bytes, multiply-adds, and those of the training."""
    weights, steps = weights_named(painter), config.loop.steps
    alive = {name: float((array != 0).mean()) for name, array in weights.items()}
    count = sum(array.size for array in weights.values())
    method, sparsity = ("static", config.sparsity) if pruner is None else (config.sparsity.method, config.sparsity)
    path = ()
    if method in GRADUAL:
        first, last = (
            (1.0 if method == "gmp" else sparsity.first_density),
            forward_flops(work, alive) / sum(work.values()),
        )
        path = [first + progress(sparsity, step, steps) * (last - first) for step in range(steps)]
    trained = training_flops(method, work, alive, steps, sparsity.every, path) * config.loop.batch_size
    figures |= {
        "weights": count,
        "nonzero": int(sum((array != 0).sum() for array in weights.values())),
        "bytes": sum(stored_bytes(a.shape, config.bits) if config.bits else 4 * a.size for a in weights.values()),
        "macs": forward_flops(work, alive),
        "training_macs": trained,
        "steps": steps,
    }
    if pruner:
        figures |= pruner.figures()
    return figures


def as_yaml(config):
    """The config as a recipe's text."""
    import yaml

    return yaml.safe_dump({"recipe": "small_painter", **_plain(dataclasses.asdict(config))})


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if one is not None}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
