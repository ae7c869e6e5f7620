"""The recipe small_painter on the real painter, a few steps."""

import json

import numpy as np
import pytest

from sonic_ms.edge.renderer import PainterConfig
from sonic_ms.edge.shipped import weights_of
from sonic_ms.edge.units import EDGE_FOLDER
from sonic_ms.errors import UsageError
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.files.weights import TensorFile
from sonic_ms.pipeline import load_model
from sonic_ms.small.painter import SmallPainterConfig, run
from sonic_ms.small.quantize import quantize
from sonic_ms.small.settings import SparsityConfig
from sonic_ms.train.loop.trainer import LoopConfig

LOOP = LoopConfig(steps=4, batch_size=2, learning_rate=1e-3, warmup=1, log_every=1, save_every=2, validate_every=4)


def tensors_of(path):
    with TensorFile(path) as file:
        return {name: file.read(name) for name in file.shapes}


@pytest.mark.slow
def test_masks_reach_the_written_model_and_its_graph(tmp_path, drawings, few_faces):
    """A killed and resumed RigL training: what it writes is a model, and its graph has the zeros of the masks."""
    sparse = SparsityConfig(density=0.2, method="rigl", every=2, drop=0.5, end=1.0)
    config = SmallPainterConfig(LOOP, "rigl", sparse, str(drawings), 2, PainterConfig().widths)
    last = run(config, tmp_path / "run")
    masks, stored = (
        tensors_of(tmp_path / "run" / "masks.safetensors"),
        tensors_of(tmp_path / "run" / "painter" / "model.safetensors"),
    )
    initializers = weights_of(tmp_path / "run", "edge_render_256")
    assert len(masks) == 11 and sum(m.sum() for m in masks.values()) == pytest.approx(0.2 * 109_440, abs=11)
    for name, mask in masks.items():
        name = name.split("painter.")[-1]
        for array in (stored[name], initializers[f"painter.{name}"]):
            assert (array[mask == 0] == 0).all() and (array[mask == 1] != 0).mean() > 0.9
    record = json.loads((tmp_path / "run" / "small.json").read_text())
    figures = record["figures"]
    assert record["arm"] == "rigl" and figures["weights"] == 109_440 and figures["explored"] > figures["density"]
    assert float(last["test_inside_l1"]) == pytest.approx(figures["inside_l1"], abs=1e-6)
    assert figures["macs"] < 0.3 * 92.0e6
    model = load_model(tmp_path / "run", engine="onnxruntime")
    video = model.generate(str(DEMO_IMAGE), str(DEMO_AUDIO), duration=0.4, min_resolution=256)
    assert sum(1 for _ in video) == 10


@pytest.mark.slow
def test_rounded_weights_are_what_is_written(tmp_path, drawings, few_faces):
    """Half of the shipped weights, learning from the shipped painter in 4 bits: zeros and levels are in the file."""
    sparse = SparsityConfig(density=0.5, start="magnitude")
    config = SmallPainterConfig(LOOP, "int4", sparse, str(drawings), 2, begin="shipped", teacher="shipped", bits="int4")
    run(config, tmp_path / "run")
    stored = tensors_of(tmp_path / "run" / "painter" / "model.safetensors")
    shipped = tensors_of(EDGE_FOLDER / "painter" / "model.safetensors")
    masks = tensors_of(tmp_path / "run" / "masks.safetensors")
    for name, mask in masks.items():
        name = name.split("painter.")[-1]
        assert (stored[name][mask == 0] == 0).all()
        assert np.array_equal(quantize(stored[name], "int4"), stored[name])
    kept = np.concatenate([m.ravel() for m in masks.values()]) > 0
    assert kept.mean() == pytest.approx(0.5, abs=1e-3) and set(stored) == set(shipped)
    figures = json.loads((tmp_path / "run" / "small.json").read_text())["figures"]
    assert figures["bytes"] < 0.15 * 4 * 109_440


def test_settings_that_cannot_be():
    with pytest.raises(UsageError, match="rounding begins with a trained model"):
        SmallPainterConfig(LOOP, bits="int4")
    with pytest.raises(UsageError, match="bits is 'int3'; expected one of int8, int4"):
        SmallPainterConfig(LOOP, bits="int3", begin="shipped")
