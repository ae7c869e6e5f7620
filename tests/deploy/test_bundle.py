"""A bundle is refused, with a reason, when its manifest or its files are not what was exported."""

import json
import os
import shutil

import pytest

from sonic_ms.base import networks
from sonic_ms.base.units import BaseGear
from sonic_ms.deploy.bundle import Bundle
from sonic_ms.errors import InputMissingError, WeightsError
from sonic_ms.files.digest import sha256_of


@pytest.fixture
def copied(toys, tmp_path):
    return shutil.copytree(toys.folder, tmp_path / "bundle")


def change(folder, edit):
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_units_come_back_as_exported(toys):
    unit = toys.units["stacked"]
    assert [(tensor.name, tensor.shape, tensor.dtype) for tensor in unit.outputs] == [
        ("both", (2, 2, 5), "float32"),
        ("product", (2, 5), "float32"),
    ]
    assert (toys.units["padded"].threads, toys.units["stacked"].threads) == (0, 1)
    assert toys.has("padded", "onnx") and toys.has("padded", "mindir") and not toys.has("padded", "om")


def test_no_bundle(tmp_path):
    with pytest.raises(InputMissingError, match="is not a bundle"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.pop("units"), "lacks units"),
        (lambda m: m.update(format=2), "format 2"),
        (lambda m: m["units"]["padded"]["inputs"][0].update(shape=[1, -1, 8, 6]), "static shape"),
        (lambda m: m["units"]["padded"]["inputs"][0].update(dtype="int64"), "known dtype"),
        (lambda m: m["units"]["padded"]["onnx"].update(path="../elsewhere"), "leaves the bundle"),
        (lambda m: m["units"]["padded"]["onnx"].update(path="/etc/hosts"), "leaves the bundle"),
        (
            lambda m: m["units"]["padded"]["onnx"].update(data=[{"path": "a/../../b", "sha256": ""}]),
            "leaves the bundle",
        ),
        (lambda m: m["units"]["padded"]["onnx"].update(path="a\0b"), "expected a path and a sha256"),
        (lambda m: m["units"]["padded"].update(onnx=["onnx/padded.onnx"]), "expected a path and a sha256"),
        (lambda m: m["units"]["padded"]["onnx"].update(data=1.5), "expected a path and a sha256"),
        (lambda m: m["units"]["padded"]["inputs"][0].update(shape=[1 << 20, 1 << 20]), "has 1099511627776 elements"),
        (lambda m: m["units"]["padded"]["inputs"][0].update(shape=[10**300]), "static shape"),
        (lambda m: m["units"]["padded"]["inputs"][0].update(shape=[1] * 9), "static shape"),
        (lambda m: m["units"]["padded"]["inputs"][0].update(shape=[True]), "static shape"),
        (lambda m: m["units"]["padded"].update(inputs=5), "expected a list of 1 to"),
        (lambda m: m["units"]["padded"].update(threads=100000), "threads is 100000, expected 0 for all or 1"),
        (lambda m: m["units"]["padded"].update(threads=True), "threads is True, expected 0 for all or 1"),
        (lambda m: m["units"].update({"../x": m["units"]["padded"]}), "a name of letters and digits"),
        (lambda m: m.update(units=[]), "units is .*, expected a dict"),
        (lambda m: m.update(units={}), "0 units"),
        (lambda m: m.update(gear={"sides": 256}), "gear sides is 256"),
        (lambda m: m.update(model=None), "model is None, expected a str"),
        (lambda m: m.update(mindspore="new"), "mindspore is 'new', expected a version"),
    ],
)
def test_bad_manifest(copied, edit, message):
    change(copied, edit)
    with pytest.raises(WeightsError, match=message):
        Bundle.load(copied)


def test_a_manifest_of_a_stranger_is_read_within_limits(copied):
    for text, message in (("[" * 100_000, "nested too deeply"), ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply"),
                          (" " * (1 << 20) + "{}", "more than 1048576 bytes"), ("9" * 5000, "is not JSON"),
                          ("\xff", "is not JSON")):  # fmt: skip
        (copied / "manifest.json").write_text(text, encoding="latin1")
        with pytest.raises(WeightsError, match=message) as error:
            Bundle.load(copied)
        assert str(copied / "manifest.json") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["manifest.json", "onnx/padded.onnx", "onnx", "config/audio/config.json", "config"])
def test_a_link_that_leaves_the_bundle_is_not_followed(copied, tmp_path, name):
    (copied / "config" / "audio").mkdir(parents=True, exist_ok=True)
    (copied / "config" / "audio" / "config.json").write_text("{}")
    outside = shutil.move(copied / name, tmp_path / "outside")
    (copied / name).symlink_to(outside)
    with pytest.raises(WeightsError, match="is a link that leaves the bundle"):
        bundle = Bundle.load(copied)
        bundle.path("padded", "onnx")
        bundle.config(BaseGear, "audio")


def test_a_link_within_the_bundle_is_followed(copied, tmp_path):
    (copied / "onnx" / "padded.onnx").rename(copied / "elsewhere.onnx")
    (copied / "onnx" / "padded.onnx").symlink_to("../elsewhere.onnx")
    (tmp_path / "link").symlink_to(copied)
    assert Bundle.load(tmp_path / "link").path("padded", "onnx").is_file()


def test_a_pipe_is_no_manifest(copied):
    (copied / "manifest.json").unlink()
    os.mkfifo(copied / "manifest.json")
    with pytest.raises(InputMissingError, match="it is no regular file"):
        Bundle.load(copied)


def test_a_gear_of_another_model_is_named(copied):
    bundle = Bundle.load(copied)
    with pytest.raises(WeightsError, match="gear: unknown keys sides"):
        networks.open_bundle(bundle, None)


def test_broken_json(copied):
    (copied / "manifest.json").write_text('{"format": 1,')
    with pytest.raises(WeightsError, match="is not JSON"):
        Bundle.load(copied)


def test_changed_and_missing_graphs(copied):
    graph = copied / "onnx" / "padded.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match="has changed"):
        Bundle.load(copied).path("padded", "onnx")
    graph.unlink()
    with pytest.raises(WeightsError, match="is missing"):
        Bundle.load(copied).path("padded", "onnx")
    with pytest.raises(WeightsError, match="no om of padded"):
        Bundle.load(copied).path("padded", "om")
    with pytest.raises(WeightsError, match="no unit 'nothing'"):
        Bundle.load(copied).path("nothing", "onnx")


def test_weights_beside_a_graph_are_checked_too(copied):
    """Graphs above 1 GB come in parts."""
    data = copied / "onnx" / "padded.data"
    data.write_bytes(b"weights")
    entry = {"path": "onnx/padded.data", "sha256": sha256_of(data)}
    change(copied, lambda m: m["units"]["padded"]["onnx"].update(data=[entry]))
    assert Bundle.load(copied).path("padded", "onnx").name == "padded.onnx"
    data.write_bytes(b"others!")
    with pytest.raises(WeightsError, match=r"padded.data has changed"):
        Bundle.load(copied).path("padded", "onnx")
    data.unlink()
    with pytest.raises(WeightsError, match=r"padded.data is missing"):
        Bundle.load(copied).path("padded", "onnx")
