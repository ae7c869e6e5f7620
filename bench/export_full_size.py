#!/usr/bin/env python
"""Export sonic-base at the published size with random weights, as MINDIR and ONNX, run both, and report what it took.

    python -m bench.export_full_size OUT [--dtype fp16] [--side 256] [--frames 4] [--units unet,clip] [--json REPORT]

Every stage has a process of its own, so that its peak memory is its own and no two copies of the weights meet: the
Cell, and for each format writing and running. A file counts only after it was run and compared with the Cell. With
--reference fp32 the Cell runs in float32 on weights and inputs as float16 rounds them, which also says what float16
costs in accuracy. --lite also runs the ONNX file in MindSpore Lite; --audit looks for the layers that cannot be
float16. Files are removed after the comparison unless --keep is given.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def open_unit(options, precision):
    from sonic_ms.base.check import PUBLISHED, units

    return units(PUBLISHED, options.side, options.frames, precision, rounded=options.dtype == "fp16")[options.unit]


def feed(options):
    """Inputs of the exported unit: {name: array}."""
    from sonic_ms.base.graphs import sample_inputs

    return sample_inputs(open_unit(options, options.dtype))


def run_the_cell(options):
    """Run the Cell and keep its outputs."""
    from sonic_ms.deploy.export import as_arrays
    from sonic_ms.runtime.ms import start

    ms = start()
    unit = open_unit(options, options.reference)
    dtypes = {tensor.name: tensor.dtype for tensor in unit.inputs}
    tensors = [ms.Tensor(array.astype(dtypes[name])) for name, array in feed(options).items()]
    np.savez(options.out / "expected.npz", *as_arrays(unit.build()(*tensors)))
    return {}


def write(options, kind):
    """Export the Cell without running it."""
    from sonic_ms.deploy.export import WRITE
    from sonic_ms.runtime.ms import start

    ms = start()
    unit = open_unit(options, options.dtype)
    tensors = [ms.Tensor(array) for array in feed(options).values()]
    path, data = WRITE[kind](ms, unit.build(), tensors, unit, options.out)
    files = [path, *data]
    return {"path": str(path), "files": len(files), "gb": round(sum(one.stat().st_size for one in files) / 1e9, 3)}


def run(options, kind, path):
    """Run an exported file and compare it with what the Cell gave."""
    from sonic_ms.deploy.export import RUN, TOLERANCE, check_outputs

    ms = None
    if kind == "mindir":
        from sonic_ms.runtime.ms import start

        ms = start()
    unit = open_unit(options, options.dtype)
    found = RUN[kind](ms, path, feed(options), unit)
    check_outputs(unit, found, f"the {kind} file")
    return compared(options, found, TOLERANCE[options.dtype])


def compared(options, found, bar):
    """Relative L2 distance of outputs from what the Cell gave."""
    from sonic_ms.runtime.unit import relative_error

    with np.load(options.out / "expected.npz") as expected:
        error = max(relative_error(one, expected[name]) for one, name in zip(found, expected.files, strict=True))
    return {"error": float(f"{error:.2e}"), "passed": bool(error <= bar)}


def run_lite(options, path):
    """Convert the ONNX file for MindSpore Lite, run it there and compare it. lite_gb: peak of Lite's processes."""
    from sonic_ms.deploy.bundle import Bundle, file_entry, unit_entry, write_manifest
    from sonic_ms.deploy.verify import BARS
    from sonic_ms.errors import EngineError
    from sonic_ms.runtime.lite import LiteEngine, find_python

    os.environ.setdefault("SONIC_MS_LITE_PYTHON", find_python())
    os.environ["SONIC_MS_CACHE"] = str(options.out.resolve())  # goes with the other files
    unit = open_unit(options, options.dtype)
    entry = unit_entry(unit) | {"onnx": file_entry(options.out, path, sorted(Path(path).parent.glob("*.data")))}
    manifest = {"format": 1, "model": "sonic-base", "precision": options.dtype, "weights_sha256": "", "licence": ""}
    write_manifest(options.out, manifest | {"gear": {}, "units": {unit.name: entry}})
    engine = LiteEngine(Bundle.load(options.out))
    started = time.perf_counter()
    try:
        engine.prepare(unit.name)
        ready = time.perf_counter()
        outputs = engine.run(unit.name, feed(options))
        run_s = time.perf_counter() - ready
    except EngineError as error:
        return {"error": str(error), "passed": False} | lite_memory(engine)
    figures = {"convert_and_load_s": round(ready - started), "run_s": round(run_s, 2)}
    bar = BARS[options.dtype]["lite"]
    return compared(options, list(outputs.values()), bar) | figures | lite_memory(engine)


def lite_memory(engine):
    engine.close()
    return {"lite_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, 2)}


def audit(options, path):
    """Which layers cannot be float16."""
    from sonic_ms.ascend.audit import audit_graph

    found = audit_graph(path, feed(options), options.unit, "made up")
    return {
        "layers": len(found.layers),
        "kept": len(found.kept),
        "largest": max(layer.largest for layer in found.layers),
        "error": max(found.output_error.values()),
        "error_all_fp16": max(found.all_fp16_error.values()),
        "passed": found.good,
    }


def measured(stage, *arguments):
    """Figures of a stage in this process, with its time and its peak memory."""
    from sonic_ms.base.check import peak_gigabytes

    started = time.perf_counter()
    figures = stage(*arguments)
    return figures | {"seconds": round(time.perf_counter() - started), "peak_gb": round(peak_gigabytes(), 2)}


def alone(stage, *arguments):
    """The same in a process of its own; {"error": ...} when it fails, or the system stops it as when memory ends."""
    from sonic_ms.errors import SonicError

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measured, stage, *arguments).result()
        except SonicError as error:
            return {"error": str(error), "passed": False}
        except BrokenProcessPool:
            return {"error": "stopped by the system, most likely for want of memory", "passed": False}


def main():
    from sonic_ms.base.check import UNITS
    from sonic_ms.deploy.export import FORMATS

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the files")
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp16", help="default: fp16")
    parser.add_argument("--reference", choices=("fp32", "fp16"), help="how the Cell runs (default: as --dtype)")
    parser.add_argument("--side", type=int, default=256, help="of the picture in pixels (default: 256)")
    parser.add_argument("--frames", type=int, default=4, help="of a window (default: 4)")
    parser.add_argument("--units", help="only these, separated by commas")
    parser.add_argument("--format", default=",".join(FORMATS), help="of the files (default: both)")
    parser.add_argument("--lite", action="store_true", help="also run the ONNX file in MindSpore Lite")
    parser.add_argument("--audit", action="store_true", help="also audit the ONNX file; with --dtype fp32")
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
        for kind in options.format.split(","):
            written = report(f"write {kind}", alone(write, options, kind))
            if "path" in written:
                report(f"run {kind}", alone(run, options, kind, written["path"]))
            if "path" in written and kind == "onnx" and options.lite:
                report("run lite", alone(run_lite, options, written["path"]))
            if "path" in written and kind == "onnx" and options.audit:
                report("audit", alone(audit, options, written["path"]))
        if not options.keep:
            shutil.rmtree(options.out)
    return 0 if all(row.get("passed", True) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
