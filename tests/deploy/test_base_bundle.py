"""Every graph of sonic-base, with a few channels: exported, run by both engines, and put together into a pipeline."""

from dataclasses import asdict

import numpy as np
import pytest

from sonic_ms.base_check import SMALL, units
from sonic_ms.base_networks import BundleNetworks
from sonic_ms.export import FORMATS, export
from sonic_ms.runtime.engine import open_engine
from sonic_ms.units import BaseGear
from sonic_ms.verify import verify

SIDE, FRAMES = 64, 2


@pytest.fixture(scope="module")
def base_bundle(tmp_path_factory):
    out = tmp_path_factory.mktemp("base") / "bundle"
    table = units(SMALL, SIDE, FRAMES)
    gear = asdict(BaseGear(SIDE, SIDE, chunk=FRAMES, frames=FRAMES, detector=(SIDE, SIDE)))
    return export("sonic-base", table, out, FORMATS, "fp32", gear, SMALL, "0" * 64, lambda line: None)


def test_all_units_agree(base_bundle):
    rows = verify(base_bundle, ["mindspore", "onnxruntime"])
    assert {row["unit"] for row in rows} == set(units(SMALL)) and len(base_bundle.units) == 10
    assert [row for row in rows if not row["passed"]] == []


def test_no_unit_is_dead(base_bundle):
    """An output that does not depend on the inputs would agree with anything. Left out is the detector: with so few
    channels and random weights it answers nearly the same to any noise; tests/models compares it on real numbers."""
    from sonic_ms.samples import sample_inputs

    engine = open_engine("onnxruntime", base_bundle)
    for name, unit in base_bundle.units.items():
        if name == "yoloface":
            continue
        first, second = (engine.run(name, sample_inputs(unit, seed)) for seed in (0, 1))
        for output in first:
            assert np.abs(first[output] - second[output]).max() > 1e-3, (name, output)


def test_networks_of_a_bundle(base_bundle):
    """The pipeline's face of a bundle: arrays in the order of the table in, one array or a tuple out."""
    networks = BundleNetworks(base_bundle, open_engine("onnxruntime", base_bundle))
    assert networks.config("unet") == SMALL["unet"] and networks.gear.frames == FRAMES
    pictures = np.random.default_rng(0).uniform(0, 1, (2, 1, 3, SIDE, SIDE)).astype(np.float32)
    flow, mask, middle = networks.run("rife", *pictures)
    assert (flow.shape, mask.shape, middle.shape) == ((1, 4, SIDE, SIDE), (1, 1, SIDE, SIDE), (1, 3, SIDE, SIDE))
    assert networks.run("vae_encoder", pictures[0]).shape == (1, 4, SIDE // 8, SIDE // 8)
