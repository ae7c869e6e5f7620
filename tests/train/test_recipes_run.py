"""Every recipe of configs/ as it is shipped, but for sizes, through a few steps and past its first validation.

What the recipes of sonic-base and of the lip-sync expert read is made here as docs/data.md says: a converted tree, and
`data build` with the shipped settings.
"""

import csv
from pathlib import Path

import pytest
import yaml

from sonic_ms.cli import main
from sonic_ms.files.config import read_yaml
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.audio import load_audio
from sonic_ms.media.image import load_image
from sonic_ms.train.edge import renderer
from sonic_ms.train.run import train
from tests.support import tiny_checkpoint
from tests.support.talking_clip import loud_model, talking_clip
from tools import pt2ms_weights

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = {path.stem: values for path in CONFIGS.glob("*.yaml") if "recipe" in (values := read_yaml(path))}
IN_TESTS_SMALL = ("base_sparse", "small_painter", "small_search", "small_ticket")  # they run there
STEPS, VALIDATE = 3, 2  # so that a validation is not only the one at the end

# What a recipe is run with instead of its own sizes. A new recipe needs a line here.
SMALL = {
    "base_distill": {
        "trainable": ["audio"],
        "frames": 2,
        "loop": {"precision": "fp32", "accumulation": 1},
        "recompute": False,
    },
    "base_finetune": {"trainable": ["audio"], "frames": 2, "loop": {"precision": "fp32", "accumulation": 1}},
    "edge_audio": {"utterances": 4},
    "edge_distill": {"loop": {"batch_size": 2}},
    "edge_renderer": {"faces": 2, "loop": {"batch_size": 2}},
    "syncnet": {
        "network": {"frames": 4, "channels": [8, 16], "embedding": 16},
        "per_clip": 2,
        "loop": {"batch_size": 4},
    },
}
WRITES = {
    "base_distill": "model/unet",
    "base_finetune": "model/unet",
    "edge_audio": "audio",
    "edge_distill": "model/audio",
    "edge_renderer": "painter",
    "syncnet": "syncnet",
}
NEEDS = {
    "base_distill": ("shards",),
    "base_finetune": ("shards",),
    "syncnet": ("shards",),
    "edge_distill": ("teacher",),
    "edge_renderer": ("portraits",),
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Folder of one talking video, 8 s."""
    folder = tmp_path_factory.mktemp("teacher")
    talking_clip(folder / "talk.mp4", loud_model(), DEMO_IMAGE, load_audio(str(DEMO_AUDIO), duration=8.0))
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory, teacher):
    """{key of a recipe: folder}: shards of that video in clips of 4 s, with what a tiny sonic-base encodes of them."""
    root = tmp_path_factory.mktemp("shards")
    tiny_checkpoint.write_tree(root / "tree")
    assert pt2ms_weights.main(["--src", str(root / "tree"), "--dst", str(root / "model")]) == 0
    settings = read_yaml(CONFIGS / "data.yaml") | {"resolution": 64, "min_face": 40, "min_seconds": 2, "max_seconds": 4}
    (root / "data.yaml").write_text(yaml.safe_dump(settings))
    command = ["data", "build", teacher, "--out", root / "shards", "--model", root / "model"]
    assert main([str(part) for part in [*command, "--config", root / "data.yaml"]]) == 0
    return {"model": root / "model", "shards": root / "shards", "held_out": root / "shards"}


@pytest.fixture
def portraits(monkeypatch, analyzer):
    """Instead of the ones that edge_renderer fetches: the portrait of the package."""
    photo = load_image(DEMO_IMAGE)
    crop = renderer.crop_face(photo, analyzer.landmarks(photo, analyzer.detect(photo)[0]).points)
    monkeypatch.setattr(renderer, "real_portraits", lambda: [crop])
    return {}


def small(recipe, places):
    """The shipped recipe with sizes from SMALL and folders from `places`."""
    values = RECIPES[recipe] | SMALL[recipe]
    if "loop" not in values:
        return values
    tiny = {"steps": STEPS, "warmup": 1, "log_every": 1, "save_every": STEPS, "validate_every": VALIDATE}
    values["loop"] = RECIPES[recipe]["loop"] | tiny | SMALL[recipe].get("loop", {})
    return values | {key: str(place) for key, place in places.items() if key in values and isinstance(values[key], str)}


@pytest.mark.slow
@pytest.mark.needs("espeak-ng", "flite")
def test_the_recipe_in_closed_form(tmp_path):
    """edge_audio takes no steps: there are figures, and a model."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(small("edge_audio", {})))
    figures = train(tmp_path / "recipe.yaml", tmp_path / "out")
    with open(tmp_path / "out" / "figures.csv", newline="") as file:
        assert {row["figure"]: float(row["value"]) for row in csv.DictReader(file)} == pytest.approx(figures)
    assert (tmp_path / "out" / WRITES["edge_audio"] / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", sorted(name for name in RECIPES if "loop" in RECIPES[name] and name not in IN_TESTS_SMALL)
)
def test_a_recipe_runs_past_its_first_validation(recipe, request, tmp_path):
    places = {}
    for name in NEEDS.get(recipe, ()):
        made = request.getfixturevalue(name)
        places |= made if isinstance(made, dict) else {name: made}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(small(recipe, places)))
    last = train(tmp_path / "recipe.yaml", tmp_path / "out")
    assert int(last["step"]) == STEPS
    with open(tmp_path / "out" / "loss.csv", newline="") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    judged = [name for name in rows[STEPS] if name.startswith("test_")]
    assert bool(judged) == (recipe not in ("base_finetune", "base_distill"))  # these by a video, on request, or not
    assert all(rows[step][name] for step in (VALIDATE, STEPS) for name in judged)
    assert (tmp_path / "out" / WRITES[recipe] / "model.safetensors").is_file()
