import csv

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from sonic_ms.errors import UsageError, WeightsError
from sonic_ms.train.trainer import LoopConfig, train

CONFIG = LoopConfig(
    steps=12, batch_size=4, learning_rate=0.05, warmup=2, log_every=1, save_every=4, validate_every=6, seed=3
)


class Loss(nn.Cell):
    def __init__(self):
        super().__init__()
        ms.set_seed(0)
        self.dense = nn.Dense(3, 1)

    def construct(self, x, y):
        return ops.reduce_mean(ops.square(self.dense(x) - y))


def batch(rng, size):
    x = rng.standard_normal((size, 3)).astype(np.float32)
    return x, x.sum(axis=1, keepdims=True)


def losses(folder):
    with open(folder / "loss.csv", newline="") as file:
        return [float(row["train"]) for row in csv.DictReader(file)]


def test_it_learns_and_logs(tmp_path):
    last = train(Loss(), batch, CONFIG, tmp_path, lambda: {"answer": 42.0})
    assert losses(tmp_path)[-1] < 0.5 * losses(tmp_path)[0]
    assert last["answer"] == "42.000000"
    assert (tmp_path / "loss.png").stat().st_size > 1000
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["00000008", "00000012"]


def test_a_killed_run_resumes_to_the_same_losses(tmp_path):
    train(Loss(), batch, CONFIG, tmp_path / "whole")

    calls = []

    def dying(rng, size):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt  # after the checkpoint of step 4
        return batch(rng, size)

    with pytest.raises(KeyboardInterrupt):
        train(Loss(), dying, CONFIG, tmp_path / "cut")
    train(Loss(), batch, CONFIG, tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_nothing_to_resume_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="nothing to resume"):
        train(Loss(), batch, CONFIG, tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(tmp_path):
    def broken(rng, size):
        x, y = batch(rng, size)
        return x * np.float32(np.nan), y

    with pytest.raises(WeightsError, match="at step 0"):
        train(Loss(), broken, CONFIG, tmp_path)
    assert np.isnan(np.load(tmp_path / "bad_batch.npz")["arr_0"]).all()
