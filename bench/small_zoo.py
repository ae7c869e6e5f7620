"""The comparisons of docs/small.md as a list of recipes, run one after the other; finished runs are left out, broken
ones go on from their last checkpoint.

    python -m bench.small_zoo [--only A,D] [--out runs/small] [--seeds 3] [--steps 800] [--faces 1000] [--list]

A: sparse methods at a fifth of the weights. C: does a lucky mask matter. D: fewer channels. F: 8 and 4 bits.
Then: sonic-ms small report runs/small
"""

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

from sonic_ms.runtime.ms import start

CUT, CUT_RANDOM = "-cut", "-cut-random"  # ends of the names of folders that are cut from a dense run
WIDE, NARROW = (24, 48, 64), (16, 32, 48)  # channels of the painter before 2026-11-28, and of the shipped one


def arms(kinds, steps, faces, drawings, dense):
    """Yield (name of an arm, its SmallPainterConfig). dense: folder of the seed's run of the arm "dense"."""
    from sonic_ms.small.painter import SmallPainterConfig
    from sonic_ms.small.settings import SparsityConfig
    from sonic_ms.train.loop.trainer import LoopConfig

    loop = LoopConfig(steps, 8, 0.002, warmup=max(1, steps // 20), bias_correction=False, log_every=20,
                      save_every=max(1, steps // 8), validate_every=max(1, steps // 4))  # fmt: skip
    slow = dataclasses.replace(loop, steps=max(1, steps * 3 // 8), learning_rate=0.0005)  # from trained weights
    every = max(1, steps // 16)

    def one(arm, sparsity=None, use=loop, **more):
        return arm, SmallPainterConfig(use, arm, sparsity or SparsityConfig(), str(drawings), faces, **more)

    if "A" in kinds or "D" in kinds:
        yield one("dense", widths=WIDE)
    if "A" in kinds:
        yield one("dense small", widths=(10, 21, 29))
        for method in ("static", "set", "rigl", "gmp"):
            yield one(method, SparsityConfig(0.2, method, every=every))
        yield one("granet", SparsityConfig(0.2, "granet", every=every, first_density=0.5))
        yield one("srigl", SparsityConfig(0.2, "srigl", "uniform", "fan_in", every=every))
    if "D" in kinds:
        half = dataclasses.replace(loop, steps=max(1, steps // 2))
        yield one("pruned, taught", use=half, begin=f"{dense}{CUT}", teacher=str(dense))
        yield one("random channels, taught", use=half, begin=f"{dense}{CUT_RANDOM}", teacher=str(dense))
        yield one("scratch E", widths=NARROW)
        yield one("scratch B", use=dataclasses.replace(loop, steps=int(steps * 2.04)), widths=NARROW)
    if "F" in kinds:
        for bits in ("int8", "int4", "nf4"):
            yield one(f"{bits} trained", use=slow, begin="shipped", bits=bits)
            half = SparsityConfig(0.5, start="magnitude")
            yield one(f"{bits} trained, half", half, slow, begin="shipped", bits=bits)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="A,D,F")
    parser.add_argument("--out", default="runs/small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--faces", type=int, default=1000)
    parser.add_argument("--drawings", default="runs/drawings")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    args = parser.parse_args()
    start()
    from sonic_ms.small.folders import prune_folder
    from sonic_ms.small.painter import as_yaml
    from sonic_ms.small.record import FILE

    out = Path(args.out)
    for seed in range(args.seeds):
        dense = out / f"dense-{seed}"
        for arm, config in arms(args.only.split(","), args.steps, args.faces, args.drawings, dense):
            folder = out / f"{arm.replace(',', '').replace(' ', '-')}-{seed}"
            if (folder / FILE).is_file() or args.list:
                print(folder, "finished" if (folder / FILE).is_file() else "to do")
                continue
            if config.begin and config.begin != "shipped" and not Path(config.begin).exists():
                prune_folder(dense, config.begin, NARROW, seed if config.begin.endswith(CUT_RANDOM) else None)
            sparsity = dataclasses.replace(config.sparsity, seed=seed)
            config = dataclasses.replace(config, sparsity=sparsity, loop=dataclasses.replace(config.loop, seed=seed))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "recipe.yaml").write_text(as_yaml(config))
            resume = ["--resume"] if any((folder / "checkpoints").glob("*")) else []
            command = [sys.executable, "-m", "sonic_ms", "train", str(folder / "recipe.yaml"), "--out", str(folder)]
            subprocess.run([*command, *resume], check=True)


if __name__ == "__main__":
    main()
