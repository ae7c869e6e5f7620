#!/usr/bin/env python
"""Time and memory of the UNet of sonic-base against PyTorch: same weights, same inputs, same threads, one run.

    python tools/bench_base.py [--size mid|full] [--rounds 5] [--engines mindspore,onnxruntime] [--json OUT]

The reference is diffusers' UNetSpatioTemporalConditionModel with Sonic's audio attention (tests/models/
torch_reference.py). Engines take turns, so that a busy machine slows all of them; medians are compared. The memory of
each engine is the peak of a process of its own. 4 frames, 32x32 latents, one guidance branch. Needs the test extra.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]  # run from a checkout without installing

FRAMES, SIDE = 4, 32
SIZES = {
    "mid": {"channels": (64, 128, 256, 256), "heads": (2, 4, 8, 8), "cross": 256},
    "full": {"channels": (320, 640, 1280, 1280), "heads": (5, 10, 20, 20), "cross": 1024},
}


def tokens(size):
    """Random inputs: sample, timestep, clip, audio, mask, ids. The mask is all face."""
    rng = np.random.default_rng(0)
    cross = SIZES[size]["cross"]
    sample = rng.standard_normal((1, FRAMES, 8, SIDE, SIDE), np.float32)
    clip = np.repeat(rng.standard_normal((1, 1, cross), np.float32), FRAMES, 0)
    audio = rng.standard_normal((FRAMES, 32, cross), np.float32)
    return sample, 1.3, clip, audio, np.ones((8 * SIDE, 8 * SIDE), np.float32), np.float32([[12.5, 20, 30]])


def torch_unet(size):
    import torch
    from torch_reference import SonicUNet

    torch.manual_seed(0)
    return SonicUNet(layers=2, frames=FRAMES, **SIZES[size])


def our_unet(unet):
    """Our Cells with the weights of the torch UNet, through the name map, and their config."""
    import mindspore as ms

    from convert.checkpoints import match, parameter_shapes
    from convert.families import recognise
    from sonic_ms.models.unet import SonicUNet

    state = unet.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    family, _ = recognise(shapes)
    config = family.config(shapes, unet.hints, None)
    targets, _, problems = match(family, config, shapes, parameter_shapes(family.cell, config))
    if problems:
        raise SystemExit("; ".join(problems))
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    cell = SonicUNet(config).set_train(False)
    for name, parameter in cell.parameters_and_names():
        source, transform = targets[name]
        parameter.set_data(ms.Tensor(np.ascontiguousarray(transform.apply(state[source].numpy()))))
    return cell, config


def our_inputs(cell, config, sample, timestep, clip, audio, mask, ids):
    """Arrays for the denoiser; the contexts are computed once a clip, outside the step that is timed."""
    import mindspore as ms

    from sonic_ms.models.host import frame_sinusoids, mask_tokens, time_sinusoids

    context = cell.context(*[ms.Tensor(part) for part in (clip, audio, frame_sinusoids(config, FRAMES))])
    context = [part.asnumpy() for part in context]
    temporal = [part.mean(0, keepdims=True) for part in context[3:6]]
    time_parts = time_sinusoids(config, timestep, ids)
    return [sample, *time_parts, mask_tokens(config, mask, SIDE, SIDE), *context[:3], *temporal, context[6]]


def engine(name, size, unet):
    """Function without arguments that runs one step and returns the prediction."""
    inputs = tokens(size)
    if name == "torch":
        import torch

        torch.set_num_threads(os.cpu_count())
        tensors = [torch.tensor(part) for part in inputs]
        return lambda: unet(*tensors).numpy()
    cell, config = our_unet(unet)
    arrays = our_inputs(cell, config, *inputs)
    if name == "mindspore":
        import mindspore as ms

        tensors = [ms.Tensor(array) for array in arrays]
        return lambda: cell.denoiser(*tensors).asnumpy()
    return onnx_engine(cell.denoiser, arrays)


def onnx_engine(cell, arrays):
    """The same Cell through MindSpore's ONNX exporter and onnxruntime."""
    import mindspore as ms
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "unet.onnx")
        ms.export(cell, *[ms.Tensor(array) for array in arrays], file_name=path, file_format="ONNX")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {entry.name: array for entry, array in zip(session.get_inputs(), arrays)}
    return lambda: session.run(None, feed)[0]


def timed(step):
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def peak(name, size):
    """Peak memory in GB of a fresh process that builds one engine and runs one step."""
    command = [sys.executable, __file__, "--size", size, "--only-memory", name]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(out.strip().splitlines()[-1])


def compare(size, engines, rounds, memory):
    unet = torch_unet(size)
    steps = {name: engine(name, size, unet) for name in ("torch", *engines)}
    first = {name: step() for name, step in steps.items()}  # compiles
    seconds = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(timed(step))
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    peaks = {name: peak(name, size) for name in steps} if memory else {}
    rows = []
    for name in engines:
        error = np.linalg.norm(first[name] - first["torch"]) / np.linalg.norm(first["torch"])
        rows.append(
            {
                "unit": f"unet-{size}",
                "engine": name,
                "ours_s": round(median[name], 4),
                "torch_s": round(median["torch"], 4),
                "ratio": round(median[name] / median["torch"], 3),
                "memory_ratio": round(peaks[name] / peaks["torch"], 3) if memory else None,
                "relative_l2": float(error),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--size", choices=tuple(SIZES), default="mid", help="mid: 64-256 channels; full: as published")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each engine")
    parser.add_argument("--engines", default="mindspore,onnxruntime", help="comma-separated, compared with torch")
    parser.add_argument("--no-memory", action="store_true", help="skip the memory runs")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the table as JSON")
    parser.add_argument("--only-memory", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only_memory:
        from sonic_ms.base_check import peak_gigabytes

        engine(options.only_memory, options.size, torch_unet(options.size))()
        print(peak_gigabytes())
        return 0
    rows = compare(options.size, options.engines.split(","), options.rounds, not options.no_memory)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
