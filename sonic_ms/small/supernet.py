"""Recipe small_search: one painter that is all narrower ones at once, trained by the sandwich rule (Yu and Huang 2019).

Every step is four batches: the widest painter, the narrowest, and two random ones; all but the widest also learn from
the widest one's picture. A narrower painter is a mask on channels, so that one graph serves all; cutting it out gives
the same picture (test_supernet.py). Normalisations keep the statistics of the mixture, so they are measured anew for
each candidate before it is judged, on faces for the search alone.
"""

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from sonic_ms.edge.renderer import Painter, PainterConfig, composite
from sonic_ms.errors import UsageError
from sonic_ms.files.config import require
from sonic_ms.files.weights import save_model
from sonic_ms.small.latency import ConvTimes
from sonic_ms.small.painter import Drawings, layer_work
from sonic_ms.small.record import write_record
from sonic_ms.small.search import WIDTHS, candidates, pareto
from sonic_ms.train.edge.renderer import PaintLoss
from sonic_ms.train.loop.trainer import LoopConfig, identity_of, train

SANDWICH = 4  # batches a step: widest, narrowest, two random ones
SEARCHED = 8  # kind of the faces that candidates are judged on; HELD_OUT is left for the winners
REMEASURE = 12  # batches for a candidate's normalisations
MOMENTUM = 0.9  # of BatchNorm2d: share of the old statistics that a batch leaves


@dataclass(frozen=True)
class SmallSearchConfig:
    """widths: choices at the three resolutions. judged: faces that candidates are judged on. drawings, faces: as of
    small_painter. times: measure convolutions in onnxruntime for a latency, which needs the onnx package."""

    loop: LoopConfig
    widths: tuple = WIDTHS
    judged: int = 8
    drawings: str = "runs/drawings"
    faces: int = 1000
    times: bool = True

    def __post_init__(self):
        good = len(self.widths) == 3 and all(
            isinstance(w, list | tuple) and w and all(type(n) is int and n > 0 for n in w) for w in self.widths
        )
        checks = (
            ("widths", good, "three lists of channels"),
            ("judged", self.judged >= 1, "at least 1"),
            ("faces", self.faces >= 2, "at least 2"),
        )
        require(self, checks)
        if self.loop.accumulation != SANDWICH:
            raise UsageError(f"loop: accumulation is {self.loop.accumulation}; the sandwich rule takes {SANDWICH}")


class SuperPainter(nn.Cell):
    """(features, a (1, c1, 1, 1), b, c): a Painter of which the channels with 0 in the three masks are absent."""

    def __init__(self, painter):
        super().__init__()
        self.painter = painter

    def construct(self, features, a, b, c):
        p = self.painter
        x1 = p.down1[1](p.down1[0](features) * a) * a
        x2 = p.down2[1](p.down2[0](x1) * b) * b
        x3 = p.down3[2](p.down3[1](p.down3[0](x2) * c) * c) * c
        x = p.up2(ops.concat((p.enlarge3(x3), x2), 1)) * b
        x = p.up1[1](p.up1[0](ops.concat((p.enlarge2(x), x1), 1)) * a) * a
        colour, shade = ops.split(p.interleave(p.leave(x)), [3, 1], 1)
        return ops.concat((ops.sigmoid(colour), ops.tanh(shade)), 1)


class SandwichLoss(nn.Cell):
    """PaintLoss of a masked painter, and L1 to the picture of the whole one, which learns nothing from that."""

    def __init__(self, super_painter):
        super().__init__()
        self.super_painter = super_painter
        self.paint = PaintLoss(None, 4.0, 1.0)  # weights of the shipped recipe

    def construct(self, features, target, a, b, c):
        painted = self.super_painter(features, a, b, c)
        loss = self.paint.of(features, painted, target)
        one = ops.ones_like(a), ops.ones_like(b), ops.ones_like(c)
        told = ops.stop_gradient(composite(features, self.super_painter(features, *one)))
        return loss + ops.reduce_mean(ops.abs(composite(features, painted) - told) * (1.0 + 4.0 * features[:, 7:8]))


def masks_of(widths, widest):
    """Three float32 masks (1, c, 1, 1) of the first channels."""
    return tuple(
        (np.arange(most) < count).astype(np.float32).reshape(1, -1, 1, 1) for count, most in zip(widths, widest)
    )


class Sandwich:
    """make_batch of the trainer: pictures, and the masks of the widest, the narrowest and random painters in turn."""

    def __init__(self, drawings, choices):
        self.drawings, self.choices, self.calls = drawings, choices, 0

    def __call__(self, rng, size):
        turn, self.calls = self.calls % SANDWICH, self.calls + 1
        pictures = self.drawings.batch(rng, size)
        picks = (max, min, rng.choice, rng.choice)[turn]
        return *pictures, *masks_of([int(picks(one)) for one in self.choices], [max(one) for one in self.choices])


def moving(painter):
    return [p for p in painter.get_parameters() if p.name.endswith(("moving_mean", "moving_variance"))]


def remeasure(super_painter, batches, masks):
    """Give the normalisations the statistics of a masked painter: the mean over batches [features]."""
    parameters, sums = moving(super_painter), None
    super_painter.set_train(True)
    for features in batches:
        for parameter in parameters:
            parameter.set_data(Tensor(np.zeros(parameter.shape, np.float32)))
        super_painter(Tensor(features), *map(Tensor, masks))
        seen = [p.asnumpy() / (1 - MOMENTUM) for p in parameters]
        sums = seen if sums is None else [a + b for a, b in zip(sums, seen)]
    super_painter.set_train(False)
    for parameter, total in zip(parameters, sums):
        parameter.set_data(Tensor((total / len(batches)).astype(np.float32)))


def judge(super_painter, faces, masks):
    """Mean absolute error inside the mouth of a masked painter on [(features, targets)]."""
    errors = []
    for features, target in faces:
        painted = super_painter(Tensor(features), *map(Tensor, masks))
        picture = composite(Tensor(features), painted).asnumpy()
        errors.append(np.abs(picture - target)[np.broadcast_to(features[:, 7:8] > 0.5, picture.shape)])
    return float(np.mean(np.concatenate(errors)))


def run(config, folder, resume=False):
    """Train the supernet, judge every candidate, write a folder with small.json for each and the whole painter; the
    figures of the Pareto front go to the log's last row as `on_front`."""
    folder = Path(folder)
    ms.set_seed(config.loop.seed)
    widest = tuple(max(one) for one in config.widths)
    painter = Painter(PainterConfig(widest))
    super_painter = SuperPainter(painter)
    drawings = Drawings(config.drawings, config.faces)
    batches = Sandwich(drawings, config.widths)
    last = train(SandwichLoss(super_painter), batches, config.loop, folder, None, resume, identity_of(config))
    faces = drawings.judged(SEARCHED)[: config.judged]
    rng = np.random.default_rng(config.loop.seed)
    shown = [drawings.batch(rng, config.loop.batch_size)[0] for _ in range(REMEASURE)]
    times, found = ConvTimes() if config.times else None, []
    for widths in candidates(config.widths):
        masks = masks_of(widths, widest)
        remeasure(super_painter, shown, masks)
        sizes = PainterConfig(widths)
        work = layer_work(Painter(sizes))
        figures = {"inside_l1": judge(super_painter, faces, masks), "macs": sum(work.values())}
        if times:
            figures["milliseconds"] = times.painter(sizes)
        place = folder / "candidates" / "-".join(map(str, widths))
        place.mkdir(parents=True, exist_ok=True)
        write_record(place, "small_search", ",".join(map(str, widths)), config.loop.seed, figures)
        found.append((figures.get("milliseconds", figures["macs"]), figures["inside_l1"]))
    painter.set_train(False)
    save_model(painter, PainterConfig(widest), folder / "painter")
    return last | {"on_front": len(pareto(found))}
