#!/usr/bin/env python
"""Export sonic-base at the published size with random weights, as MINDIR and ONNX, run both, and report what it took.

    python tools/export_full_size.py OUT [--dtype fp16] [--side 256] [--frames 4] [--units unet,clip] [--json REPORT]

Every stage has a process of its own, so that its peak memory is its own and no two copies of the weights meet: the
Cell, and for each format writing and running. A file counts only after it was run and compared with the Cell. With
--reference fp32 the Cell runs in float32 on weights and inputs as float16 rounds them, which also says what float16
costs in accuracy.
Files are removed after the comparison unless --keep is given.
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout without installing


def open_unit(options, precision):
    from sonic_ms.base_check import PUBLISHED, units

    return units(PUBLISHED, options.side, options.frames, precision, rounded=options.dtype == "fp16")[options.unit]


def feed(options):
    """Inputs of the exported unit: {name: array}."""
    from sonic_ms.samples import sample_inputs

    return sample_inputs(open_unit(options, options.dtype))


def run_the_cell(options):
    """Run the Cell and keep its outputs."""
    from sonic_ms.export import as_arrays
    from sonic_ms.runtime.mindspore import start

    ms = start()
    unit = open_unit(options, options.reference)
    dtypes = {tensor.name: tensor.dtype for tensor in unit.inputs}
    tensors = [ms.Tensor(array.astype(dtypes[name])) for name, array in feed(options).items()]
    np.savez(options.out / "expected.npz", *as_arrays(unit.build()(*tensors)))
    return {}


def write(options, kind):
    """Export the Cell without running it."""
    from sonic_ms.export import WRITE
    from sonic_ms.runtime.mindspore import start

    ms = start()
    unit = open_unit(options, options.dtype)
    tensors = [ms.Tensor(array) for array in feed(options).values()]
    path, data = WRITE[kind](ms, unit.build(), tensors, unit, options.out)
    files = [path, *data]
    return {"path": str(path), "files": len(files), "gb": round(sum(one.stat().st_size for one in files) / 1e9, 3)}


def run(options, kind, path):
    """Run an exported file and compare it with what the Cell gave."""
    from sonic_ms.export import RUN, TOLERANCE, check_outputs, relative_error

    ms = None
    if kind == "mindir":
        from sonic_ms.runtime.mindspore import start

        ms = start()
    unit = open_unit(options, options.dtype)
    found = RUN[kind](ms, path, feed(options), unit)
    check_outputs(unit, found, f"the {kind} file")
    with np.load(options.out / "expected.npz") as expected:
        error = max(relative_error(one, expected[name]) for one, name in zip(found, expected.files, strict=True))
    return {"error": float(f"{error:.2e}"), "passed": bool(error <= TOLERANCE[options.dtype])}


def measured(stage, *arguments):
    """Figures of a stage in this process, with its time and its peak memory."""
    from sonic_ms.base_check import peak_gigabytes

    started = time.perf_counter()
    figures = stage(*arguments)
    return figures | {"seconds": round(time.perf_counter() - started), "peak_gb": round(peak_gigabytes(), 2)}


def alone(stage, *arguments):
    """The same in a process of its own; {"error": ...} when the system stops it, as it does when memory ends."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measured, stage, *arguments).result()
        except BrokenProcessPool:
            return {"error": "stopped by the system, most likely for want of memory", "passed": False}


def main():
    from sonic_ms.base_check import UNITS
    from sonic_ms.export import FORMATS

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the files")
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp16", help="default: fp16")
    parser.add_argument("--reference", choices=("fp32", "fp16"), help="how the Cell runs (default: as --dtype)")
    parser.add_argument("--side", type=int, default=256, help="of the picture in pixels (default: 256)")
    parser.add_argument("--frames", type=int, default=4, help="of a window (default: 4)")
    parser.add_argument("--units", help="only these, separated by commas")
    parser.add_argument("--keep", action="store_true", help="keep the files")
    parser.add_argument("--json", type=Path, help="write the report to this file")
    options = parser.parse_args()
    options.reference = options.reference or options.dtype
    rows = []

    def report(stage, figures):
        rows.append({"unit": options.unit, "stage": stage} | figures)
        print(json.dumps(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
        return figures

    names = options.units.split(",") if options.units else UNITS
    for options.unit in names:
        options.out.mkdir(parents=True, exist_ok=True)
        report(f"Cell in {options.reference}", alone(run_the_cell, options))
        for kind in FORMATS:
            written = report(f"write {kind}", alone(write, options, kind))
            if "path" in written:
                report(f"run {kind}", alone(run, options, kind, written["path"]))
        if not options.keep:
            shutil.rmtree(options.out)
    return 0 if all(row.get("passed", True) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
