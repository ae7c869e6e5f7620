"""Clips of both models whose frames are on record: a change that is to change nothing changes no byte of them.

    python -m tests.support.recorded_clips     records them anew, after a change that is meant to show

A list of sums: MindSpore's CPU backend gives sonic-base one of two results on the same machine, one alone and one
beside a second busy process, each of them every time; why is not known. After a recording the second has to be added.
Sums over floats differ in the last bit between processors: sha256 is compared on the very model of processor that is
on record, elsewhere the first and the last frame may differ by one level.
"""

import hashlib
import json
import os
import platform
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.pipeline import load_model

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "frames"
BOX = (100.0, 100.0, 200.0, 200.0)
SMALL = {"duration": 0.4, "min_resolution": 64, "inference_steps": 2, "face_box": BOX}
CLIPS = {  # name -> (model, options)
    "edge": ("sonic-edge", {"duration": 0.4, "min_resolution": 256}),
    "edge_options": ("sonic-edge", {"duration": 0.4, "min_resolution": 256, "seed": 3, "dynamic_scale": 1.2,
                                    "align_offset": 0.04, "face_box": BOX}),
    "base": ("sonic-base", SMALL),
    "base_options": ("sonic-base", SMALL | {"interpolation": False, "seed": 5, "align_offset": -0.1,
                                            "batch_branches": False, "keep_resolution": True}),
    "base_crop": ("sonic-base", SMALL | {"crop": True, "expand_ratio": 0.5}),
}  # fmt: skip


def processor():
    """Vendor, family, model, stepping and cores of the processor: all that may decide how sums are ordered. Two EPYCs
    with the same instructions differ in the last bit, for their caches differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    about = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    parts = [about.get(key, "") for key in ("vendor_id", "cpu family", "model", "stepping")]
    return " ".join([platform.machine(), *parts, f"x{os.cpu_count()}"])


def make(model, name):
    """(sha256 of all frames, first and last frame (2, h, w, 3))."""
    total, kept = hashlib.sha256(), []
    for frame in model.generate(image=str(DEMO_IMAGE), audio=str(DEMO_AUDIO), **CLIPS[name][1]):
        total.update(frame.tobytes())
        kept.append(frame)
    return total.hexdigest(), np.stack([kept[0], kept[-1]])


def tiny_base(folder):
    """A converted sonic-base of tiny random networks."""
    from sonic_ms.cli import main
    from tests.support import tiny_checkpoint

    tiny_checkpoint.write_tree(folder / "tree")
    assert main(["convert", "--src", str(folder / "tree"), "--dst", str(folder / "model")]) == 0
    return folder / "model"


def record(folder=FOLDER):
    with tempfile.TemporaryDirectory() as scratch:
        models = {"sonic-edge": load_model(engine="mindspore"), "sonic-base": load_model(tiny_base(Path(scratch)))}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "sha256.json"
        sums = json.loads(path.read_text()) if path.exists() else {}
        sums[processor()] = {}
        for name, (model, _) in CLIPS.items():
            digest, frames = make(models[model], name)
            sums[processor()][name] = [digest]
            np.savez_compressed(folder / f"{name}.npz", frames=frames)
        path.write_text(json.dumps(sums, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(record(*map(Path, sys.argv[1:])))
