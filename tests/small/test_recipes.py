"""The shipped recipes are valid; a ticket's trainings follow one another; masks on the networks of sonic-base."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from sonic_ms.base.cells import CELLS
from sonic_ms.base.check import SMALL
from sonic_ms.cli import main
from sonic_ms.errors import UsageError
from sonic_ms.files.weights import TensorFile
from sonic_ms.small import base, ticket
from sonic_ms.small.pruner import Pruner
from sonic_ms.small.record import write_record
from sonic_ms.small.settings import SparsityConfig
from sonic_ms.small.ticket import PREFIX, SmallTicketConfig
from sonic_ms.train.base import finetune, trained
from sonic_ms.train.base.diffusion import SonicLoss
from sonic_ms.train.loop.distributed import Group
from sonic_ms.train.loop.optimizer import States
from sonic_ms.train.loop.trainer import LoopConfig
from sonic_ms.train.run import read_recipe

SHAPES = {"down1.0.conv.weight": (4, 3, 1, 1), "up2.conv.weight": (6, 4, 1, 1)}


@pytest.mark.parametrize("name", ["small_painter", "small_ticket", "small_search", "base_sparse"])
def test_a_shipped_recipe_is_valid(name):
    assert read_recipe(name)[0] == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sparsity: {density: 0}", "sparsity: density is 0.0; expected above 0"),
        ("sparsity: {pattern: 4:2}", "expected unstructured"),
        ("sparsity: {masks: nowhere}", "nowhere"),
        ("begin: nowhere", "nowhere"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, text, words):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"recipe: small_painter\nloop: {{steps: 2, batch_size: 2, learning_rate: 0.001}}\n{text}\n")
    assert main(["train", str(recipe), "--out", str(tmp_path / "out")]) in (2, 3, 8)
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error and not (tmp_path / "out").exists()


@pytest.fixture
def trainings(monkeypatch):
    """[(arm, settings, masks)] of the trainings that a ticket asks for; none is run."""
    asked = []

    def run(config, folder, resume):
        masks = {}
        if config.sparsity.masks:
            with TensorFile(config.sparsity.masks) as file:
                masks = {name: file.read(name) > 0 for name in file.shapes}
        asked.append((config.arm, config, masks))
        rng = np.random.default_rng(len(asked))
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        from sonic_ms.files.weights import write_tensors

        write_tensors(folder / "painter" / "model.safetensors",
                      [(n, "F32", a.shape, lambda a=a: a) for n, a in arrays.items()])  # fmt: skip
        write_record(folder, "small_painter", config.arm, config.loop.seed, {"inside_l1": 0.1})
        return {"step": config.loop.steps}

    monkeypatch.setattr(ticket.painter, "run", run)
    return asked


def test_a_ticket_is_rewound_pruned_and_held_against_its_controls(tmp_path, trainings):
    config = SmallTicketConfig(LoopConfig(20, 2, 1e-3), levels=2, keep=0.5, rewind=3)
    ticket.run(config, tmp_path)
    assert [arm for arm, *_ in trainings] == ["rewind", "dense", "level 1", "ticket", "reinit", "shuffle"]
    arms = {arm: (one, masks) for arm, one, masks in trainings}
    assert arms["rewind"][0].loop.steps == 3 and arms["ticket"][0].loop.steps == 20
    assert all(arms[a][0].begin == str(tmp_path / "rewind") for a in ("dense", "level 1", "ticket", "shuffle"))
    assert arms["reinit"][0].begin is None and arms["reinit"][0].loop.seed != config.loop.seed
    names = [PREFIX + name for name in SHAPES]
    level, last, mixed = (arms[a][1] for a in ("level 1", "ticket", "shuffle"))
    assert sum(level[n].sum() for n in names) == 18 and sum(last[n].sum() for n in names) == 9
    assert all((last[n] <= level[n]).all() and mixed[n].sum() == last[n].sum() for n in names)
    assert all(np.array_equal(arms["reinit"][1][n], last[n]) for n in names)
    before = len(trainings)
    ticket.run(config, tmp_path, resume=True)  # everything is finished
    assert len(trainings) == before
    assert json.loads((tmp_path / "level-2" / "small.json").read_text())["arm"] == "ticket"


def test_a_ticket_that_was_begun_wants_resume(tmp_path, trainings):
    (tmp_path / "level-0" / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(UsageError, match="go on with --resume"):
        ticket.run(SmallTicketConfig(LoopConfig(20, 2, 1e-3), rewind=3), tmp_path)
    with pytest.raises(UsageError, match="rewind is 20; expected a step of the training"):
        SmallTicketConfig(LoopConfig(20, 2, 1e-3), rewind=20)


def test_masks_fit_the_networks_of_sonic_base():
    """All patterns that divide, on what `temporal` trains; frozen weights are left alone."""
    loss = SonicLoss(SMALL["unet"], *[CELLS[name](SMALL[name]) for name in trained.TRAINED], 2, 0.1)
    trained.freeze(loss, ("temporal",))
    before = {p.name: p.asnumpy().copy() for p in loss.get_parameters()}
    for changes in ({"method": "rigl", "start": "magnitude"}, {"pattern": "fan_in"}):
        pruner = Pruner(SparsityConfig(density=0.5, distribution="uniform", **changes))
        pruner.attach(States(loss.trainable_params(), Group()), 100)
        assert pruner.masks and 0.45 < pruner.figures()["density"] < 0.6
        assert all("temporal" in name or "time_pos_embed" in name for name in pruner.arrays())
    changed = {p.name for p in loss.get_parameters() if not np.array_equal(p.asnumpy(), before[p.name])}
    assert changed and changed <= set(pruner.masks)


def test_base_sparse_hands_its_masks_to_the_training(tmp_path, monkeypatch):
    loss = SonicLoss(SMALL["unet"], *[CELLS[name](SMALL[name]) for name in trained.TRAINED], 2, 0.1)
    networks = SimpleNamespace(configs=SMALL, cells={}, save=lambda folder: None, folder=tmp_path)
    monkeypatch.setattr(finetune, "Networks", lambda *_: networks)
    monkeypatch.setattr(finetune, "build_loss", lambda *_: loss)
    for name in trained.TRAINED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"some weights")
    seen = []

    def train(loss, batches, loop, folder, validate, resume, identity, group, pruner):
        trained.freeze(loss, ("temporal",))
        pruner.attach(States(loss.trainable_params(), group), loop.steps)
        seen.append(identity)
        return {"step": 1}

    monkeypatch.setattr(finetune, "train", train)
    config = read_recipe("base_sparse")[2]
    config = dataclasses.replace(
        config, finetune=dataclasses.replace(
            config.finetune, model=str(tmp_path), loop=dataclasses.replace(config.finetune.loop, precision="fp32")
        )
    )  # fmt: skip
    last = base.train_sparse(config, [{"latents": np.zeros((2, 4, 8, 8))}], tmp_path / "run", group=Group())
    assert 0.45 < last["density"] < 0.65 and seen[0]["sparsity"]["method"] == "rigl"
    assert (tmp_path / "run" / "masks.safetensors").is_file()
