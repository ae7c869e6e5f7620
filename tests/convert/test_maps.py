"""Every published checkpoint maps one-to-one at full size: names and shapes, no data."""

import json
from pathlib import Path

import numpy as np
import pytest
from sonic_ms.convert import checkpoints, families, maps

MANIFESTS = Path(__file__).resolve().parents[2] / "convert" / "manifests"
# network, tensors of the file, parameters of ours, dropped on purpose
EXPECTED = {
    "unet": ("unet", 1492, 1460, 32),
    "svd_unet": ("svd_unet", 1428, 1396, 32),
    "vae": ("vae", 374, 374, 0),
    "image_encoder": ("clip", 520, 520, 0),
    "whisper_tiny": ("whisper", 167, 67, 100),
    "audio2token": ("audio2token", 8, 8, 0),
    "audio2bucket": ("audio2bucket", 6, 6, 0),
    "rife": ("rife", 160, 120, 40),
    "yoloface": ("yoloface", 518, 431, 87),
}


def manifest(name):
    content = json.loads((MANIFESTS / f"{name}.json").read_text())
    return content, {key: tuple(shape) for key, shape in content["tensors"].items()}


def small_tensors(content):
    """What a family reads from the data itself: the anchors."""
    pixels = np.array(content.get("config", {}).get("anchors", []), np.float32)

    def read(name):
        strides = np.array(content["config"]["strides"], np.float32)[:, None]
        return pixels if name.endswith("anchor_grid") else pixels / strides

    return read


@pytest.fixture(scope="module")
def planned():
    """Everything about one manifest, computed once: family, config, shapes, wanted shapes."""
    known = {}

    def plan(name):
        if name not in known:
            content, shapes = manifest(name)
            family, prefix = families.recognise(shapes)
            shapes = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
            config = family.config(shapes, {}, small_tensors(content))
            known[name] = content, family, config, shapes, checkpoints.parameter_shapes(family.cell, config)
        return known[name]

    return plan


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_manifest_maps_one_to_one(planned, name):
    content, family, config, shapes, wanted = planned(name)
    network, tensors, parameters, dropped_count = EXPECTED[name]
    if network == "svd_unet":  # Sonic's UNet without its audio branch
        wanted = {key: shape for key, shape in wanted.items() if "audio_" not in key}
    targets, dropped, problems = checkpoints.match(family, config, shapes, wanted)
    assert problems == []
    assert (family.name, len(shapes), len(targets), len(dropped)) == (network, tensors, parameters, dropped_count)
    assert set(targets) == set(wanted)
    assert len({source for source, _ in targets.values()} | set(dropped)) == tensors
    if "parameters" in content:
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == content["parameters"]


@pytest.mark.parametrize("name", EXPECTED)
def test_sizes_are_read_from_the_shapes(planned, name):
    content, _, config, _, _ = planned(name)
    for key, value in content.get("config", {}).items():
        if hasattr(config, key):
            ours = getattr(config, key)
            value = (
                tuple(tuple(part) if isinstance(part, list) else part for part in value)
                if isinstance(value, list)
                else value
            )
            assert ours == value, key


@pytest.mark.parametrize("name", EXPECTED)
def test_every_deviation_is_noticed(planned, name):
    _, family, config, shapes, wanted = planned(name)
    if name == "svd_unet":
        wanted = {key: shape for key, shape in wanted.items() if "audio_" not in key}
    targets, _, _ = checkpoints.match(family, config, shapes, wanted)
    target, (source, _) = sorted(targets.items())[len(targets) // 2]
    without = {key: shape for key, shape in shapes.items() if key != source}
    assert any("missing" in text and target in text for text in checkpoints.match(family, config, without, wanted)[2])
    more = {**shapes, "surprise.weight": (1,)}
    assert checkpoints.match(family, config, more, wanted)[2] == ["unknown: surprise.weight"]
    reshaped = {**shapes, source: (*shapes[source][:-1], shapes[source][-1] + 4)}
    problems = checkpoints.match(family, config, reshaped, wanted)[2]
    assert any("wrong shape" in text and source in text for text in problems)


def test_families_exclude_one_another():
    """No checkpoint is taken for two networks."""
    for name in EXPECTED:
        _, shapes = manifest(name)
        fitting = [
            family.name
            for family in families.FAMILIES
            for prefix in family.prefixes
            if all(prefix + key in shapes for key in family.signature)
            and not any(prefix + key in shapes for key in family.without)
        ]
        assert fitting == [EXPECTED[name][0]]


def test_an_ambiguous_table_is_an_error():
    names = maps.NameMap({"a.{}.weight": "x.{}", "a.0.*": "y.*"})
    assert names.targets("a.1.weight")[0][0] == "x.1"
    assert names.targets("a.0.bias")[0][0] == "y.bias"
    with pytest.raises(ValueError, match="2 rows"):
        names.targets("a.0.weight")


@pytest.mark.parametrize("name", sorted(maps.TRANSFORMS))
def test_a_transform_makes_the_shape_it_announces(name):
    shapes = {"frames": (6, 3, 3, 1, 1), "phases": (3, 6, 4, 4), "phases_bias": (6,), "conv1d": (6, 3, 5)}
    shape = (6, 3, 1, 1) if name == "dense" else shapes.get(name, (6, 3))
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    assert maps.TRANSFORMS[name].apply(values).shape == maps.TRANSFORMS[name].shape(values.shape)
    assert maps.TRANSFORMS[name].apply(values).dtype == np.float32


def test_a_fused_matrix_is_cut_in_order():
    values = np.arange(12).reshape(6, 2)
    parts = [maps.TRANSFORMS[f"third_{part}"].apply(values) for part in range(3)]
    assert np.array_equal(np.concatenate(parts), values)
