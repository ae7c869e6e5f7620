"""The training loop shared by every recipe: seeded batches, AdamW, checkpoints, resume, loss curves.

A batch is a pure function of (seed, step, its number within the step), so a run that was killed and resumed sees the
same data and, on the same machine, gives the same losses to the bit. Several processes (see distributed.py) take
batches of other numbers, as gradient accumulation does: two devices do what one does with twice the accumulation.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from tqdm import tqdm

from sonic_ms.errors import OutputError, UsageError, WeightsError
from sonic_ms.files.config import require
from sonic_ms.train.loop import checkpoint
from sonic_ms.train.loop.distributed import Group
from sonic_ms.train.loop.logs import Log
from sonic_ms.train.loop.optimizer import Accumulate, Publish, Reduce, States, Update, rates

FIRST_SCALE, SCALE_WINDOW = 2.0**16, 1000  # loss scale of float16 at the start; good steps before it doubles
NO_BF16 = "precision bf16 needs an Ascend 910B, not {}; use fp16 or fp32"
FREE = ("log_every", "save_every", "validate_every")  # what a resumed run may change: it does not change the weights


@dataclass(frozen=True)
class LoopConfig:
    """One run. learning_rate: peak, after a linear warm-up; then cosine to 1 % or constant, by `schedule`.

    batch_size: clips a device sees at once. accumulation: batches of every device in one step. precision: fp32, or
    fp16 and bf16 for networks in that width with float32 masters; fp16 scales the loss and skips steps that overflow.
    average: decay of the moving average of the weights, 0 for none; with one, it is what the recipe saves.
    bias_correction: of AdamW's moments, as published; the shipped sonic-edge was trained without. shard_optimizer:
    spread masters, moments and averages over the devices.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 200
    schedule: str = "cosine"
    weight_decay: float = 1e-4
    epsilon: float = 1e-6
    bias_correction: bool = True
    clip_norm: float = 1.0
    accumulation: int = 1
    precision: str = "fp32"
    average: float = 0.0
    shard_optimizer: bool = False
    log_every: int = 50
    save_every: int = 500
    validate_every: int = 500
    seed: int = 0

    def __post_init__(self):
        checks = (
            ("steps", self.steps >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < 1, "between 0 and 1"),
            ("warmup", self.warmup >= 0, "0 or more steps"),
            ("schedule", self.schedule in ("cosine", "constant"), "cosine or constant"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("epsilon", self.epsilon > 0, "above 0"),
            ("clip_norm", self.clip_norm > 0, "above 0"),
            ("accumulation", self.accumulation >= 1, "at least 1"),
            ("precision", self.precision in ("fp32", "fp16", "bf16"), "fp32, fp16 or bf16"),
            ("average", 0 <= self.average < 1, "0 to below 1"),
            ("log_every", self.log_every >= 1, "at least 1"),
            ("save_every", self.save_every >= 1, "at least 1"),
            ("validate_every", self.validate_every >= 1, "at least 1"),
            ("seed", self.seed >= 0, "0 or more"),
        )
        require(self, checks, "loop: ")

    def rate(self, step):
        """Learning rate of step 0, 1, ..."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / self.steps))
        return self.learning_rate * warm * (cosine if self.schedule == "cosine" else 1.0)


def identity_of(config, **more):
    """What must not change between the runs of one training: the fields of a recipe's config, `loop` flattened."""
    fields = dataclasses.asdict(config)
    loop = fields.pop("loop", {})
    if isinstance(config, LoopConfig):
        loop, fields = fields, {}
    return {**fields, **{f"loop.{key}": value for key, value in loop.items() if key not in FREE}, **more}


def check_precision(precision, weights):
    """UsageError when a network is not in the precision of the loop, or the device has none."""
    width = {"fp32": ms.float32, "fp16": ms.float16, "bf16": ms.bfloat16}[precision]
    if precision == "bf16" and not has_bf16():
        raise UsageError(NO_BF16.format(ms.get_context("device_target")))
    if any(weight.dtype != width for weight in weights):
        raise UsageError(f"precision is {precision}, but this recipe's network is in {weights[0].dtype}; use fp32")


def has_bf16():
    """Whether this device computes in bfloat16: Ascend 910B and 910_93 do, a CPU, 310, 310P and 910A do not."""
    if ms.get_context("device_target") != "Ascend":
        return False
    from mindspore._c_expression import MSContext

    chip = MSContext.get_instance().get_ascend_soc_version().lower()
    return chip.startswith(("ascend910b", "ascend910_93"))


def train(loss_cell, make_batch, config, folder, validate=None, resume=False, identity=None, group=None, pruner=None):
    """Run `config.steps` steps of AdamW; returns the last logged row.

    Args:
        loss_cell: Cell, batch -> scalar loss; its trainable parameters are trained. With an average, they hold it
            when this returns.
        make_batch: function (rng, batch_size) -> tuple of arrays.
        config: LoopConfig.
        folder: takes loss.csv, loss.png, events/ and checkpoints/.
        validate: function (steps done) -> {name: value}, called every validate_every steps.
        identity: dict that has to be the same when a run is resumed, see `identity_of`; the config by default.
        group: distributed.Group of this process.
        pruner: small.pruner.Pruner or another with its methods, which masks weights or gradients; none by default.
    Raises:
        WeightsError: loss or gradients are not finite; the batch is kept as bad_batch.npz.
        UsageError: nothing to resume, or another configuration than at the start.
        OutputError: a checkpoint or log cannot be written; the last checkpoint is still there.
    """
    identity = identity if identity is not None else identity_of(config)
    run = Run(loss_cell, make_batch, config, Path(folder), validate, identity, group or Group(), pruner)
    return run(resume)


class Run:
    """One call of `train`."""

    def __init__(self, loss_cell, make_batch, config, folder, validate, identity, group, pruner=None):
        self.loss_cell, self.make_batch, self.config = loss_cell, make_batch, config
        self.folder, self.validate, self.identity, self.group = folder, validate, identity, group
        self.pruner = pruner
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write in {folder}: {error.strerror}") from error
        weights = loss_cell.trainable_params()
        check_precision(config.precision, weights)
        self.states = States(weights, group, config.shard_optimizer, config.average > 0)
        moving = [p for p in loss_cell.get_parameters() if p.name.endswith(("moving_mean", "moving_variance"))]
        self.tensors = {**self.states.tensors(), **{f"moving.{p.name}": p for p in moving}}
        if pruner:
            self.tensors |= pruner.attach(self.states, config.steps)
        self.accumulate = Accumulate(loss_cell, self.states).set_train(True)
        self.reduce, self.update = Reduce(self.states), Update(self.states)
        self.scale = FIRST_SCALE if config.precision == "fp16" else 1.0
        self.good, self.recent, self.skipped, self.clock = 0, [], 0, Clock()

    def __call__(self, resume):
        config, first = self.config, 0
        if resume:
            first = self._load()
        log = Log(self.folder, first if resume else None, self.group.rank == 0)
        clock = self.clock
        bar = tqdm(
            range(first, config.steps), initial=first, total=config.steps, mininterval=5, disable=self.group.rank != 0
        )
        for step in bar:
            clock.start()
            loss, norm = self._step(step)
            clock.stop(config.batch_size * config.accumulation * self.group.size)
            self.recent.append(loss)
            done, last = step + 1, step + 1 == config.steps
            if done % config.log_every == 0 or last or self._validates(done):
                log.add(self._row(done, norm, clock))
            if done % config.save_every == 0 or last:
                self._save(done)
                log.plot()
        log.close()
        if config.average and first < config.steps:
            Publish(self.states.slots, "average")()
        if not log.rows:
            raise UsageError(f"{self.folder} is trained already: step {first} of {config.steps}")
        return log.rows[-1]

    def _step(self, step):
        """One optimizer step; returns the mean loss and the norm of the gradients."""
        config, group = self.config, self.group
        total, batches = 0.0, []
        for part in range(config.accumulation):
            number = part * group.size + group.rank
            rng = np.random.default_rng([config.seed, step, number] if number else [config.seed, step])
            batch = self.make_batch(rng, config.batch_size)
            loss = self.accumulate(ms.Tensor(np.float32(self.scale)), *(ms.Tensor(array) for array in batch))
            batches.append((number, float(loss.asnumpy()), batch))
            total += batches[-1][1]
        changing = self.pruner is not None and self.pruner.changes(step)
        if self.pruner and not changing:  # before the norm is taken: gradients without effect must not clip others
            self.pruner.mask_gradients()
        loss, squares = (float(value.asnumpy()) for value in self.reduce(ms.Tensor(np.float32(total))))
        count = config.accumulation * group.size
        norm = np.sqrt(squares) / (self.scale * count)
        if not np.isfinite(loss):
            self._stop(step, "loss", loss / count, batches)
        if not np.isfinite(norm):
            self._overflow(step, norm, batches)
        elif changing:  # in place of a step, as its authors do: this needs the gradients of all weights
            self.pruner.change(step)
            self.states.clear()
        else:
            factor = min(1.0, config.clip_norm / max(norm, 1e-12)) / (self.scale * count)
            self._update(step, factor)
        return loss / count, norm

    def _update(self, step, factor):
        config = self.config
        scalars = rates(config.rate(step), step, config.weight_decay, config.epsilon, config.bias_correction)
        self.update(*(ms.Tensor(np.float32(value)) for value in (factor, *scalars, config.average)))
        self.good += 1
        if config.precision == "fp16" and self.good % SCALE_WINDOW == 0:
            self.scale *= 2

    def _overflow(self, step, norm, batches):
        """float16 gradients overflowed: leave the step out and scale less; in any other case stop."""
        if self.config.precision != "fp16" or self.scale <= 1:
            self._stop(step, "norm of the gradients", norm, batches)
        self.scale, self.good, self.skipped = self.scale / 2, 0, self.skipped + 1
        self.states.clear()

    def _stop(self, step, what, value, batches):
        """Keep the batch that did it, or the last one when no single batch did, and raise."""
        guilty = [entry for entry in batches if not np.isfinite(entry[1])] or batches[-1:]
        number, _, batch = guilty[0]
        path = self.folder / ("bad_batch.npz" if number == 0 else f"bad_batch_{number}.npz")
        try:
            np.savez(path, *batch)
            where = f"the batch is in {path}"
        except OSError as error:
            where = f"the batch could not be written to {path} ({error.strerror})"
        raise WeightsError(f"{what} is {value} at step {step}; {where}; the last checkpoint is kept")

    def _row(self, done, norm, clock):
        config = self.config
        row = {
            "step": done,
            "seconds": round(clock.total, 1),
            "train": f"{np.mean(self.recent):.6f}",
            "learning_rate": f"{config.rate(done - 1):.3e}",
            "gradient_norm": f"{norm:.4e}",
            "samples_per_second": f"{clock.samples_per_second():.3f}",
        }
        self.recent = []
        if config.precision == "fp16":
            row |= {"loss_scale": int(self.scale), "skipped": self.skipped}
        if done == config.log_every or not clock.reported:
            row["compile_seconds"] = f"{clock.compile:.1f}"
            clock.reported = True
        if self._validates(done):
            self.loss_cell.set_train(False)
            row |= {name: f"{value:.6f}" for name, value in self.validate(done).items()}
            self.accumulate.set_train(True)
        return row

    def _validates(self, done):
        return self.validate is not None and (done % self.config.validate_every == 0 or done == self.config.steps)

    def _save(self, done):
        state = {"scale": self.scale, "good": self.good, "recent": self.recent, "skipped": self.skipped}
        state["seconds"] = self.clock.total
        checkpoint.save(self.folder, done, self.group, self.tensors, state, self.identity)

    def _load(self):
        step, state, notes = checkpoint.load(self.folder, self.group, self.tensors, self.identity)
        for note in notes:
            print(note)
        self.scale, self.good, self.recent = state.scale, state.good, list(state.recent)
        self.skipped, self.clock.total = state.skipped, state.seconds
        Publish(self.states.slots, "master")()
        return step


class Clock:
    """Time spent in steps. The first one builds the graphs: it is kept apart and not part of the speed."""

    def __init__(self):
        self.compile, self.total, self.samples, self.working = None, 0.0, 0, 0.0
        self.reported = False

    def start(self):
        self._began = time.perf_counter()

    def stop(self, samples):
        spent = time.perf_counter() - self._began
        self.total += spent
        if self.compile is None:
            self.compile = spent
        else:
            self.samples, self.working = self.samples + samples, self.working + spent

    def samples_per_second(self):
        """Since the last call; 0 where only the first step ran."""
        speed = self.samples / self.working if self.working else 0.0
        self.samples, self.working = 0, 0.0
        return speed
