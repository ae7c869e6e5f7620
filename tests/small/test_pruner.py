"""Masks in the optimizer's state: what must hold in every sparse training, for every method and pattern."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from sonic_ms.errors import UsageError, WeightsError
from sonic_ms.files.weights import TensorFile
from sonic_ms.small.pruner import Pruner, read_masks, write_masks
from sonic_ms.small.settings import SparsityConfig
from sonic_ms.train.loop.trainer import train
from tests.support.tiny_sparse import LOOP, SPARSE, Loss, batch, run

pytestmark = [pytest.mark.slow]


def weights_of(cell):
    return {p.name.split("loss_cell.")[-1]: p.asnumpy().copy() for p in cell.trainable_params()}


def losses(folder):
    with open(folder / "loss.csv", newline="") as file:
        return [row["train"] for row in csv.DictReader(file)]


def checkpoint_of(folder):
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    with TensorFile(newest / "rank0.safetensors") as file:
        return {name: file.read(name) for name in file.shapes}


def copied(layers):
    """MindSpore's arrays share memory with what changes."""
    return {name: dataclasses.replace(one, weights=one.weights.copy(), gradients=np.array(one.gradients))
            for name, one in layers.items()}  # fmt: skip


class Watch(Pruner):
    """Keeps what a change of masks did."""

    def __init__(self, config):
        super().__init__(config)
        self.changed, self.densest = [], 0

    def change(self, step):
        before = copied(self._layers(gradients=True))
        super().change(step)
        after = copied(self._layers())
        moments = {name: [state.asnumpy().copy() for state in (s.first_moment, s.second_moment, s.average)]
                   for name, s in self.slots.items()}  # fmt: skip
        self.changed.append((step, before, after, moments, self.figures()))


def watched(folder, loop=LOOP, **changes):
    pruner = Watch(dataclasses.replace(SPARSE, **changes))
    cell = Loss()
    train(cell, batch, loop, folder, pruner=pruner)
    return cell, pruner


SHORT = dataclasses.replace(LOOP, steps=4)
METHODS = {
    "static": {},
    "set": {},
    "rigl": {},
    "srigl": {"pattern": "fan_in", "distribution": "uniform"},
    "gmp": {},
    "granet": {},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Function method -> (folder, Loss, Watch) of a whole training, made once."""
    made = {}

    def once(method):
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            made[method] = (folder, *watched(folder, method=method, **METHODS[method]))
        return made[method]

    return once


@pytest.mark.parametrize("method", METHODS)
def test_nothing_lives_outside_a_mask(trained, method):
    """Weights, moments and the average are 0 there, in memory and in the checkpoint; the published weights as well."""
    folder, cell, pruner = trained(method)
    masks, stored = pruner.arrays(), checkpoint_of(folder)
    assert method == "srigl" or pruner.figures()["density"] == pytest.approx(0.25, abs=0.005)
    for name, mask in masks.items():
        assert np.array_equal(stored[f"mask.{name}"] > 0, mask)
        for kind in ("master", "first_moment", "second_moment", "average"):
            outside = stored[f"{kind}.{name}"][~mask]
            assert len(outside) == 0 or np.abs(outside).max() == 0, kind
        published = weights_of(cell)[name]
        assert np.array_equal(published, stored[f"average.{name}"]) and np.abs(published[mask]).max() > 0


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_a_change_replaces_as_many_as_it_drops(trained, method):
    *_, pruner = trained(method)
    assert [step for step, *_ in pruner.changed] == [2, 4, 6]  # 8 is the last of the schedule, when nothing is dropped
    explored = [figures["explored"] for *_, figures in pruner.changed]
    assert explored == sorted(explored) and explored[-1] > explored[0]
    for _, before, after, moments, _ in pruner.changed:
        moved = 0
        for name, layer in before.items():
            old, new = layer.mask, after[name].mask
            assert new.sum() == old.sum() == max(1, round(layer.density * old.size))
            dropped, grown = old & ~new, new & ~old
            moved += grown.sum()
            assert np.abs(layer.weights[dropped]).max(initial=0) <= np.abs(layer.weights[old & new]).min(initial=9)
            for values in (after[name].weights, *moments[name]):
                assert np.abs(values[~(old & new)]).max(initial=0) == 0
            if method == "rigl":  # by the gradients of all weights
                rest = np.abs(layer.gradients[~old & ~new]).max(initial=0)
                assert np.abs(layer.gradients[grown]).min(initial=9) >= rest
        assert moved > 0


def test_the_gradients_that_grow_are_those_of_absent_weights(trained):
    """A finite difference on a weight that is masked finds what RigL ranks by."""
    *_, pruner = trained("rigl")
    step, before, *_ = pruner.changed[0]
    x, y = batch(np.random.default_rng([LOOP.seed, step]), LOOP.batch_size)
    cell = Loss()
    for parameter in cell.trainable_params():
        parameter.set_data(Tensor(before[parameter.name].weights))
    layer = before["second.weight"]
    place = np.unravel_index(np.argmax(np.abs(layer.gradients) * ~layer.mask), layer.mask.shape)
    found = []
    for change in (0, -1e-3):  # downwards: where a neuron is at exactly 0, ReLU has no gradient either
        values = layer.weights.copy()
        values[place] += change
        cell.second.weight.set_data(Tensor(values))
        found.append(float(cell(Tensor(x), Tensor(y)).asnumpy()))
    assert (found[0] - found[1]) / 1e-3 == pytest.approx(layer.gradients[place], rel=0.02)


def test_growing_changes_no_loss(trained):
    """Grown weights are 0: a network that only lost its weakest computes the same to the bit."""
    *_, pruner = trained("rigl")
    _, before, after, *_ = pruner.changed[0]
    x, y = (Tensor(a) for a in batch(np.random.default_rng(5), 4))
    cell, values = Loss(), {}
    for what in ("dropped", "grown", "before"):
        for parameter in cell.trainable_params():
            name = parameter.name
            array = after[name].weights if what == "grown" else before[name].weights
            keep = before[name].mask & after[name].mask if what == "dropped" else True
            parameter.set_data(Tensor(np.where(keep, array, 0).astype(np.float32)))
        values[what] = float(cell(x, y).asnumpy())
    assert values["dropped"] == values["grown"] != values["before"]


def test_density_1_is_the_dense_training_to_the_bit(tmp_path):
    cell = Loss()
    train(cell, batch, LOOP, tmp_path / "dense")
    sparse, _ = run(tmp_path / "masks", density=1.0)
    for name, values in weights_of(cell).items():
        assert np.array_equal(values, weights_of(sparse)[name])
    assert losses(tmp_path / "dense") == losses(tmp_path / "masks")


@pytest.mark.parametrize("changes", [{"drop": 0.0}, {"every": 100}])
def test_nothing_to_change_is_a_static_mask_to_the_bit(trained, tmp_path, changes):
    _, static, _ = trained("static")
    other, _ = run(tmp_path / "other", **changes)
    for name, values in weights_of(static).items():
        assert np.array_equal(values, weights_of(other)[name])


def test_dead_gradients_do_not_clip_the_others(tmp_path):
    """The norm in the log is that of the gradients inside the masks."""
    _, pruner = run(tmp_path, method="static", loop=dataclasses.replace(LOOP, steps=1, warmup=0))
    cell = Loss()
    masks = pruner.arrays()
    for parameter in cell.trainable_params():
        parameter.set_data(Tensor(np.where(masks[parameter.name], parameter.asnumpy(), 0).astype(np.float32)))
    x, y = (Tensor(a) for a in batch(np.random.default_rng([LOOP.seed, 0]), LOOP.batch_size))
    weights = cell.trainable_params()
    gradients = ms.value_and_grad(cell, None, weights)(x, y)[1]
    inside = [np.where(masks[p.name], g.asnumpy(), 0) for p, g in zip(weights, gradients)]
    with open(tmp_path / "loss.csv", newline="") as file:
        norm = float(next(csv.DictReader(file))["gradient_norm"])
    assert norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in inside)), rel=1e-3)
    assert norm < 0.9 * np.sqrt(sum((g.asnumpy() ** 2).sum() for g in gradients))


def test_a_killed_process_resumes_to_the_same_masks(trained, tmp_path):
    script = str(Path(__file__).resolve().parents[1] / "support" / "tiny_sparse.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    whole_folder, whole, _ = trained("rigl")
    folder = tmp_path / "cut"
    process = subprocess.Popen([sys.executable, script, str(folder), "0.3"], env=environment)
    place, deadline = folder / "checkpoints" / "00000004" / "rank0.safetensors", time.time() + 60
    while not place.is_file() and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL and len(losses(folder)) < 12
    cell, _ = run(folder, resume=True)
    assert losses(folder) == losses(whole_folder)
    one, other = checkpoint_of(folder), checkpoint_of(whole_folder)
    assert set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)
    assert all(np.array_equal(values, weights_of(cell)[name]) for name, values in weights_of(whole).items())


def test_a_neuron_without_salient_inputs_is_ablated(tmp_path):
    """SRigL: the others share its inputs, every active row has as many; the last layer keeps all of its rows."""
    loop = dataclasses.replace(LOOP, steps=9)
    _, pruner = watched(tmp_path, loop, method="srigl", pattern="fan_in", distribution="uniform", density=0.4,
                        ablate=0.9)  # fmt: skip
    masks = {name: mask.reshape(len(mask), -1).sum(1) for name, mask in pruner.arrays().items()}
    for rows in masks.values():
        assert len(set(rows[rows > 0])) == 1
    first = pruner.changed[0][1]["second.weight"].mask
    assert (masks["second.weight"] == 0).any() and (masks["last.weight"] > 0).all()
    assert masks["second.weight"].max() > first.reshape(8, -1).sum(1).max()
    assert masks["second.weight"].sum() == pytest.approx(first.sum(), abs=4)


def test_granet_ends_at_its_density_and_gmp_at_that_of_every_layer(trained):
    *_, granet = trained("granet")
    densities = [figures["density"] for *_, figures in granet.changed]
    assert densities == sorted(densities, reverse=True) and densities[-1] == pytest.approx(0.25, abs=0.005)
    *_, gmp = trained("gmp")
    for name, mask in gmp.arrays().items():
        assert mask.sum() == round(gmp.densities[name] * mask.size)


def test_masks_of_a_file_are_taken_as_they_are(trained, tmp_path):
    *_, pruner = trained("static")
    write_masks(tmp_path / "masks.safetensors", pruner.arrays())
    path = str(tmp_path / "masks.safetensors")
    _, again = run(tmp_path / "two", method="static", masks=path, density=1.0, loop=SHORT)
    assert all(np.array_equal(mask, again.arrays()[name]) for name, mask in pruner.arrays().items())
    shapes = {name: mask.shape for name, mask in pruner.arrays().items()}
    with pytest.raises(WeightsError, match="masks of another model"):
        read_masks(path, {**shapes, "more.weight": (1, 1)})
    with pytest.raises(WeightsError, match="masks of another model"):
        run(tmp_path / "three", method="static", masks=path, dense=("first.weight",))


def test_another_mask_is_another_training(tmp_path):
    run(tmp_path, loop=SHORT)
    with pytest.raises(UsageError, match="cannot resume"):
        sparse = dataclasses.replace(SPARSE, seed=1)
        identity = {"sparsity": dataclasses.asdict(sparse)}
        train(Loss(), batch, SHORT, tmp_path, resume=True, identity=identity, pruner=Pruner(sparse))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"density": 0.0}, "density is 0.0; expected above 0, at most 1"),
        ({"density": 1.5}, "density is 1.5"),
        ({"method": "lucky"}, "method is 'lucky'; expected static, set"),
        ({"pattern": "4:2"}, "pattern is '4:2'; expected unstructured"),
        ({"pattern": "2:4", "method": "gmp"}, "method gmp has no N:M pattern"),
        ({"method": "srigl"}, "srigl has fan_in"),
        ({"method": "granet", "first_density": 0.1}, "first_density is 0.1"),
    ],
)
def test_settings_that_cannot_be(changes, words):
    with pytest.raises(UsageError, match=words):
        SparsityConfig(**({"density": 0.5} | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pattern": "2:3", "method": "static"}, "pattern 2:3 does not divide the 4 inputs of first.weight"),
        ({"pattern": "block 3x1", "method": "static"}, "block 3x1 does not divide first.weight"),
        ({"dense": ("nothing",)}, "dense names nothing; expected some of first.weight"),
        ({"method": "gmp", "every": 100}, "gmp prunes nothing between steps 0 and 9"),
    ],
)
def test_networks_that_do_not_fit(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        run(tmp_path, **changes)
