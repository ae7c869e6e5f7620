#!/usr/bin/env python
"""Measure the memory of training steps of small sonic-bases on this CPU and compare it with what is predicted.

    python -m bench.check_memory_plan [--json OUT] [--case NUMBER]

Each case is a process of its own: it builds the networks and the trainer, compiles the step, notes its memory (RSS),
takes three real steps and notes the largest. The difference is what a step needs beside weights and optimizer:
activations, gradients, and what the kernels load when they first run. The last is measured too: by a case whose
activations are next to nothing. Constants of sonic_ms/train/base/activations.py may be fitted to the cases marked
`fit`, never to those marked `check`. Exit code 1 if a `check` is off by more than 15 %. float32 only: the CPU's kernels
for float16 keep indices (docs/deploy.md), which an Ascend has no use for.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

BAR = 0.15
CROSS, CHANNELS = 64, 8
BASE = {"channels": (64,), "heads": (2,), "batch": 1, "frames": 8, "height": 32, "width": 32, "trainable": ["all"],
        "recompute": False, "decoder": None}  # fmt: skip
WINDOW = 4  # frames that the lip-sync term decodes, in cases with a decoder
CASES = (
    ("base", {"frames": 1, "height": 8, "width": 8}),
    ("fit", {}),
    ("fit", {"recompute": True}),
    ("fit", {"trainable": ["audio"], "frames": 12}),
    ("fit", {"trainable": ["temporal"], "batch": 2, "height": 24, "width": 40}),
    ("fit", {"trainable": ["audio", "temporal"], "frames": 16, "recompute": True}),
    ("fit", {"trainable": ["lora"], "channels": (128,), "frames": 10, "height": 24, "width": 24}),
    ("fit", {"channels": (64, 96), "heads": (2, 3), "frames": 6}),
    ("fit", {"channels": (96,), "heads": (3,), "frames": 6, "height": 24, "width": 24, "recompute": True}),
    ("fit", {"trainable": ["audio"], "batch": 2, "frames": 5, "height": 24, "width": 32}),
    ("fit", {"trainable": ["temporal"], "frames": 10, "recompute": True}),
    ("fit", {"trainable": ["audio", "temporal"], "channels": (64, 96), "heads": (2, 3), "frames": 5,
             "recompute": True}),
    ("fit", {"trainable": ["temporal"], "channels": (64, 128), "heads": (2, 4), "frames": 7, "height": 24,
               "recompute": True}),
    ("fit", {"trainable": ["lora"], "channels": (128,), "heads": (4,), "frames": 9, "width": 24, "recompute": True}),
    ("fit", {"trainable": ["audio"], "channels": (96, 96), "heads": (3, 3), "frames": 6, "width": 40}),
    ("fit", {"channels": (64, 64), "batch": 2, "heads": (2, 4), "frames": 4, "height": 24, "recompute": True}),
    ("fit", {"channels": (128,), "heads": (2,), "frames": 5, "height": 40}),
    ("fit", {"trainable": ["audio", "temporal"], "frames": 14, "height": 40, "width": 24, "recompute": True}),
    ("check", {"channels": (64, 96), "heads": (2, 3), "frames": 7, "height": 24, "width": 24, "recompute": True}),
    ("check", {"trainable": ["lora"], "channels": (96,), "heads": (3,), "batch": 2, "frames": 3}),
    ("check", {"trainable": ["temporal"], "channels": (64, 128), "heads": (2, 4), "frames": 6, "width": 24}),
    ("check", {"trainable": ["audio", "temporal"], "channels": (128,), "heads": (4,), "height": 24, "recompute": True}),
    ("check", {"trainable": ["audio"], "frames": 4, "recompute": True, "decoder": (32, 64, 64)}),
    ("check", {"trainable": ["audio"], "frames": 6, "height": 16, "width": 24, "decoder": (64, 96)}),
    ("check", {"frames": 4, "height": 24, "batch": 2, "recompute": True, "decoder": (64, 64)}),
)  # fmt: skip


def settings(case):
    """(configs of the networks, BaseFinetuneConfig, DecodedWindow or None) of a case."""
    from sonic_ms.base.configs import AdapterConfig, UNetConfig, VAEConfig
    from sonic_ms.train.base.activations import DecodedWindow
    from sonic_ms.train.base.finetune import BaseFinetuneConfig
    from sonic_ms.train.loop.trainer import LoopConfig
    from sonic_ms.train.syncnet.loss import SyncConfig

    unet = UNetConfig(case["channels"], case["heads"], CROSS, 32, 96, layers_per_block=1, num_frames=case["frames"])
    configs = {
        "unet": unet,
        "audio2token": AdapterConfig(10, 5, CHANNELS, 16, CROSS, 32),
        "audio2bucket": AdapterConfig(50, 1, CHANNELS, 16, 1, 2, CROSS),
    }
    loop, trainable = LoopConfig(3, case["batch"], 1e-4), tuple(case["trainable"])
    window = DecodedWindow(VAEConfig(case["decoder"]), WINDOW) if case["decoder"] else None
    sync = SyncConfig("none", max_sigma=1e9) if window else None
    config = BaseFinetuneConfig(
        "none", "none", loop, trainable=trainable, frames=case["frames"], recompute=case["recompute"], sync=sync
    )
    return configs, config, window


def resident(key):
    """VmRSS or VmHWM of this process in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


def sync_term(window):
    """SyncTerm with random weights for a DecodedWindow, None for None."""
    from sonic_ms.base.vae import Decoder
    from sonic_ms.train.syncnet.loss import SyncTerm
    from sonic_ms.train.syncnet.network import SyncNet, SyncNetConfig

    if window is None:
        return None
    expert = SyncNet(SyncNetConfig(window.frames, (8, 8, 8, 8), 16))
    return SyncTerm(Decoder(window.vae), window.vae.scaling_factor, expert, window.frames)


def sync_inputs(window, mask, drawn):
    """What SyncWindows would give for the first frames of every clip, whose sound is silence. mask (b, H, W)."""
    from sonic_ms.media.audio import N_MELS
    from sonic_ms.train.syncnet.network import MEL_PER_FRAME, mouth_matrices

    if window is None:
        return ()
    b, height, width = mask.shape
    side = window.vae.downscale / 8  # the pictures are smaller than the mask where the decoder has fewer levels
    sides = round(height * side), round(width * side)
    rows, columns = mouth_matrices((0, 0, sides[1], sides[0]), *sides)
    index = np.concatenate([clip * len(drawn.noise[0]) + np.arange(window.frames) for clip in range(b)])
    mel = np.zeros((b, 1, N_MELS, MEL_PER_FRAME * window.frames), np.float32)
    sigma = np.float32(drawn.sigma).reshape(-1, 1, 1, 1, 1)
    return index.astype(np.int32), sigma, np.stack([rows] * b), np.stack([columns] * b), mel, np.ones(b, np.float32)


def measure(case):
    """Bytes that three steps take beyond what was there once they were compiled."""
    import mindspore as ms

    from sonic_ms.base.cells import CELLS
    from sonic_ms.train.base.diffusion import NoiseConfig, draw, network_inputs
    from sonic_ms.train.base.finetune import build_loss
    from sonic_ms.train.loop.distributed import Group
    from sonic_ms.train.loop.trainer import Run

    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    configs, config, window = settings(case)
    cells = {name: CELLS[name](one) for name, one in configs.items()}
    loss = build_loss(SimpleNamespace(cells=cells, configs=configs), config, sync_term(window))

    def make_batch(rng, size):
        frames, height, width = case["frames"], case["height"], case["width"]
        clips = {
            "latents": rng.standard_normal((size, frames, 4, height, width)),
            "image_latents": rng.standard_normal((size, 4, height, width)),
            "clip_embedding": rng.standard_normal((size, CROSS)),
            "token_states": rng.standard_normal((size, frames, 10, 5, CHANNELS)),
            "bucket_states": rng.standard_normal((size, frames, 50, 1, CHANNELS)),
            "mask": np.ones((size, 8 * height, 8 * width), np.float32),
            "buckets": rng.uniform(10, 40, (size, 2)),
        }
        noise = NoiseConfig()
        drawn = draw(rng, clips["latents"].shape, noise)
        return *network_inputs(configs["unet"], 1.0, clips, drawn, noise), *sync_inputs(window, clips["mask"], drawn)

    with tempfile.TemporaryDirectory() as folder:
        run = Run(loss, make_batch, config.loop, Path(folder), None, {}, Group())
        batch = make_batch(np.random.default_rng(0), case["batch"])
        one = ms.Tensor(np.float32(1))
        run.accumulate.compile(one, *(ms.Tensor(array) for array in batch))
        run.reduce.compile(one)
        run.update.compile(*[one] * 7)
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the largest RSS counts from here
        for step in range(3):
            run._step(step)
        return resident("VmHWM") - before


def predict(case):
    """Bytes of activations, gradients, and what oneDNN keeps for convolutions."""
    from sonic_ms.train.base.activations import scratch_bytes
    from sonic_ms.train.base.memory import plan, unbuilt_shapes

    configs, config, window = settings(case)
    size = configs["unet"], config, case["height"], case["width"]
    shapes = unbuilt_shapes(configs, dataclasses.replace(config, sync=None))  # what is frozen has no gradients
    needed = plan(size[0], shapes, *size[1:], window=window)
    return needed.activations + needed.gradients + scratch_bytes(*size, window)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the table as JSON")
    parser.add_argument("--case", type=int, help="measure only this case, in this process, and print its bytes")
    options = parser.parse_args(arguments)
    if options.case is not None:
        print("bytes", measure(BASE | CASES[options.case][1]))
        return 0
    rows, kernels = [], 0.0
    for number, (purpose, changes) in enumerate(CASES):
        command = [sys.executable, "-m", "bench.check_memory_plan", "--case", str(number)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        measured = int(next(line for line in output.splitlines() if line.startswith("bytes")).split()[1])
        if purpose == "base":
            kernels = measured - predict(BASE | changes)
        predicted = predict(BASE | changes) + kernels
        off = predicted / measured - 1
        rows.append({"purpose": purpose, "case": changes, "measured": measured, "predicted": predicted, "off": off})
        print(f"{purpose:6}{measured / 1e6:8.0f} MB measured{predicted / 1e6:8.0f} MB predicted{off:+8.1%}  {changes}",
              flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(abs(row["off"]) > BAR for row in rows if row["purpose"] == "check") else 0


if __name__ == "__main__":
    sys.exit(main())
