"""Distillation to a few steps: its targets against the definition, and a toy student that learns from a toy teacher."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from sonic_ms.base.configs import AdapterConfig, UNetConfig
from sonic_ms.base.scheduler import EulerScheduler, SchedulerConfig
from sonic_ms.errors import UsageError
from sonic_ms.nn.host import time_sinusoids
from sonic_ms.train.base.distill import (
    BaseDistillConfig,
    ConsistencyLoss,
    DistillBatches,
    euler,
    segments,
    velocity_to,
)
from sonic_ms.train.loop.trainer import LoopConfig, train

UNET = UNetConfig((32, 64), (1, 2), 8, 16, 48, layers_per_block=1, num_frames=2)
CONFIGS = {
    "unet": UNET,
    "audio2token": AdapterConfig(10, 5, 4, 8, 8, 32),
    "audio2bucket": AdapterConfig(50, 1, 4, 8, 1, 2, 8),
}
LOOP = LoopConfig(100, 8, 5e-2, warmup=5, weight_decay=0.0, epsilon=1e-8, log_every=50, save_every=10**6)
SPREAD = np.float32(0.5)  # of the toy data around what photo and sound say


def a_config(**changes):
    values = {"steps": 3, "teacher_steps": 4, "frames": 2, "loop": LOOP, "image_guidance": 2.0, "audio_guidance": 3.0}
    return BaseDistillConfig("model", "shards", **values | changes)


def velocity(clean, noisy, sigma):
    return np.sqrt(sigma**2 + 1) / sigma * (noisy / (sigma**2 + 1) - clean)


def teacher(sample, time, ids, masks, seen, states):
    """The exact v of data that is normal around a mean: a share of the photo's latents, and of the sound."""
    t = np.arctan2(time[:, 16], time[:, 0])  # the fastest sinusoid: the time itself
    sigma = np.exp(4 * t).reshape(-1, 1, 1, 1, 1)
    noisy = sample[:, :, :4] * np.sqrt(sigma**2 + 1)
    b, frames = sample.shape[:2]
    sound = states.reshape(b, frames, -1).mean(-1)[:, :, None, None, None]
    mean = 0.5 * sample[:, :, 4:] + sound
    return velocity((SPREAD**2 * noisy + sigma**2 * mean) / (SPREAD**2 + sigma**2), noisy, sigma).astype(np.float32)


class Toy(ConsistencyLoss):
    """A student of the form the teacher has: v is a mixture of latents, photo and sound that depends on the time."""

    def __init__(self, levels):
        nn.Cell.__init__(self)
        table = np.concatenate([time_sinusoids(UNET, 0.25 * np.log(s), np.zeros((1, 3)))[0] for s in levels])
        self.known = Tensor(table)  # (levels, c)
        start = []
        for sigma in levels:  # the teacher of the branch that sees and hears
            share = sigma**2 / (SPREAD**2 + sigma**2)
            factor = np.sqrt(sigma**2 + 1) / sigma
            noisy = factor * (1 / (sigma**2 + 1) - (1 - share)) * np.sqrt(sigma**2 + 1)
            start.append([noisy, -factor * share * 0.5, -factor * share])
        self.weights = Parameter(Tensor(np.float32(start)))

    def predict(self, sample, time, ids, masks, seen, states):
        b, frames = sample.shape[:2]
        distance = ops.reduce_sum(ops.square(ops.expand_dims(time, 1) - ops.expand_dims(self.known, 0)), -1)
        near = ops.softmax(-1e4 * distance, -1)  # which of the levels it is
        mix = ops.reshape(ops.matmul(near, self.weights), (b, 3, 1, 1, 1, 1))
        sound = ops.reshape(ops.ReduceMean()(ops.reshape(states, (b, frames, -1)), -1), (b, frames, 1, 1, 1))
        return mix[:, 0] * sample[:, :, :4] + mix[:, 1] * sample[:, :, 4:] + mix[:, 2] * sound


def toy_samples(count=4):
    rng = np.random.default_rng(0)
    return [
        {
            "latents": rng.standard_normal((4, 4, 4, 4), np.float32),
            "image_latents": rng.standard_normal((4, 4, 4), np.float32),
            "clip_embedding": np.ones(8, np.float32),
            "whisper_states": rng.standard_normal((40, 5, 4), np.float32),
            "mask": np.ones((8, 8), np.float32),
            "buckets": np.float32([20, 20]),
            "fps": 12.5,
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def batches():
    return DistillBatches(toy_samples(), a_config(), CONFIGS, 0.5, teacher)


def test_segments_are_cut_at_the_levels_of_a_video():
    levels = segments(a_config())
    ends = EulerScheduler(SchedulerConfig(), 3).sigmas
    assert np.allclose(levels[:, 0], ends[:-1]) and np.allclose(levels[:, -1], ends[1:], atol=1e-6)
    assert (np.diff(levels, axis=1) < 0).all()


def test_a_velocity_leads_where_it_should():
    rng = np.random.default_rng(1)
    noisy, v = rng.standard_normal((2, 3, 4))
    target = euler(noisy, v, 5.0, 2.0)
    assert np.allclose(velocity_to(target, noisy, 5.0, 2.0), v)
    scheduler = EulerScheduler(SchedulerConfig(), 4)
    ours = euler(noisy, v, *scheduler.sigmas[1:3])
    assert np.allclose(ours, scheduler.step(v, noisy, 1), rtol=1e-4)


def test_a_step_with_the_target_leads_where_a_later_step_leads(batches):
    """base + gain * v, for any v at t: both Euler steps end in one place."""
    arrays = batches(np.random.default_rng(2), 12)
    here, there, (base, gain, _) = arrays[:6], arrays[6:12], arrays[12:]
    times = [np.arctan2(part[1][:, 16], part[1][:, 0]).reshape(-1, 1, 1, 1, 1) for part in (here, there)]
    sigma, level = (np.exp(4 * one) for one in times)
    ends = EulerScheduler(SchedulerConfig(), 3).sigmas
    end = np.array([ends[ends < one * 0.999].max() for one in sigma.reshape(-1)]).reshape(sigma.shape)
    last = gain.reshape(-1) == 0
    assert 0 < last.sum() < 12
    later = np.random.default_rng(3).standard_normal(base.shape)
    noisy, arrived = (part[0][:, :, :4] * np.sqrt(one**2 + 1) for part, one in ((here, sigma), (there, level)))
    found = euler(noisy, base + gain * later, sigma, end)
    expected = np.where(last.reshape(sigma.shape), arrived, euler(arrived, later, level, end))
    scale = np.sqrt(end**2 + 1)
    assert np.allclose(found / scale, expected / scale, rtol=2e-3, atol=2e-3)


def generate(predict, sample, steps, guidance):
    """A clip by Euler steps: latents (1, t, 4, h, w)."""
    scheduler = EulerScheduler(SchedulerConfig(), steps)
    latents = scheduler.add_noise(np.zeros_like(sample["noise"]), sample["noise"])

    def branch(scaled, index, image, sound):
        time, _ = time_sinusoids(UNET, scheduler.timesteps[index], np.zeros((1, 3)))
        joined = np.concatenate([scaled, image * sample["image"]], axis=2).astype(np.float32)
        return predict(joined, time, None, None, None, sound * sample["states"])

    for index in range(steps):
        scaled = scheduler.scale_input(latents, index)
        v = branch(scaled, index, 1, 1)
        if guidance:
            nothing, seen = branch(scaled, index, 0, 0), branch(scaled, index, 1, 0)
            v = nothing + guidance[0] * (seen - nothing) + guidance[1] * (v - seen)
        latents = scheduler.step(v, latents, index)
    return latents


@pytest.mark.slow
def test_the_student_comes_closer_to_the_teacher_of_many_steps(batches, tmp_path):
    """Than the teacher itself in as few steps, with a third of its branches."""
    student = Toy(segments(a_config())[:, :-1].reshape(-1))
    train(student, batches, LOOP, tmp_path)

    def run(*arrays):
        tensors = [Tensor(np.float32(array)) for array in (arrays[0], arrays[1], arrays[5])]
        return student.predict(tensors[0], tensors[1], None, None, None, tensors[2]).asnumpy()

    before, after = [], []
    for seed in range(5):
        rng = np.random.default_rng(100 + seed)
        image = np.repeat(rng.standard_normal((1, 1, 4, 4, 4), np.float32), 2, 1)
        sample = {
            "noise": rng.standard_normal((1, 2, 4, 4, 4), np.float32),
            "image": image,
            "states": rng.standard_normal((2, 10, 5, 4), np.float32),
        }
        many = generate(teacher, sample, 48, (2.0, 3.0))
        before.append(np.linalg.norm(generate(teacher, sample, 3, (2.0, 3.0)) - many) / np.linalg.norm(many))
        after.append(np.linalg.norm(generate(run, sample, 3, None) - many) / np.linalg.norm(many))
    assert np.mean(after) < 0.5 * np.mean(before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; expected 1 to 25"),
        ({"teacher_steps": 0}, "teacher_steps is 0"),
        ({"trainable": ("sound",)}, "expected some of audio, temporal, lora, all"),
        ({"trainable": ()}, "expected some of"),
        ({"frames": 0}, "expected at least 1"),
        ({"image_guidance": -1.0}, "expected 0 to 30"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        a_config(**changes)
