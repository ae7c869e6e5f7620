#!/usr/bin/env python
"""Export sonic-base at the published size with random weights, as MINDIR and ONNX, run both, and report what it took.

    python tools/export_full_size.py OUT [--dtype fp16] [--side 256] [--frames 4] [--units unet,clip] [--json REPORT]

Each unit has a process of its own, so that its peak memory is its own, and every file is run and compared with its Cell
before it counts. Files are removed after the comparison unless --keep is given.
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout without installing


def export_one(name, folder, side, frames, precision):
    """Export and compare one unit: dict of its figures."""
    from sonic_ms.base_check import PUBLISHED, peak_gigabytes, units
    from sonic_ms.export import FORMATS, TOLERANCE, export_unit
    from sonic_ms.runtime.mindspore import start

    started = time.perf_counter()
    unit = units(PUBLISHED, side, frames, precision)[name]
    entry = export_unit(start(), unit, folder, FORMATS, TOLERANCE[precision])
    row = {"unit": name, "seconds": round(time.perf_counter() - started), "peak_gb": round(peak_gigabytes(), 2)}
    for kind in FORMATS:
        files = [entry[kind], *entry[kind].get("data", ())]
        row[f"{kind}_gb"] = round(sum((folder / one["path"]).stat().st_size for one in files) / 1e9, 3)
        row[f"{kind}_files"], row[f"{kind}_error"] = len(files), entry[kind]["relative_l2"]
    return row


def main():
    from sonic_ms.base_check import UNITS

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the files")
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp16", help="default: fp16")
    parser.add_argument("--side", type=int, default=256, help="of the picture in pixels (default: 256)")
    parser.add_argument("--frames", type=int, default=4, help="of a window (default: 4)")
    parser.add_argument("--units", help="only these, separated by commas")
    parser.add_argument("--keep", action="store_true", help="keep the files")
    parser.add_argument("--json", type=Path, help="write the report to this file")
    options = parser.parse_args()
    rows = []
    for name in options.units.split(",") if options.units else UNITS:
        options.out.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            job = (name, options.out, options.side, options.frames, options.dtype)
            rows.append(pool.submit(export_one, *job).result())
        print(json.dumps(rows[-1]), flush=True)
        if not options.keep:
            shutil.rmtree(options.out)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
