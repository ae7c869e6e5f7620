"""Recipe of sonic-base: teach a copy to do in a few steps of one branch what the teacher does in many of three.

Multistep consistency distillation (Heek et al. 2024, after Song et al. 2023), in the way of latent consistency models
(Luo et al. 2023): the levels of noise of a video of `steps` steps cut the way into segments. At a level s inside one,
the student has to say where the segment ends, as it says a little further, at t, where one step of the guided teacher
leads; at the end of the segment that is where the teacher has arrived. The guidance of the teacher is learned with it,
so the result is for `generate --inference-steps STEPS --image-guidance 1 --audio-guidance 1`.
"""

from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from sonic_ms.base.scheduler import RHO, EulerScheduler, SchedulerConfig, clean_latents
from sonic_ms.files.config import require
from sonic_ms.files.digest import weights_digest
from sonic_ms.nn.host import time_sinusoids
from sonic_ms.train.base.clips import ClipBatches
from sonic_ms.train.base.diffusion import Draw, NoiseConfig, SonicLoss, network_inputs, stack
from sonic_ms.train.base.finetune import Networks
from sonic_ms.train.base.lora import LoRAConfig, add_lora
from sonic_ms.train.base.memory import check_memory, shapes_of
from sonic_ms.train.base.trained import PARTS, TRAINED, freeze, recompute_blocks
from sonic_ms.train.loop.trainer import LoopConfig, identity_of, train


@dataclass(frozen=True)
class BaseDistillConfig:
    """model: folder of a converted sonic-base, the teacher and the student's start. shards: folder of `sonic-ms data
    build`. steps: of the student's videos. teacher_steps: of the teacher in each of them. image_guidance,
    audio_guidance: the teacher's. The rest as in BaseFinetuneConfig.
    """

    model: str
    shards: str
    loop: LoopConfig
    steps: int = 6
    teacher_steps: int = 4
    image_guidance: float = 2.0
    audio_guidance: float = 7.5
    trainable: tuple[str, ...] = ("lora",)
    frames: int = 25
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    recompute: bool = True
    bucket_weight = 0.0  # audio2bucket stays the teacher's
    sync = None

    def __post_init__(self):
        known = set(self.trainable) <= set(PARTS) and self.trainable
        checks = (
            ("trainable", known, f"some of {', '.join(PARTS)}"),
            ("steps", 1 <= self.steps <= 25, "1 to 25"),
            ("teacher_steps", 1 <= self.teacher_steps <= 100, "1 to 100"),
            ("frames", self.frames >= 1, "at least 1"),
            ("image_guidance", 0 <= self.image_guidance <= 30, "0 to 30"),
            ("audio_guidance", 0 <= self.audio_guidance <= 30, "0 to 30"),
        )
        require(self, checks)


def segments(config):
    """Levels of noise (steps, teacher_steps + 1) of every segment, largest first; the last level of all is 0.

    Within a segment they are even in the root that spaces the scheduler's own; in the last one, where that would be
    levels without any noise, even as they are.
    """
    ends = EulerScheduler(SchedulerConfig(), config.steps).sigmas.astype(np.float64)
    share, roots = np.linspace(0, 1, config.teacher_steps + 1), ends ** (1 / RHO)
    levels = (roots[:-1, None] + (roots[1:] - roots[:-1])[:, None] * share) ** RHO
    levels[-1] = ends[-2] * (1 - share)
    return levels.astype(np.float32)


def euler(noisy, prediction, sigma, following):
    """Latents at the level `following` from a v-prediction at `sigma`; all of shapes that broadcast."""
    return noisy + (noisy - clean_latents(prediction, noisy, sigma)) / sigma * (following - sigma)


def velocity_to(target, noisy, sigma, end):
    """The v-prediction with which one Euler step from `noisy` at `sigma` arrives at `target`, at the level `end`."""
    clean = noisy - sigma * (target - noisy) / (end - sigma)
    return np.sqrt(sigma**2 + 1) / sigma * (noisy / (sigma**2 + 1) - clean)


class Teacher(nn.Cell):
    """v-predictions of frozen networks: what SonicLoss predicts, and no loss."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def construct(self, sample, time, ids, masks, seen, states):
        return self.loss.predict(sample, time, ids, masks, seen, states)


class ConsistencyLoss(SonicLoss):
    """Error of the student's v at s against base + gain * its own v at t, which learns nothing; see `target`."""

    def construct(self, *arrays):
        here, there, (base, gain, weight) = arrays[:6], arrays[6:12], arrays[12:]
        later = ops.stop_gradient(self.predict(*there))
        error = self.predict(*here) - (base + gain * later)
        return ops.reduce_mean(weight * error * error)


class DistillBatches:
    """make_batch of the trainer: random clips at random levels, and where one guided step of the teacher leads.

    teacher(*arrays): v-predictions (b, t, 4, h, w) of the first six arrays of network_inputs.
    """

    def __init__(self, samples, config, configs, scaling, teacher):
        self.clips = ClipBatches(samples, config.frames, configs, scaling, NoiseConfig())
        self.config, self.unet, self.scaling, self.teacher = config, configs["unet"], scaling, teacher
        self.levels = segments(config)

    def __call__(self, rng, size):
        clips = stack([self.clips.clip(rng) for _ in range(size)])
        segment, part = rng.integers(self.config.steps, size=size), rng.integers(self.config.teacher_steps, size=size)
        sigma, following, end = (
            self.levels[segment, number].reshape(size, 1, 1, 1, 1)
            for number in (part, part + 1, self.config.teacher_steps)
        )
        ones = np.ones(size, np.float32)
        drawn = Draw(rng.standard_normal(clips["latents"].shape, np.float32), sigma.reshape(-1), ones, ones, ones)
        arrays = network_inputs(self.unet, self.scaling, clips, drawn, NoiseConfig())
        here, weight = [np.asarray(array, np.float32) for array in arrays[:6]], arrays[7]
        noisy = self.scaling * clips["latents"] + sigma * drawn.noise
        arrived = euler(noisy, self.guided(here), sigma, following)
        level, base, gain = target(noisy, sigma, following, end, arrived)
        time, _ = time_sinusoids(self.unet, 0.25 * np.log(level.reshape(-1)), np.zeros((size, 3)))
        there = [np.concatenate([arrived / np.sqrt(level**2 + 1), here[0][:, :, 4:]], axis=2), time, *here[2:]]
        return tuple(np.asarray(array, np.float32) for array in (*here, *there, base, gain, weight))

    def guided(self, heard):
        """The teacher's guided v, by three branches of which each is a batch of its own. heard: its six arrays."""
        sample, time, ids, masks, seen, states = heard
        blind = sample.copy()
        blind[:, :, 4:] = 0
        silence = np.zeros_like(states)
        v_heard = self.teacher(*heard)
        v_seen = self.teacher(sample, time, ids, masks, seen, silence)
        v_nothing = self.teacher(blind, time, ids, masks, np.zeros_like(seen), silence)
        change = self.config.image_guidance * (v_seen - v_nothing)
        return v_nothing + change + self.config.audio_guidance * (v_heard - v_seen)


def target(noisy, sigma, following, end, arrived):
    """(level t, base, gain): with base + gain * v the student goes from `noisy`, at sigma, to where its own later v,
    at t, leads from `arrived`: to the end of the segment. An Euler step is linear in v.

    At that end there is nothing left to go: the target is `arrived` itself and the gain 0. t is sigma there, so that
    the networks see some level; none is defined at 0.
    """
    last = following == end
    level = np.where(last, sigma, following)
    at_end = np.where(last, arrived, euler(arrived, 0.0, level, end))
    gain = np.where(last, 0, np.sqrt((sigma**2 + 1) / (level**2 + 1)) * (end - level) / (end - sigma))
    return level, velocity_to(at_end, noisy, sigma, end), gain


def run(config, folder, resume=False):
    """The recipe base_distill of `sonic-ms train`: on a folder of `sonic-ms data build --model`."""
    from sonic_ms.data.samples import Shards

    return distill(config, Shards(config.shards), folder, resume)


def distill(config, samples, folder, resume=False):
    """Train on `samples` (see clips.py) and write folder/model; returns the last row of the log."""
    networks, frozen = (Networks(config.model, config.loop.precision) for _ in range(2))
    ms.set_seed(config.loop.seed)
    if "lora" in config.trainable:
        add_lora(networks.cells["unet"], config.lora, config.loop.seed)
    loss = ConsistencyLoss(networks.configs["unet"], *networks.cells.values(), config.frames, 0.0)
    freeze(loss, config.trainable)
    if config.recompute:
        recompute_blocks(networks.cells["unet"].denoiser)
    height, width = np.shape(samples[0]["latents"])[-2:] if len(samples) else (1, 1)  # ClipBatches refuses an empty set
    teacher = Teacher(SonicLoss(networks.configs["unet"], *frozen.cells.values(), config.frames, 0.0)).set_train(False)
    shapes = shapes_of(loss) + [(shape, False) for shape, _ in shapes_of(teacher)]
    check_memory(networks.configs["unet"], shapes, config, height, width)

    def predict(*arrays):
        return teacher(*[ms.Tensor(array) for array in arrays]).asnumpy()

    scaling = networks.configs["vae"].scaling_factor
    batches = DistillBatches(samples, config, networks.configs, scaling, predict)
    identity = identity_of(config, base=weights_digest(config.model, TRAINED))
    last = train(loss, batches, config.loop, folder, None, resume, identity)
    networks.save(Path(folder) / "model")
    return last
