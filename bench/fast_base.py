#!/usr/bin/env python
"""What the ways to save work of sonic-base bring and cost: seconds of a clip, latents, a model that was overfitted.

    python -m bench.fast_base time [--size tiny|mid|full] [--rounds 5] [--side 256] [--frames 4] [--by-level]
    python -m bench.fast_base latents [--steps 12] [--frames 9]
    python -m bench.fast_base overfit OUT        # OUT of bench/overfit_base.py

time: the whole UNet and the one that starts from kept features take turns, one run each, with random weights, one
branch; medians, summed up as the 25 steps of a clip need them. The rest of a video is not in it. --by-level: in a
machine of less memory, both from the speed of one residual block and one transformer of each level (the probe of
sonic_ms/base/preflight.py), 2 GB at full size instead of 10.
latents: the whole loop with a tiny UNet and windows that shift by 7 frames and wrap, with a cache of N steps against
none: relative L2 of the latents. Random weights: how errors grow, not how a video looks.
overfit: PSNR, and how much nearer the mouth is to the clip of its own sound, with each way to save work.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

TINY = ((32, 64), (1, 2), 32, 32, 96)
MID = ((64, 128, 256, 256), (2, 4, 8, 8), 256, 64, 192)
WARM_UP = 2  # runs of each before the first that is timed
WAYS = {
    "everything": {},
    "guidance_reuse 2": {"guidance_reuse": 2},
    "guidance_reuse 3": {"guidance_reuse": 3},
    "image interval 0,0.6": {"image_guidance_interval": (0.0, 0.6)},
    "feature_cache 2, branch 0": {"feature_cache": 2},
    "feature_cache 3, branch 0": {"feature_cache": 3},
    "feature_cache 5, branch 0": {"feature_cache": 5},
    "feature_cache 2, branch 1": {"feature_cache": 2, "feature_cache_branch": 1},
    "feature_cache 2, branch 0, guidance_reuse 2": {"feature_cache": 2, "guidance_reuse": 2},
    "quality balanced": {"quality": "balanced"},
    "quality fast": {"quality": "fast"},
}


def loop_of(values, **more):
    """(DenoiseSettings, branch of the cache) of options by name."""
    from sonic_ms.base.denoise import DenoiseSettings
    from sonic_ms.base.options import BaseOptions

    options = BaseOptions(**values)
    settings = DenoiseSettings(
        image_interval=options.image_guidance_interval,
        audio_interval=options.audio_guidance_interval,
        guidance_reuse=options.guidance_reuse,
        feature_cache=options.feature_cache,
        cache_branch=options.feature_cache_branch,
        **more,
    )
    return settings, options.feature_cache_branch


def config_of(size, frames):
    """UNetConfig of a size by name."""
    from sonic_ms.base.check import PUBLISHED
    from sonic_ms.base.configs import UNetConfig

    if size == "full":
        return PUBLISHED["unet"]
    shape = {"tiny": TINY, "mid": MID}[size]
    return UNetConfig(*shape, layers_per_block=1 if size == "tiny" else 2, num_frames=frames)


def unet_units(size, side, frames):
    """Table of units whose UNet has random weights, shared by all ways through it."""
    from sonic_ms.base import cells
    from sonic_ms.base.check import PUBLISHED, randomise
    from sonic_ms.base.units import CACHE_BRANCHES, BaseGear, base_units
    from sonic_ms.runtime.ms import start

    start()
    configs = PUBLISHED | {"unet": config_of(size, frames)}
    unet = randomise(cells.empty(configs["unet"], "unet"))
    gear = BaseGear(side, side, frames=frames, cache_branches=CACHE_BRANCHES)
    return configs, base_units(configs, gear, lambda _, part, *more: cells.part_of(unet, part))


def measure(size, side, frames, rounds):
    """{unit: seconds of one run of one branch}, medians."""
    import mindspore as ms

    from sonic_ms.base.graphs import sample_inputs

    _, units = unet_units(size, side, frames)
    runs = {}
    for name in ("unet", "unet_shallow0", "unet_shallow1"):
        cell, inputs = units[name].build(), [ms.Tensor(array) for array in sample_inputs(units[name]).values()]
        runs[name] = lambda cell=cell, inputs=inputs: cell(*inputs).asnumpy()
    seconds = {name: [] for name in runs}
    for number in range(WARM_UP + rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def measure_by_level(size, side, frames):
    """The same from blocks that are measured alone."""
    from sonic_ms.base import preflight

    config, latents = config_of(size, frames), side // 8
    speeds = preflight.probe(config, latents, latents, frames)
    seconds = {"unet": preflight.step_seconds(config, latents, latents, frames, speeds)}
    for branch in (0, 1):
        work = preflight.shallow_operations(config, latents, latents, frames, branch)
        seconds[f"unet_shallow{branch}"] = work / speeds[0]
    return seconds


def time_table(seconds):
    """Rows of each way: seconds of 25 steps of one window, and their share of what computing everything takes.

    The UNet that also gives features is timed as the plain one: it computes the same.
    """
    from sonic_ms.base.guidance import plan, work_of

    print(json.dumps({name: round(value, 4) for name, value in seconds.items()}), flush=True)
    rows = []
    for name, values in WAYS.items():
        settings, branch = loop_of(values)
        work = work_of(plan(settings))
        total = work.whole * seconds["unet"] + work.shallow * seconds[f"unet_shallow{branch}"]
        rows.append({"way": name, "whole": work.whole, "shallow": work.shallow, "seconds": total})
    for row in rows:
        row["share"] = row["seconds"] / rows[0]["seconds"]
        print(f"| {row['way']} | {row['whole']} | {row['shallow']} | {row['seconds']:.1f} | {row['share']:.2f} |")
    return rows


def latents_table(steps, count):
    """Relative L2 of the latents of a tiny network against those without any saving, one row a way."""
    import mindspore as ms

    from sonic_ms.base.denoise import Conditions, denoise
    from sonic_ms.base.scheduler import EulerScheduler, SchedulerConfig

    window = 4
    configs, units = unet_units("tiny", 64, window)
    config, rng, cells = configs["unet"], np.random.default_rng(0), {}
    tokens = (config.audio_context_tokens, config.cross_attention_dim)
    clip = Conditions(
        rng.standard_normal((4, 8, 8), np.float32),
        rng.uniform(10, 40, (count, 2)),
        np.ones((64, 64), np.float32),
        rng.standard_normal(tokens[1]).astype(np.float32),
        rng.standard_normal((count, *tokens), np.float32),
        rng.standard_normal((1, *tokens), np.float32),
    )
    noise = rng.standard_normal((count, 4, 8, 8), np.float32)

    def unit(name):
        def run(*arrays):
            if name not in cells:
                cells[name] = units[name].build()
            out = cells[name](*[ms.Tensor(np.ascontiguousarray(array, np.float32)) for array in arrays])
            return tuple(part.asnumpy() for part in out) if isinstance(out, tuple) else out.asnumpy()

        return run

    rows, reference = [], None
    for name, values in WAYS.items():
        settings, branch = loop_of(values, steps=steps, window=window, batch_branches=False)
        latents = denoise(
            unit("unet"), unit("unet_context"), config, clip, noise, EulerScheduler(SchedulerConfig(), steps), settings,
            0.18215, deep=unit(f"unet_features{branch}"), shallow=unit(f"unet_shallow{branch}"),
        )  # fmt: skip
        reference = latents if reference is None else reference
        error = np.linalg.norm(latents - reference) / np.linalg.norm(reference)
        rows.append({"way": name, "relative_l2": float(error)})
        print(f"| {name} | {error:.3g} |", flush=True)
    return rows


def overfit_table(out):
    """PSNR of both clips and the gap of the mouth, own sound against other, of an overfitted model, one row a way."""
    from bench.overfit_base import CHUNK, SEED, SIDE, mouth, psnr
    from sonic_ms.pipeline import load_model

    saved = np.load(out / "clips.npz")
    clips, pieces, (x1, y1, x2, y2) = list(saved["clips"]), list(saved["pieces"]), map(float, saved["box"])
    model, rows = load_model(out / "model"), []
    fixed = {"face_box": (x1, y1, x2 - x1, y2 - y1), "min_resolution": SIDE, "interpolation": False, "shift_offset": 0}
    fixed |= {"decode_chunk_size": CHUNK, "seed": SEED, "batch_branches": False}
    for name, values in WAYS.items():
        made = [np.stack(list(model.generate(clips[0][0], piece, **fixed, **values))) for piece in pieces]
        quality = [psnr(ours, clip) for ours, clip in zip(made, clips)]
        own = [psnr(mouth(ours), mouth(clip)) for ours, clip in zip(made, clips)]
        other = [psnr(mouth(ours), mouth(clip)) for ours, clip in zip(made, clips[::-1])]
        gap = float(np.mean(own) - np.mean(other))
        rows.append({"way": name, "psnr": quality, "mouth_gap": gap})
        print(f"| {name} | {quality[0]:.1f} | {quality[1]:.1f} | {gap:.1f} |", flush=True)
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    what = parser.add_subparsers(dest="what", required=True)
    timed = what.add_parser("time")
    timed.add_argument("--size", choices=("tiny", "mid", "full"), default="full")
    timed.add_argument("--rounds", type=int, default=5)
    timed.add_argument("--side", type=int, default=256, help="pixels of the picture")
    timed.add_argument("--frames", type=int, default=4, help="of a window")
    timed.add_argument("--by-level", action="store_true", help="from blocks of each level, in less memory")
    latents = what.add_parser("latents")
    latents.add_argument("--steps", type=int, default=12)
    latents.add_argument("--frames", type=int, default=9)
    what.add_parser("overfit").add_argument("out", type=Path, metavar="OUT")
    options = parser.parse_args(arguments)
    if options.what == "time":
        shape = (options.size, options.side, options.frames)
        rows = time_table(measure_by_level(*shape) if options.by_level else measure(*shape, options.rounds))
    elif options.what == "latents":
        rows = latents_table(options.steps, options.frames)
    else:
        rows = overfit_table(options.out)
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
