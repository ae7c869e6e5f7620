#!/usr/bin/env python
"""Time and memory of the UNet of sonic-base against PyTorch: same weights, same inputs, same threads, one run.

    python -m bench.bench_base [--size mid|full] [--rounds 7] [--engines mindspore,mindir,...] [--json OUT]

The reference is diffusers' UNetSpatioTemporalConditionModel with Sonic's audio attention (torch_reference.py); "plain"
is the same without audio, as diffusers has it. Both as a user runs them: eager, no_grad, fused attention, weights read
into ordinary memory. Ours go through the real converter and exporter: "mindspore" are Cells, "mindir" and "onnxruntime"
the files of a bundle, "for_cpu" the MINDIR of one that was exported --for-cpu. Engines take turns, one run each, so a
change in the machine's speed reaches all of them; each has a process and all cores of its own, and so a peak memory of
its own. What is timed is the steady state, as in a video of hundreds of steps. 4 frames, 32x32 latents, one guidance
branch. Needs the test extra; the full size takes one engine at a time, and 20 GB of disk and of memory.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

FRAMES, SIDE = 4, 32
# Untimed runs of an engine. During the first 20 runs of a graph MindSpore's element-wise kernels try how many threads
# suit them, five runs each, beginning with one; the others have settled after their first run.
WARM_UP = {"torch": 1, "mindspore": 20, "mindir": 20, "for_cpu": 20, "onnxruntime": 1}
SIZES = {
    "mid": {"channels": (64, 128, 256, 256), "heads": (2, 4, 8, 8), "cross": 256, "id_width": 64},
    "full": {"channels": (320, 640, 1280, 1280), "heads": (5, 10, 20, 20), "cross": 1024, "id_width": 256},
}


def torch_inputs(size):
    """Random sample, timestep, clip, audio, mask and ids. The mask is all face."""
    rng = np.random.default_rng(0)
    cross = SIZES[size]["cross"]
    sample = rng.standard_normal((1, FRAMES, 8, SIDE, SIDE), np.float32)
    clip = np.repeat(rng.standard_normal((1, 1, cross), np.float32), FRAMES, 0)
    audio = rng.standard_normal((FRAMES, 32, cross), np.float32)
    return sample, 1.3, clip, audio, np.ones((8 * SIDE, 8 * SIDE), np.float32), np.float32([[12.5, 20, 30]])


def prepare_torch(size, folder):
    """Random weights as an upstream checkpoint, with what its shapes do not tell."""
    import torch

    from tests.support.torch_reference import SonicUNet

    unet = SonicUNet(layers=2, frames=FRAMES, **SIZES[size])
    (folder / "upstream").mkdir()
    torch.save(unet.state_dict(), folder / "upstream" / "unet.pth")
    (folder / "upstream" / "unet.json").write_text(json.dumps(unet.hints))


def our_units(folder):
    """The table of units, whose UNet has the converted weights."""
    from sonic_ms.base import cells
    from sonic_ms.base.check import PUBLISHED
    from sonic_ms.base.configs import UNetConfig
    from sonic_ms.base.units import BaseGear, base_units
    from sonic_ms.files.weights import load_config, load_weights

    def build(network, part, *size):
        return load_weights(cells.empty(config, network, part), folder / "ours" / network, f"{part}.")

    config = load_config(UNetConfig, folder / "ours" / "unet")
    return base_units(PUBLISHED | {"unet": config}, BaseGear(8 * SIDE, 8 * SIDE, FRAMES, 1, FRAMES), build)


def prepare_ours(size, folder, engines):
    """Convert, compute the contexts (once a clip, outside the step that is timed), export."""
    from sonic_ms.convert import checkpoints

    from sonic_ms.base.winograd import rearrange
    from sonic_ms.deploy.export import write_mindir, write_onnx
    from sonic_ms.nn.host import frame_sinusoids, mask_tokens, time_sinusoids
    from sonic_ms.runtime.ms import start

    ms = start()
    jobs, _ = checkpoints.plan(folder / "upstream")
    checkpoints.convert(jobs, folder / "ours")
    config = jobs[0].config
    sample, timestep, clip, audio, mask, ids = torch_inputs(size)
    units = our_units(folder)
    context = units["unet_context"].build()(*[ms.Tensor(a) for a in (clip, audio, frame_sinusoids(config, FRAMES))])
    context = [part.asnumpy() for part in context]
    temporal = [part.mean(0, keepdims=True) for part in context[3:6]]
    time_parts = time_sinusoids(config, timestep, ids)
    arrays = [sample, *time_parts, mask_tokens(config, mask, SIDE, SIDE), *context[:3], *temporal, context[6]]
    inputs = {tensor.name: array for tensor, array in zip(units["unet"].inputs, arrays)}
    np.savez(folder / "inputs.npz", **inputs)
    tensors = [ms.Tensor(array) for array in arrays]
    for engine, write in (("mindir", write_mindir), ("onnxruntime", write_onnx)):
        if engine in engines:
            write(ms, units["unet"].build(), tensors, units["unet"], folder)
    if "for_cpu" in engines:
        (folder / "for_cpu").mkdir()
        unet = rearrange(units["unet"].build(), SIDE, SIDE)
        write_mindir(ms, unet, tensors, units["unet"], folder / "for_cpu")


def torch_engine(size, folder):
    """Upstream's network, which computes keys and values of every pixel at every step, and diffusers' plain one, with
    the same weights in memory."""
    import torch

    from tests.support.torch_reference import SonicUNet

    state = torch.load(folder / "upstream" / "unet.pth", weights_only=True)
    with torch.device("meta"):
        unet = SonicUNet(layers=2, frames=FRAMES, random=False, **SIZES[size])
        plain = SonicUNet(layers=2, frames=FRAMES, random=False, audio=False, **SIZES[size]).model
    unet.model.load_state_dict(state, assign=True)
    plain.load_state_dict({name: one for name, one in state.items() if ".processor." not in name}, assign=True)
    inputs = [torch.tensor(part) for part in torch_inputs(size)]
    sample, timestep, clip, _, _, ids = inputs

    @torch.no_grad()
    def plain_step():
        return plain(sample, timestep, clip[:1], ids, return_dict=False)[0].numpy()

    return {"torch": lambda: unet(*inputs).numpy(), "plain": plain_step}


def mindspore_engine(size, folder):
    from sonic_ms.runtime.ms import start

    ms = start()
    cell = our_units(folder)["unet"].build()
    with np.load(folder / "inputs.npz") as inputs:
        tensors = [ms.Tensor(array) for array in inputs.values()]
    return {"mindspore": lambda: cell(*tensors).asnumpy()}


def mindir_engine(size, folder):
    """The exported graph, as a bundle has it."""
    return {"mindir": mindir_step(folder, folder / "mindir")}


def for_cpu_engine(size, folder):
    """The same of a bundle that was exported --for-cpu."""
    return {"for_cpu": mindir_step(folder, folder / "for_cpu" / "mindir")}


def mindir_step(folder, graphs):
    from sonic_ms.runtime.cells import load_mindir
    from sonic_ms.runtime.ms import start

    ms = start()
    with np.load(folder / "inputs.npz") as inputs:
        tensors = [ms.Tensor(array) for array in inputs.values()]
    graph = load_mindir(ms, next(graphs.glob("*.mindir")))
    return lambda: graph(*tensors).asnumpy()


def onnxruntime_engine(size, folder):
    from sonic_ms.runtime.ort import open_session

    session = open_session(folder / "onnx" / "unet.onnx", ["CPUExecutionProvider"])
    with np.load(folder / "inputs.npz") as inputs:
        feed = dict(inputs)
    return {"onnxruntime": lambda: session.run(None, feed)[0]}


def open_engine(name, size, folder):
    """In the process of an engine: load it, run it and warm it up. ({network: prediction}, seconds to the first one)"""
    global _steps
    started = time.perf_counter()
    _steps = globals()[f"{name}_engine"](size, folder)
    predictions = {network: step() for network, step in _steps.items()}
    first = time.perf_counter() - started
    for _ in range(WARM_UP[name] - 1):
        for step in _steps.values():
            step()
    return predictions, first


def turn():
    """In the process of an engine: ({network: seconds of one run}, peak GB so far)."""
    from sonic_ms.base.check import peak_gigabytes

    seconds = {}
    for network, step in _steps.items():
        started = time.perf_counter()
        step()
        seconds[network] = time.perf_counter() - started
    return seconds, peak_gigabytes()


def process():
    """A fresh process for the functions of this file."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def compare(size, engines, rounds, folder):
    """Rows of the table, one an engine."""
    outs, firsts, peaks, seconds = {}, {}, {}, {}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(process()) for name in ("torch", *engines)}
        for name, pool in pools.items():
            predictions, firsts[name] = pool.submit(open_engine, name, size, folder).result()
            outs |= predictions
        for _ in range(rounds):
            for name, pool in pools.items():
                times, peaks[name] = pool.submit(turn).result()
                for network, took in times.items():
                    seconds.setdefault(network, []).append(took)
    for network, times in seconds.items():
        print(f"{network}: {' '.join(f'{one:.3f}' for one in times)} s", flush=True)
    median = {name: float(np.median(times)) for name, times in seconds.items()}
    return [
        {
            "unit": f"unet-{size}",
            "engine": name,
            "ours_s": round(median[name], 4),
            "torch_s": round(median["torch"], 4),
            "ratio": round(median[name] / median["torch"], 3),
            "plain_s": round(median["plain"], 4),
            "plain_ratio": round(median[name] / median["plain"], 3),
            "ours_gb": round(peaks[name], 2),
            "torch_gb": round(peaks["torch"], 2),
            "memory_ratio": round(peaks[name] / peaks["torch"], 3),
            "first_s": round(firsts[name], 1),
            "relative_l2": float(np.linalg.norm(outs[name] - outs["torch"]) / np.linalg.norm(outs["torch"])),
        }
        for name in engines
    ]


def prepare(size, engines, folder):
    """Weights and graphs of every engine, unless the folder has them."""
    if not (folder / "inputs.npz").is_file():
        for function, arguments in ((prepare_torch, (size, folder)), (prepare_ours, (size, folder, engines))):
            with process() as pool:
                pool.submit(function, *arguments).result()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--size", choices=tuple(SIZES), default="mid", help="mid: 64-256 channels; full: as published")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each engine, in turn; medians count")
    parser.add_argument("--engines", default="mindspore,onnxruntime", help="comma-separated, compared with torch")
    parser.add_argument("--folder", metavar="DIR", type=Path, help="keep weights and graphs here, for the next time")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the table as JSON")
    options = parser.parse_args(arguments)
    engines = tuple(options.engines.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        prepare(options.size, engines, folder)
        rows = compare(options.size, engines, options.rounds, folder)
    for row in rows:
        print(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
