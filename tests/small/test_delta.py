"""A person's delta: a tenth of the weights, in a small file, added by both engines, refused by other models."""

import dataclasses
import shutil

import numpy as np
import pytest
from mindspore import Tensor

from sonic_ms.cli import main
from sonic_ms.edge.delta import PARTS, Delta, difference, read_delta, write_delta
from sonic_ms.edge.graphs import sample_inputs
from sonic_ms.edge.shipped import fold_norms, open_shipped
from sonic_ms.edge.units import EDGE_FOLDER, add_delta
from sonic_ms.errors import InputMissingError, UsageError, WeightsError
from sonic_ms.files.digest import weights_digest
from sonic_ms.files.weights import TensorFile, write_tensors
from sonic_ms.pipeline import load_model
from sonic_ms.small.personal import Chosen
from sonic_ms.train.edge import personalize
from sonic_ms.train.edge.personalize import shipped_painter, store_delta, tensors_of
from sonic_ms.train.loop.trainer import train
from tests.support.tiny_sparse import LOOP, Loss, batch

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def folded():
    with TensorFile(EDGE_FOLDER / "painter" / "model.safetensors") as file:
        return fold_norms({name: np.float32(file.read(name)) for name in file.shapes})


@pytest.fixture(scope="module")
def person(folded):
    """A painter of which a tenth of the weights is another, in clusters and far apart."""
    rng, changed = np.random.default_rng(0), {}
    for name, array in folded.items():
        share = 1.0 if name.endswith("bias") else 0.02 if name.startswith("down3") else 0.16
        noise = rng.standard_normal(array.shape).astype(np.float32) * 0.05
        changed[name] = array + noise * (rng.random(array.shape) < share)
    return changed


@pytest.fixture(scope="module")
def delta_file(folded, person, tmp_path_factory):
    path = tmp_path_factory.mktemp("delta") / "delta.safetensors"
    write_delta(path, difference(folded, person, weights_digest(EDGE_FOLDER, PARTS)))
    return path


def test_a_tenth_of_the_weights_is_less_than_70_kilobytes(folded, person, delta_file):
    share = sum((person[n] != folded[n]).sum() for n in folded if n.endswith("weight")) / 109_440
    assert 0.09 < share < 0.11 and delta_file.stat().st_size * 0.1 / share <= 70_000
    added = read_delta(delta_file, EDGE_FOLDER).added(folded)
    for name, array in person.items():
        assert added[name] == pytest.approx(array, abs=2e-4) and added[name].shape == array.shape
        assert np.array_equal(added[name] != folded[name], array != folded[name])


def test_far_places_need_steps_between(tmp_path):
    before = {"a.weight": np.zeros((3000, 1), np.float32), "a.bias": np.zeros(2, np.float32)}
    after = {name: array.copy() for name, array in before.items()}
    after["a.weight"][[0, 254, 255, 256, 766, 2999], 0] = [1, 2, 3, 4, 5, 6]
    write_delta(tmp_path / "d", difference(before, after, weights_digest(EDGE_FOLDER, PARTS)))
    assert read_delta(tmp_path / "d", EDGE_FOLDER).places.tolist() == [0, 254, 255, 256, 766, 2999]


def test_both_engines_add_the_same(folded, delta_file):
    _, painter = shipped_painter(EDGE_FOLDER)
    delta = read_delta(delta_file, EDGE_FOLDER)
    add_delta(painter, delta)
    for name, array in tensors_of(painter).items():
        assert array == pytest.approx(delta.added(folded)[name], abs=1e-6)
    unit = open_shipped()._bundle.units["edge_render_256"]
    inputs = sample_inputs(unit)
    plain, other = (engine.run(unit.name, inputs)["patch"] for engine in (open_shipped(), open_shipped(delta=delta)))
    assert np.abs(plain - other).max() > 1
    model = load_model(delta=delta_file)
    assert np.array_equal(model.generator.engine.run(unit.name, inputs)["patch"], other)


def test_what_personalize_measures_is_what_its_file_holds(folded, person, tmp_path):
    _, painter = shipped_painter(EDGE_FOLDER)
    before = tensors_of(painter)
    for name, parameter in painter.parameters_and_names():
        parameter.set_data(Tensor(before[name] + person[name] - folded[name]))
    store_delta(painter, before, tmp_path / "delta.safetensors")
    added = read_delta(tmp_path / "delta.safetensors", EDGE_FOLDER).added(before)
    assert all(np.array_equal(array, added[name]) for name, array in tensors_of(painter).items())
    assert any((added[name] != before[name]).any() for name in before)


def test_the_flag_brings_the_pruner(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(personalize, "personalize", lambda *args, pruner=None: seen.append(pruner) or {})
    monkeypatch.setattr(personalize, "format_report", str)
    (tmp_path / "clip.mp4").touch()
    command = ["personalize", "--video", str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "out")]
    assert main(command) == main([*command, "--sparse"]) == 0
    assert seen[0] is None and isinstance(seen[1], Chosen)


def test_what_cannot_be_added_is_one_line(delta_file, folded, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(EDGE_FOLDER, other)
    with TensorFile(other / "painter" / "model.safetensors") as file:
        arrays = {name: np.float32(file.read(name)) * np.float32(1.01) for name in file.shapes}
    entries = [(name, "F32", a.shape, lambda a=a: a) for name, a in arrays.items()]
    write_tensors(other / "painter" / "model.safetensors", entries)
    with pytest.raises(UsageError, match="was learned on another painter"):
        load_model(other, delta=delta_file)
    with pytest.raises(WeightsError, match="is no delta"):
        load_model(delta=EDGE_FOLDER / "painter" / "model.safetensors")
    with pytest.raises(InputMissingError):
        load_model(delta=tmp_path / "nothing")
    with pytest.raises(UsageError, match="with a bundle"):
        load_model(bundle=tmp_path, delta=delta_file)
    (tmp_path / "base" / "unet").mkdir(parents=True)
    (tmp_path / "base" / "vae").mkdir()
    with pytest.raises(UsageError, match="takes none"):
        load_model(tmp_path / "base", delta=delta_file)
    with pytest.raises(WeightsError, match="another network"):
        Delta("", np.array([10**6]), np.ones(1, np.float32), {}).added(folded)
    command = ["demo", "--model", str(other), "--delta", str(delta_file), "--output", str(tmp_path / "a.mp4")]
    assert main(command) == 2
    assert "was learned on another painter" in capsys.readouterr().err and not (tmp_path / "a.mp4").exists()


def test_only_what_was_chosen_changes_and_resuming_changes_nothing(tmp_path):
    before, cell = {p.name: p.asnumpy().copy() for p in Loss().trainable_params()}, Loss()
    chosen, loop = Chosen(0.1, 3), dataclasses.replace(LOOP, weight_decay=0.0, average=0.0)
    train(cell, batch, loop, tmp_path / "a", pruner=chosen)
    after = {p.name.split("loss_cell.")[-1]: p.asnumpy().copy() for p in cell.trainable_params()}
    total = sum(array.size for array in before.values())
    moved = {name: after[name] != array for name, array in before.items()}
    assert sum(m.sum() for m in moved.values()) == round(0.1 * total)
    scores = np.concatenate([s.asnumpy().ravel() for s in chosen.scores])
    picked = np.concatenate([m.asnumpy().ravel() for m in chosen.masks]) > 0
    assert np.array_equal(picked, np.concatenate([m.ravel() for m in moved.values()]))
    assert scores[picked].min() >= scores[~picked].max() > 0

    left = iter(range(6))

    def stops(rng, size):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return batch(rng, size)

    with pytest.raises(KeyboardInterrupt):
        train(Loss(), stops, loop, tmp_path / "b", pruner=Chosen(0.1, 3))
    again = Loss()
    train(again, batch, loop, tmp_path / "b", resume=True, pruner=Chosen(0.1, 3))
    for parameter in again.trainable_params():
        assert np.array_equal(parameter.asnumpy(), after[parameter.name.split("loss_cell.")[-1]])
