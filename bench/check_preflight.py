#!/usr/bin/env python
"""What `preflight.estimate` says of a request against what the request takes: denoising and decoding, random weights.

    python -m bench.check_preflight [--case mid|wide|full ...] [--json OUT]

Every case has a process of its own: probe, estimate, then every run of the UNet and of the decoder that the request
needs, one branch at a time, without compilation. Exit code 1 when time or memory is off by more than 25 %. The full
case needs 10 GB of memory. Needs a machine that does nothing else.
"""

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

BAR = 0.25
MID = ((64, 128, 256, 256), (2, 4, 8, 8), 256, 64, 192)  # channels, heads and widths of a UNet a fifth as wide
CASES = {  # name: (UNet's config, or None for the published networks; channels of the VAE; side, frames, steps)
    "mid": (MID, (32, 64, 128, 128), 256, 8, 4),
    "wide": (MID, (64, 64, 128, 128), 384, 6, 4),
    "full": (None, None, 256, 4, 2),
}


def networks(case):
    """({name: config} of UNet and VAE, the request)"""
    from sonic_ms.base.check import PUBLISHED
    from sonic_ms.base.configs import UNetConfig, VAEConfig
    from sonic_ms.base.preflight import Request

    sizes, channels, side, frames, steps = CASES[case]
    unet = UNetConfig(*sizes) if sizes else PUBLISHED["unet"]
    vae = VAEConfig(channels) if channels else PUBLISHED["vae"]
    configs = PUBLISHED | {"unet": replace(unet, num_frames=frames), "vae": vae}
    return configs, Request(side, side, frames, steps, branches=1, chunk=frames)


def timed(unit, runs):
    """(seconds of so many runs after compilation, bytes of the weights)"""
    import mindspore as ms

    from sonic_ms.base.graphs import sample_inputs

    cell = unit.build()
    inputs = [ms.Tensor(array) for array in sample_inputs(unit).values()]
    cell(*inputs).asnumpy()
    started = time.perf_counter()
    for _ in range(runs):
        cell(*inputs).asnumpy()
    return time.perf_counter() - started, sum(parameter.nbytes for parameter in cell.get_parameters())


def check(case):
    """One row of the table."""
    from sonic_ms.base import preflight
    from sonic_ms.base.check import peak_gigabytes, units

    configs, request = networks(case)
    latent = request.height // configs["vae"].downscale
    started = time.perf_counter()
    speeds = preflight.probe(configs["unet"], latent, latent)
    probing = time.perf_counter() - started
    table = units(configs, request.height, request.frames)
    denoising, weights = timed(table["unet"], 3 * request.steps * request.windows(configs["unet"]))
    decoding, more = timed(table["vae_decoder"], 1)
    predicted = preflight.estimate(configs, request, weights + more, speeds)
    return {
        "case": case,
        "speeds": [round(speed / 1e9, 2) for speed in speeds],
        "weights": weights + more,
        "probe_s": round(probing, 1),
        "denoising_s": round(denoising, 2),
        "decoding_s": round(decoding, 2),
        "measured": {"seconds": round(denoising + decoding, 2), "gigabytes": round(peak_gigabytes(), 2)},
        "predicted": {name: round(value, 2) for name, value in asdict(predicted).items()},
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--case", action="append", choices=tuple(CASES), help="only this one; may be repeated")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the rows as JSON")
    options = parser.parse_args(arguments)
    rows, missed = [], False
    for case in options.case or CASES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(check, case).result())
        print(rows[-1], flush=True)
        for what, unit in (("seconds", "s"), ("gigabytes", "GB")):
            predicted, measured = rows[-1]["predicted"][what], rows[-1]["measured"][what]
            off = predicted / measured - 1
            missed |= abs(off) > BAR
            print(f"{case:6}{predicted:9.2f} {unit} predicted, {measured:9.2f} {unit} measured  {off:+.0%}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
