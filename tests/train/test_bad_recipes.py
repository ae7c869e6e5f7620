"""`sonic-ms train` with a recipe that is wrong: one line and the exit code of errors.py, before any work is done."""

import shutil

import numpy as np
import pytest
from mindspore import Parameter

from sonic_ms import cli
from sonic_ms.errors import WeightsError
from sonic_ms.files.weights import TensorFile, write_tensors
from sonic_ms.train.loop import checkpoint
from sonic_ms.train.loop.distributed import Group

LOOP = "loop: {steps: 2, batch_size: 2, learning_rate: 0.001}\n"
RENDERER, AUDIO = "recipe: edge_renderer\n" + LOOP, "recipe: edge_audio\n"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (None, 3, "cannot open"),
        ("[", 2, "is not YAML"),
        ("- 1", 2, "holds a list; expected a mapping"),
        ("recipe: nope", 2, "recipe is 'nope'; expected one of"),
        ("recipe: edge_renderer", 2, "missing keys loop"),
        (RENDERER + "face: 3", 2, "unknown keys face; known are loop, faces"),
        (RENDERER.replace("steps: 2", "step: 2"), 2, "loop: unknown keys step"),
        (RENDERER.replace("steps: 2", "steps: two"), 2, "loop: steps is 'two'; expected int"),
        (RENDERER.replace("steps: 2", "steps: 0"), 2, "loop: steps is 0; expected at least 1"),
        (RENDERER + "faces: 1.5", 2, "faces is 1.5; expected int"),
        (RENDERER + "real_share: 7", 2, "real_share is 7.0; expected 0 to 1"),
        (AUDIO + "flite_share: -1", 2, "flite_share is -1.0; expected 0 to 1"),
        (AUDIO + "clips: nowhere", 3, "folder nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, text, code, words):
    recipe = tmp_path / "recipe.yaml"
    if text is not None:
        recipe.write_text(text)
    assert cli.main(["train", str(recipe), "--out", str(tmp_path / "out")]) == code
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_size_is_named(tmp_path):
    group, old, new = Group(), Parameter(np.ones(3, np.float32)), Parameter(np.ones(4, np.float32))
    checkpoint.save(tmp_path, 1, group, {"w": old}, {}, {})
    with pytest.raises(WeightsError, match=r"rank0.safetensors is of another network: w"):
        checkpoint.load(tmp_path, group, {"w": new}, {})
    assert checkpoint.load(tmp_path, group, {"w": old}, {})[0] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", None), ("step", "x"), ("step", "7"), ("devices", "0"), ("devices", "99999"), ("devices", "-1"),
        ("state", "[" * 100_000), ("state", "{}}"), ("state", '{"scale": NaN}'), ("state", '{"good": -1}'),
        ("state", '{"recent": [null]}'), ("state", '{"seconds": "x"}'), ("identity", "[]"), ("identity", "9" * 5000),
    ],
)  # fmt: skip
def test_a_checkpoint_with_damaged_metadata_gives_way_to_the_one_before(tmp_path, name, value):
    group, values = Group(), np.arange(3, dtype=np.float32)
    for step in (1, 2):
        checkpoint.save(tmp_path, step, group, {"w": Parameter(values + step)}, {"scale": 8.0, "good": 5}, {"a": 1})
    newest = tmp_path / "checkpoints" / "00000002" / "rank0.safetensors"
    with TensorFile(newest) as file:
        metadata = {**file.metadata, name: value}
    write_tensors(newest, [("w", "F32", (3,), lambda: values)], {k: v for k, v in metadata.items() if v is not None})
    into = Parameter(np.zeros(3, np.float32))
    step, state, (note,) = checkpoint.load(tmp_path, group, {"w": into}, {"a": 1})
    assert step == 1 and state.scale == 8.0 and np.array_equal(into.asnumpy(), values + 1)
    assert "step 2 is not usable" in note and str(newest.parent) in note and "taking the one before" in note
    shutil.rmtree(tmp_path / "checkpoints" / "00000001")
    with pytest.raises(WeightsError, match=r"nothing to resume in .*: the checkpoint of step 2 is not usable"):
        checkpoint.load(tmp_path, group, {"w": into}, {"a": 1})


def test_weights_that_are_no_numbers_give_way_too(tmp_path):
    group, good = Group(), np.ones(3, np.float32)
    for step, values in ((1, good), (2, good * np.nan)):
        checkpoint.save(tmp_path, step, group, {"w": Parameter(values)}, {}, {})
    assert checkpoint.load(tmp_path, group, {"w": Parameter(good)}, {})[0] == 1
