"""The lip-sync expert: its crops and pairs, learning on made-up clips that are in sync, and stopping on those that are
not."""

import dataclasses
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from sonic_ms.errors import UsageError
from sonic_ms.files.config import from_dict, read_yaml
from sonic_ms.train.loop.trainer import LoopConfig, train
from sonic_ms.train.syncnet import training as syncnet
from sonic_ms.train.syncnet.network import SyncNet, SyncNetConfig, mouth_matrices
from sonic_ms.train.syncnet.training import (
    CHANCE,
    Judge,
    MouthClip,
    MouthWindows,
    PairLoss,
    SyncNetTraining,
    pair_weights,
)

RECIPE = Path(__file__).resolve().parents[3] / "configs" / "syncnet.yaml"
SMALL = SyncNetConfig(frames=4, channels=(8, 16), embedding=16)
LOOP = LoopConfig(40, 16, 3e-3, warmup=5, weight_decay=0.0, log_every=10, save_every=100, validate_every=20, seed=1)
CONFIG = SyncNetTraining("here", "there", LOOP, SMALL, patience=40)


def made_up_clip(seed, shuffled=False):
    """3 s of a dark square that grows with a random loudness, and log-mel of that loudness; shuffled: of another."""
    rng = np.random.default_rng(seed)

    def loudness(rng):
        return np.clip(np.convolve(rng.random(85), np.ones(5) / 5, "same")[5:80] * 3 - 1, 0, 1)

    seen = loudness(rng)
    heard = loudness(np.random.default_rng([seed, 1])) if shuffled else seen
    mouths = np.full((75, 48, 64, 3), 200, np.uint8)
    for picture, opening in zip(mouths, seen):
        picture[24 - int(20 * opening) : 25 + int(20 * opening), 16:48] = 40
    mel = np.repeat(heard, 4)[None] * np.linspace(0.5, 1.5, 80)[:, None] + rng.normal(0, 0.05, (80, 300))
    return MouthClip(mouths, mel.astype(np.float32), np.ones(75, bool))


def learn(folder, shuffled, config=CONFIG):
    clips = [made_up_clip(seed, shuffled) for seed in range(12)]
    held_out = MouthWindows([made_up_clip(seed, shuffled) for seed in range(100, 106)], SMALL.frames, config.per_clip)
    windows = MouthWindows(clips, SMALL.frames, config.per_clip)
    ms.set_seed(0)
    loss = PairLoss(SyncNet(SMALL))
    return train(loss, windows.batch, config.loop, folder, Judge(loss, held_out, config))


@pytest.mark.slow
def test_clips_in_sync_are_learnt(tmp_path):
    last = learn(tmp_path, shuffled=False)
    assert float(last["test_loss"]) < 0.8 * CHANCE and float(last["test_accuracy"]) > 0.7


@pytest.mark.slow
def test_sound_of_something_else_stops_the_training(tmp_path):
    with pytest.raises(UsageError, match="no better than chance") as error:
        learn(tmp_path, shuffled=True)
    message = str(error.value)
    assert "\n" not in message and "after 40 steps" in message and "batch_size" in message
    assert (tmp_path / "loss.csv").is_file()


def test_a_training_that_had_learnt_is_not_stopped():
    judge = Judge.__new__(Judge)
    losses = iter([0.5, 0.72, 0.72])
    judge.loss = lambda *batch: ms.Tensor(np.float32(next(losses)))
    judge.loss.network, judge.windows = None, None
    judge.config, judge.batches, judge.best = CONFIG, [()], np.inf
    original, syncnet.accuracy = syncnet.accuracy, lambda *_: 0.5
    try:
        assert [round(judge(10**6)["test_loss"], 2) for _ in range(3)] == [0.5, 0.72, 0.72]
    finally:
        syncnet.accuracy = original


def test_a_network_that_knows_nothing_is_at_chance():
    windows = MouthWindows([made_up_clip(seed) for seed in range(4)], SMALL.frames, 4)
    mouths, mel, weights = windows.batch(np.random.default_rng(0), 16)
    network = SyncNet(SMALL)
    network.scale.set_data(ms.Tensor(np.zeros(1, np.float32)))
    loss = PairLoss(network)(ms.Tensor(mouths), ms.Tensor(mel), ms.Tensor(weights))
    assert float(loss.asnumpy()) == pytest.approx(np.log(2), abs=1e-5)


def test_weights_of_pairs():
    weights = pair_weights(np.array([3, 3, 5, 5]))
    assert weights.sum((1, 2)) == pytest.approx([0.5, 0.5])
    assert weights[0] == pytest.approx(np.eye(4) / 8)
    assert weights[1, 0] == pytest.approx([0, 0.25 / 4, 0.25 / 8, 0.25 / 8])
    assert np.diagonal(weights[1]).max() == 0


def test_windows_of_a_clip_lie_apart_and_have_voice():
    clip = made_up_clip(0)
    voiced = np.arange(75) >= 30
    windows = MouthWindows([dataclasses.replace(clip, voiced=voiced), clip], 4, 4)
    assert windows.starts(windows.clips[0]).min() == 26  # half of 8 pictures have voice
    for seed in range(20):
        starts = np.sort(windows.pick(np.random.default_rng(seed), windows.clips[0]))
        assert len(starts) == 4 and np.diff(starts).min() >= syncnet.MIN_SHIFT
    # every second picture, and the sound of the same moment
    assert np.array_equal(windows.sound(clip, 10)[0], clip.mel[:, 40:72])
    mouths = windows.mouths(clip, 10).reshape(4, 3, 48, 64)
    assert mouths[1] == pytest.approx(clip.mouths[12].transpose(2, 0, 1) / 127.5 - 1)


def test_too_little_speech_is_an_error():
    quiet = dataclasses.replace(made_up_clip(0), voiced=np.zeros(75, bool))
    with pytest.raises(UsageError, match="0 of 3 clips have speech"):
        MouthWindows([quiet] * 3, 4, 4)


def test_the_crop_is_the_lower_half_of_the_face():
    box, size = (20.0, 10.0, 84.0, 106.0), (120, 100)
    rows, columns = mouth_matrices(box, *size)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    # pixel centres count from 0: the crop spans y 58..106, x 26.4..77.6 in pixel edges, one row of it is a pixel
    crop_y, crop_x = rows @ y @ columns, rows @ x @ columns
    assert crop_y[:, 5] == pytest.approx(np.arange(58, 106), abs=1e-3)
    assert crop_x[5] == pytest.approx(26.4 + (np.arange(64) + 0.5) * 0.8 - 0.5, abs=1e-3)
    # shrinking averages all pixels: a pattern of single pixels leaves grey, not a pattern of its own
    rows, columns = mouth_matrices((0, 0, 512, 512), 512, 512)
    checks = np.indices((512, 512)).sum(0) % 2
    assert np.abs(rows @ checks @ columns - 0.5).max() < 0.05


def test_the_shipped_recipe_is_valid():
    values = read_yaml(RECIPE)
    assert values.pop("recipe") == "syncnet"
    assert from_dict(SyncNetTraining, values, str(RECIPE)).network == SyncNetConfig()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_clip": 1}, "per_clip is 1"),
        ({"per_clip": 9}, "at most half of batch_size"),
        ({"per_clip": 5}, "a multiple of per_clip"),
        ({"network": SyncNetConfig(frames=1)}, "frames is 1; expected 2 to 25"),
        ({"patience": 0}, "patience is 0"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(CONFIG, **changes)
