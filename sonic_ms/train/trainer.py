"""The training loop shared by every recipe: seeded batches, warm-up and cosine, checkpoints, resume, loss curves.

A batch is a pure function of (seed, step), so a run that was killed and resumed sees the same data and, on the same
machine, gives the same losses.
"""

import csv
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from tqdm import tqdm

from sonic_ms.errors import UsageError, WeightsError


@dataclass(frozen=True)
class LoopConfig:
    """steps, batch sizes and learning rate (peak; linear warm-up, then cosine to 1 %) of one run."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 200
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    log_every: int = 50
    save_every: int = 500
    validate_every: int = 500
    seed: int = 0


class _Step(nn.Cell):
    """One AdamW step on a Cell that maps a batch to a scalar loss; returns the loss."""

    def __init__(self, loss_cell, optimizer, clip_norm):
        super().__init__()
        self.loss_cell = loss_cell
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.weights = optimizer.parameters
        self.gradient = ops.value_and_grad(loss_cell, None, self.weights)

    def construct(self, *batch):
        loss, gradients = self.gradient(*batch)
        gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        return ops.depend(loss, self.optimizer(gradients))


def _schedule(config):
    steps = np.arange(config.steps)
    warm = np.minimum(1.0, (steps + 1) / max(1, config.warmup))
    cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * steps / config.steps))
    return (config.learning_rate * warm * cosine).tolist()


def _save(step_cell, step, folder):
    temporary = folder / "checkpoint.tmp.ckpt"
    ms.save_checkpoint(step_cell, str(temporary))
    os.replace(temporary, folder / "checkpoint.ckpt")
    (folder / "progress.json.tmp").write_text(json.dumps({"step": step}))
    os.replace(folder / "progress.json.tmp", folder / "progress.json")


def _plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    for name in rows[0]:
        if name in ("step", "seconds", "learning_rate"):
            continue
        points = [(row["step"], float(row[name])) for row in rows if row.get(name) not in ("", None)]
        if points:
            axis.plot(*zip(*points), label=name)
    axis.set_xlabel("step")
    axis.set_yscale("log")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def train(loss_cell, make_batch, config, folder, validate=None, resume=False):
    """Run `config.steps` steps of AdamW; returns the last logged row.

    loss_cell(*tensors) -> scalar; make_batch(rng, batch_size) -> tuple of arrays; validate() -> {name: value}.
    Writes loss.csv, loss.png, checkpoint.ckpt and progress.json into `folder`. Raises WeightsError when the loss is
    not finite (the batch is kept as bad_batch.npz), UsageError when there is nothing to resume.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = nn.AdamWeightDecay(
        loss_cell.trainable_params(), learning_rate=_schedule(config), weight_decay=config.weight_decay
    )
    step_cell = _Step(loss_cell, optimizer, config.clip_norm)
    step_cell.set_train(True)
    first, rows = 0, []
    if resume:
        if not (folder / "progress.json").is_file():
            raise UsageError(f"nothing to resume in {folder}: progress.json is missing; start without --resume")
        first = json.loads((folder / "progress.json").read_text())["step"]
        ms.load_checkpoint(str(folder / "checkpoint.ckpt"), step_cell, strict_load=True)
        with open(folder / "loss.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= first]
    started, recent = time.time(), []
    for step in tqdm(range(first, config.steps), initial=first, total=config.steps, mininterval=5):
        batch = make_batch(np.random.default_rng([config.seed, step]), config.batch_size)
        loss = float(step_cell(*(ms.Tensor(array) for array in batch)).asnumpy())
        if not np.isfinite(loss):
            np.savez(folder / "bad_batch.npz", *batch)
            raise WeightsError(f"loss is {loss} at step {step}; the batch is in {folder / 'bad_batch.npz'}")
        recent.append(loss)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            row = {"step": done, "seconds": round(time.time() - started, 1), "train": f"{np.mean(recent):.6f}"}
            recent = []
            if validate and (done % config.validate_every == 0 or done == config.steps):
                loss_cell.set_train(False)
                row.update({name: f"{value:.6f}" for name, value in validate().items()})
                step_cell.set_train(True)
            rows.append(row)
            _write_rows(rows, folder)
        if done % config.save_every == 0 or done == config.steps:
            _save(step_cell, done, folder)
            _plot(rows, folder / "loss.png")
    return rows[-1]


def _write_rows(rows, folder):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(folder / "loss.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
