#!/usr/bin/env python
"""Train a tiny sonic-base in one process and in two, and compare: data parallel, sharded optimizer, a killed process.

    python -m bench.check_distributed [--json OUT] [--port 8218]

Two real processes that msrun starts, with MindSpore's CPU collectives. Checked: both ways give the losses and weights
of one process with twice the batch (bar 1e-5, relative L2 for the weights); sharding makes the optimizer smaller; when
one process is killed the job ends by itself, with a message and an exit code; and it resumes from its checkpoint to
the same losses. Exit code 0 if all is so. Takes about four minutes on two cores.
"""

import argparse
import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

BAR, STEPS, PATIENCE = 1e-5, 4, 240  # relative difference; steps; seconds before a job counts as hanging
CROSS, CHANNELS, FRAMES = 24, 8, 2
SHARE = 0.65  # of the optimizer's bytes on one of two devices; gradients' totals and small tensors stay whole


def build():
    """(SonicLoss of a tiny sonic-base with one level, make_batch)."""
    import mindspore as ms

    from sonic_ms.base.audio_adapters import Audio2Bucket, Audio2Token
    from sonic_ms.base.configs import AdapterConfig, UNetConfig
    from sonic_ms.base.unet import SonicUNet
    from sonic_ms.train.base.diffusion import NoiseConfig, SonicLoss, draw, network_inputs

    ms.set_seed(5)
    config = UNetConfig((64,), (2,), CROSS, 16, 48, layers_per_block=1, num_frames=FRAMES)
    token = Audio2Token(AdapterConfig(10, 5, CHANNELS, 16, CROSS, 32))
    bucket = Audio2Bucket(AdapterConfig(50, 1, CHANNELS, 16, 1, 2, CROSS))
    noise = NoiseConfig()

    def make_batch(rng, size):
        clips = {
            "latents": rng.standard_normal((size, FRAMES, 4, 6, 10)),
            "image_latents": rng.standard_normal((size, 4, 6, 10)),
            "clip_embedding": rng.standard_normal((size, CROSS)),
            "token_states": rng.standard_normal((size, FRAMES, 10, 5, CHANNELS)),
            "bucket_states": rng.standard_normal((size, FRAMES, 50, 1, CHANNELS)),
            "mask": (rng.random((size, 48, 80)) > 0.5).astype(np.float32),
            "buckets": rng.uniform(10, 40, (size, 2)),
        }
        return network_inputs(config, 1.0, clips, draw(rng, clips["latents"].shape, noise), noise)

    return SonicLoss(config, SonicUNet(config), token, bucket, FRAMES, 0.1), make_batch


def worker(case, folder):
    """One process of a case; run by `launch`."""
    import mindspore as ms

    from sonic_ms.train.loop.distributed import join
    from sonic_ms.train.loop.optimizer import States
    from sonic_ms.train.loop.trainer import LoopConfig, train

    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    group = join()
    loss, make_batch = build()
    shard = case in ("sharded", "killed", "resumed")
    loop = LoopConfig(
        STEPS, 2, 1e-3, warmup=0, schedule="constant", epsilon=1e-8, shard_optimizer=shard, log_every=1, save_every=2
    )
    batches, steps = make_batch, itertools.count()
    if case == "single":  # the batches of both processes as one

        def batches(rng, size):
            step = next(steps)
            rngs = np.random.default_rng([0, step]), np.random.default_rng([0, step, 1])
            return tuple(np.concatenate(pair) for pair in zip(*(make_batch(one, size) for one in rngs)))

    if case == "killed" and group.rank == 1:

        def batches(rng, size):
            if next(steps) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return make_batch(rng, size)

    train(loss, batches, loop, folder, resume=case == "resumed", group=group)
    if group.rank == 0:
        np.savez(folder / f"{case}.npz", **{name: p.asnumpy() for name, p in loss.parameters_and_names()})
    size = States(loss.trainable_params(), group, shard).bytes()
    (folder / f"{case}{group.rank}.bytes").write_text(str(size))


def launch(case, folder, port):
    """Run a case in its processes; returns (exit code, seconds, what the launcher printed). -1: it hung."""
    script = ["-m", "bench.check_distributed", "--case", case, "--place", str(folder)]
    count = 1 if case == "single" else 2
    command = [sys.executable, *script]
    if count > 1:
        options = f"--worker_num={count} --local_worker_num={count} --master_port={port} --join=True"
        logs = f"--log_dir={folder / f'{case}_logs'}"
        command = [
            str(Path(sys.executable).with_name("msrun")),
            *options.split(),
            "--cluster_time_out=60",
            logs,
            *script,
        ]
    started = time.time()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        cwd=folder,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return -1, time.time() - started, process.communicate()[0]
    logs = sorted((folder / f"{case}_logs").glob("worker_*.log"))
    return process.returncode, time.time() - started, output + "".join(log.read_text()[-2000:] for log in logs)


def losses(folder):
    with open(folder / "loss.csv", newline="") as file:
        return np.array([float(row["train"]) for row in csv.DictReader(file)])


def difference(ours, theirs):
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)) if ours.shape == theirs.shape else np.inf


def check(folder, port):
    """Rows: what was checked, the value, the bar, ok."""
    rows, results = [], {}
    for number, case in enumerate(("single", "parallel", "sharded", "killed", "resumed")):
        place = folder / ("killed" if case == "resumed" else case)
        place.mkdir(exist_ok=True)
        code, seconds, output = launch(case, place, port + number)
        print(f"{case}: exit code {code} after {seconds:.0f} s", flush=True)
        if case == "killed":
            message = next((line for line in reversed(output.splitlines()) if "exited" in line), "")
            print(f"  the launcher said: {message}")
            rows.append({"what": "a killed process ends the job, with an exit code", "value": code, "ok": code > 0})
            rows.append({"what": "and with a message", "value": message, "ok": bool(message)})
            continue
        if code != 0:
            print(output[-5000:])
            return [*rows, {"what": f"{case} runs", "value": code, "ok": False}]
        weights = dict(np.load(place / f"{case}.npz"))
        results[case] = losses(place), np.concatenate([weights[name].ravel() for name in sorted(weights)])
    for case in ("parallel", "sharded", "resumed"):
        for what, index in (("losses", 0), ("weights", 1)):
            value = difference(results[case][index], results["single"][index])
            rows.append({"what": f"{what}: {case}, one process", "value": value, "bar": BAR, "ok": value <= BAR})
    same = bool((results["resumed"][1] == results["sharded"][1]).all())
    rows.append({"what": "resumed weights are those of the undisturbed run, to the bit", "value": same, "ok": same})
    whole, part = (int((folder / case / f"{case}0.bytes").read_text()) for case in ("parallel", "sharded"))
    rows.append(
        {"what": "share of the optimizer's bytes on a device when sharded", "value": part / whole, "bar": SHARE}
    )
    rows[-1]["ok"] = part / whole <= SHARE
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the table as JSON")
    parser.add_argument("--port", type=int, default=8218, help="first of five free ports (default: 8218)")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        worker(options.case, options.place)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = check(Path(folder), options.port)
    for row in rows:
        print(f"{row['what']:62}{row['value']!s:24}{'ok' if row['ok'] else 'FAILED'}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    failed = sum(not row["ok"] for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
