"""A bundle is refused, with a reason, when its manifest or its files are not what was exported."""

import json
import shutil

import pytest

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
    ],
)
def test_bad_manifest(copied, edit, message):
    change(copied, edit)
    with pytest.raises(WeightsError, match=message):
        Bundle.load(copied)


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
