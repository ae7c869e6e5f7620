import csv
import dataclasses
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from sonic_ms.errors import OutputError, UsageError, WeightsError
from sonic_ms.train.loop import trainer
from sonic_ms.train.loop.trainer import train
from tests.support.tiny_run import CONFIG, Loss, batch

pytestmark = [pytest.mark.slow]


def losses(folder):
    with open(folder / "loss.csv", newline="") as file:
        return [(int(row["step"]), float(row["train"])) for row in csv.DictReader(file)]


def changed(**fields):
    return dataclasses.replace(CONFIG, **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Losses of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    train(Loss(), batch, CONFIG, folder)
    return losses(folder)


class Dies:
    """make_batch that raises at the start of step `at`, after calling `first`."""

    def __init__(self, at, first=None, error=KeyboardInterrupt):
        self.left, self.first, self.error = at, first, error

    def __call__(self, rng, size):
        if self.left == 0:
            if self.first:
                self.first()
            raise self.error
        self.left -= 1
        return batch(rng, size)


def test_it_learns_and_logs(tmp_path):
    last = train(Loss(), batch, CONFIG, tmp_path, lambda step: {"answer": 30.0 + step})
    assert losses(tmp_path)[-1][1] < 0.5 * losses(tmp_path)[0][1]
    assert last["answer"] == "42.000000"
    assert float(last["samples_per_second"]) > 0
    with open(tmp_path / "loss.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert float(first["compile_seconds"]) > float(first["samples_per_second"]) == 0  # the first step is apart
    assert (tmp_path / "loss.png").stat().st_size > 1000
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["00000008", "00000012"]


def test_tensorboard_events_hold_the_losses(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    train(Loss(), batch, changed(steps=4), tmp_path)
    (path,) = (tmp_path / "events").glob("events.out.tfevents.*")
    data, found = path.read_bytes(), {}
    while data:  # a record: length, its checksum, the event, its checksum
        size = int.from_bytes(data[:8], "little")
        assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
        event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    assert [found["train", step] for step, _ in losses(tmp_path)] == pytest.approx([v for _, v in losses(tmp_path)])


def test_a_killed_process_resumes_to_the_same_losses(tmp_path, whole):
    script = str(Path(__file__).resolve().parents[2] / "support" / "tiny_run.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    process = subprocess.Popen([sys.executable, script, str(tmp_path), "0.3"], env=environment)
    checkpoint, deadline = tmp_path / "checkpoints" / "00000004" / "rank0.safetensors", time.time() + 60
    while not checkpoint.is_file() and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # into the steps after it
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert 4 <= losses(tmp_path)[-1][0] < 12
    subprocess.run([sys.executable, script, str(tmp_path), "0", "--resume"], env=environment, check=True, timeout=60)
    assert losses(tmp_path) == whole


def test_losses_between_a_checkpoint_and_a_row_are_not_forgotten(tmp_path):
    config = changed(log_every=6)
    train(Loss(), batch, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Loss(), Dies(5), config, tmp_path / "cut")
    train(Loss(), batch, config, tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over(tmp_path, whole, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(Loss(), Dies(10), CONFIG, tmp_path)
    newest = tmp_path / "checkpoints" / "00000008" / "rank0.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    train(Loss(), batch, CONFIG, tmp_path, resume=True)
    assert "the checkpoint of step 8 is not usable" in capsys.readouterr().out
    assert losses(tmp_path) == whole


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(trainer, "tqdm", lambda steps, **_: steps)  # its output goes to a file as well
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    count = iter(range(100))

    def fill_the_disk(rng, size):
        if next(count) == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        return batch(rng, size)

    try:
        with pytest.raises(OutputError, match="kept: the checkpoint of step 4"):
            train(Loss(), fill_the_disk, changed(log_every=100), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000004"]
    train(Loss(), batch, changed(log_every=1), tmp_path, resume=True)  # log_every may change
    assert losses(tmp_path)[1:] == whole[5:]  # the first row is the mean of steps 1 to 5


def test_nothing_to_resume_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="nothing to resume"):
        train(Loss(), batch, CONFIG, tmp_path, resume=True)


def test_resuming_with_a_changed_configuration_is_an_error(tmp_path):
    train(Loss(), batch, changed(steps=4), tmp_path)
    with pytest.raises(UsageError, match=r"learning_rate is 0\.01, it began with 0\.05"):
        train(Loss(), batch, changed(steps=4, learning_rate=0.01), tmp_path, resume=True)


def test_a_checkpoint_of_another_size_is_an_error(tmp_path):
    train(Loss(), batch, changed(steps=4), tmp_path)
    wider = Loss()
    wider.dense = ms.nn.Dense(4, 1)
    with pytest.raises(WeightsError, match="is of another network"):
        train(wider, batch, changed(steps=4), tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(tmp_path):
    def broken(rng, size):
        x, y = batch(rng, size)
        return x * np.float32(np.nan), y

    with pytest.raises(WeightsError, match="at step 0"):
        train(Loss(), broken, CONFIG, tmp_path)
    assert np.isnan(np.load(tmp_path / "bad_batch.npz")["arr_0"]).all()


def test_accumulation_is_a_larger_batch(tmp_path):
    train(Loss(), batch, changed(accumulation=2), tmp_path / "two")
    step = iter(range(100))

    def both(rng, size):
        number = next(step)
        rngs = (np.random.default_rng([CONFIG.seed, number]), np.random.default_rng([CONFIG.seed, number, 1]))
        return tuple(np.concatenate(pair) for pair in zip(*(batch(rng, size // 2) for rng in rngs)))

    train(Loss(), both, changed(batch_size=8), tmp_path / "one")
    ours, theirs = ([value for _, value in losses(tmp_path / name)] for name in ("two", "one"))
    assert ours == pytest.approx(theirs, abs=2e-6)


def test_half_precision_learns_and_steps_that_overflow_are_left_out(tmp_path):
    def loud(rng, size):
        x, y = batch(rng, size)
        return 8 * x, 8 * y

    last = train(Loss(ms.float16), loud, changed(steps=40, precision="fp16"), tmp_path)
    assert last["skipped"] > 0
    assert last["loss_scale"] == 2**16 / 2 ** last["skipped"]
    values = [value for _, value in losses(tmp_path)]
    assert values[-1] < 0.1 * values[0]


@pytest.mark.parametrize(
    ("precision", "message"), [("bf16", "needs an Ascend 910B, not CPU"), ("fp16", "network is in Float32")]
)
def test_a_precision_that_is_not_there_is_an_error(tmp_path, precision, message):
    with pytest.raises(UsageError, match=message):
        train(Loss(), batch, changed(precision=precision), tmp_path)


def test_the_average_is_what_remains(tmp_path):
    seen = []

    def watch(rng, size):
        seen.append(cell.dense.weight.asnumpy().copy())
        return batch(rng, size)

    cell = Loss()
    train(cell, watch, changed(steps=4, average=0.5), tmp_path)
    plain = Loss()
    train(plain, batch, changed(steps=4), tmp_path / "plain")
    average = seen[0]
    for weight in (*seen[1:], plain.dense.weight.asnumpy()):
        average = 0.5 * average + 0.5 * weight
    np.testing.assert_allclose(cell.dense.weight.asnumpy(), average, atol=1e-6)


def test_schedules():
    constant, cosine = changed(schedule="constant", warmup=4), changed(warmup=4)
    assert [constant.rate(step) for step in (0, 3, 11)] == pytest.approx([0.0125, 0.05, 0.05])
    assert cosine.rate(6) == pytest.approx(0.05 * 0.505)
    assert cosine.rate(12) == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("field", "value"), [("schedule", "linear"), ("precision", "fp8"), ("accumulation", 0), ("average", 1.0)]
)
def test_values_out_of_range_are_errors(field, value):
    with pytest.raises(UsageError, match=f"{field} is {value!r}"):
        changed(**{field: value})
