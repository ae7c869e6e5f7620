"""`sonic-ms export`: the graphs of a model as MINDIR and ONNX files in a bundle. Nothing is accepted before it was run.

Every exported file is loaded again, run on seeded inputs and compared with its Cell; a bundle appears under its name
only when all of its files passed.
"""

import gc
import shutil
import time
from pathlib import Path

import numpy as np

from sonic_ms.deploy.bundle import Bundle, file_entry, unit_entry, write_manifest
from sonic_ms.deploy.int8 import write_int8
from sonic_ms.errors import EngineError, OutputError, UsageError
from sonic_ms.files.temporary import Temporary
from sonic_ms.runtime.ort import import_onnxruntime, open_session, run_session
from sonic_ms.runtime.unit import relative_error

FORMATS = ("mindir", "onnx")
# Largest relative L2 distance between a file and its Cell. fp16: onnxruntime rounds between other operators.
# int8 is held against the float32 Cell.
TOLERANCE = {"fp32": 1e-5, "fp16": 2e-2, "int8": 8e-2}
INLINE_BYTES = 1_800_000_000  # an ONNX file may not exceed 2 GB: what is larger keeps its weights beside it,
EXTERNAL_BYTES = 1024  # those of at least this size
MIND_IR_VERSION = 3  # what MindSpore 2.7 and 2.8 write


def export(table, out, formats, precision, progress=print):
    """Write a bundle.

    table: runtime.unit.UnitTable. out: folder to make; it must not exist. formats: of FORMATS. precision: "fp32" or
    "fp16", as the table was made, or "int8" of a float32 table, for ONNX alone. Returns the Bundle. Raises OutputError
    when a file cannot be written or does not compute what its Cell computes.
    """
    from sonic_ms.files.weights import save_config
    from sonic_ms.runtime.ms import start

    if precision == "int8" and table.calibrate is None:
        raise UsageError(f"--dtype int8: {table.model} has no int8; take fp32 or fp16")
    if "onnx" in formats:
        import_onnxruntime()  # its absence is found before the work
    ms = start()
    out = Path(out)
    if out.exists():
        raise OutputError(f"{out} exists; choose another name or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Temporary(out.parent, is_folder=True) as part:
            for network, config in table.configs.items():
                (part / "config" / network).mkdir(parents=True)
                save_config(config, part / "config" / network)
            entries = {}
            for name, unit in table.units.items():
                entries[name] = export_unit(ms, unit, table, part, formats, precision, progress)
            manifest = {
                "format": 1,
                "model": table.model,
                "precision": precision,
                "mindspore": ms.__version__,
                "mind_ir_version": MIND_IR_VERSION,
                "weights_sha256": table.weights_sha256,
                "licence": table.licence,
                "gear": dict(table.gear),
                "for_cpu": bool(table.rearrange),
                "units": entries,
            }
            write_manifest(part, manifest)
            part.rename(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from error
    return Bundle.load(out)


def export_unit(ms, unit, table, folder, formats, precision, progress=print):
    """Export one unit into folder/FORMAT/ and compare it with its Cell as it is built, also where the exported one is
    rearranged: its entry of the manifest."""
    started = time.perf_counter()
    operators, shown, halves = table.calibrate(unit) if precision == "int8" else ((), [table.sample(unit)], ())
    inputs = shown[-1]  # int8 is judged where its ranges hold, not on noise
    cell = unit.build()
    tensors = [ms.Tensor(array) for array in inputs.values()]
    expected = as_arrays(cell(*tensors))
    check_outputs(unit, expected, "its Cell")
    if unit.name in table.rearrange:
        del cell
        gc.collect()
        cell = table.rearrange[unit.name](unit.build())
    entry = unit_entry(unit)
    files = {kind: WRITE[kind](ms, cell, tensors, unit, folder) for kind in formats}
    if precision == "int8":
        write_int8(files["onnx"][0], unit, operators, shown, halves)
    del cell, tensors
    gc.collect()  # one copy of large weights in memory at a time: the Cell's, then each file's
    for kind, (path, data) in files.items():
        found = RUN[kind](ms, path, inputs, unit)
        gc.collect()
        check_outputs(unit, found, f"the {kind} file")
        error = max(relative_error(one, other) for one, other in zip(found, expected))
        tolerance = TOLERANCE[precision]
        if not error <= tolerance:
            raise OutputError(
                f"unit {unit.name}: the {kind} file differs from its Cell by {error:.1e} (bar {tolerance:g})"
            )
        entry[kind] = file_entry(folder, path, data) | {"relative_l2": float(f"{error:.2e}")}
        progress(f"{unit.name}: {kind} {_megabytes(folder, entry[kind])}, error {error:.1e}, "
                 f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    return entry


def check_outputs(unit, arrays, where):
    """Raise OutputError when shapes or types are not those of the unit."""
    for tensor, array in zip(unit.outputs, arrays):
        if array.shape != tensor.shape or array.dtype != np.dtype(tensor.dtype):
            raise OutputError(
                f"unit {unit.name}: output {tensor.name} of {where} is {array.dtype} {array.shape}, "
                f"the table of units says {tensor.dtype} {tensor.shape}"
            )


def as_arrays(outputs):
    """Outputs of a Cell as a list of arrays."""
    return [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def write_mindir(ms, cell, tensors, unit, folder):
    """(path of the graph, paths of its data). Above 1 GB MindSpore writes NAME_graph.mindir and a folder of data."""
    target = folder / "mindir" / unit.name
    target.parent.mkdir(exist_ok=True)
    ms.export(cell, *tensors, file_name=str(target), file_format="MINDIR")
    graph = target.with_suffix(".mindir")
    if not graph.is_file():
        graph = target.with_name(f"{unit.name}_graph.mindir")
    return graph, sorted(target.with_name(f"{unit.name}_variables").glob("*"))


def run_mindir(ms, path, inputs, unit):
    """Outputs of a MINDIR file."""
    from sonic_ms.runtime.cells import load_mindir

    graph = load_mindir(ms, path)
    return as_arrays(graph(*[ms.Tensor(array) for array in inputs.values()]))


def write_onnx(ms, cell, tensors, unit, folder):
    """(path of the graph, paths of its data)."""
    try:
        import onnx
    except ImportError as error:
        raise UsageError(f"ONNX export needs onnx ({error}); pip install 'sonic_ms[onnx]'") from error
    from sonic_ms.deploy.onnx_fixes import fix_model

    path = folder / "onnx" / f"{unit.name}.onnx"
    scratch = path.with_suffix(".scratch")  # above 2 GB the exporter writes a file for each weight beside its graph
    scratch.mkdir(parents=True)
    ms.onnx.export(cell, *tensors, file_name=str(scratch / path.name))
    model = onnx.load(scratch / path.name, load_external_data=False)
    fix_model(model, unit)
    data = []
    if sum(_size_of(onnx, weight, scratch) for weight in model.graph.initializer) > INLINE_BYTES:
        data = _pack_weights(onnx, model, scratch, path.with_suffix(".data"))
    else:
        onnx.load_external_data_for_model(model, scratch)
    onnx.save_model(model, path)
    shutil.rmtree(scratch)
    return path, data


def _size_of(onnx, weight, scratch):
    """Bytes of an initializer, in the model or in a file of its own."""
    if weight.data_location != onnx.TensorProto.EXTERNAL:
        return len(weight.raw_data)
    return (scratch / _location(weight)).stat().st_size


def _location(weight):
    return {entry.key: entry.value for entry in weight.external_data}["location"]


def _pack_weights(onnx, model, scratch, target):
    """Move the weights of EXTERNAL_BYTES or more into one file, one at a time: together they may not fit in memory
    beside the model's own copy. Returns the files written."""
    with open(target, "wb") as out:
        for weight in model.graph.initializer:
            external = weight.data_location == onnx.TensorProto.EXTERNAL
            if not external and len(weight.raw_data) < EXTERNAL_BYTES:
                continue  # it may have int64_data instead
            raw = (scratch / _location(weight)).read_bytes() if external else weight.raw_data
            weight.ClearField("external_data")
            if len(raw) < EXTERNAL_BYTES:
                weight.data_location, weight.raw_data = onnx.TensorProto.DEFAULT, raw
                continue
            out.write(b"\0" * (-out.tell() % 4096))  # runtimes map whole pages
            place = {"location": target.name, "offset": out.tell(), "length": len(raw)}
            weight.ClearField("raw_data")
            weight.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.items():
                weight.external_data.add(key=key, value=str(value))
            out.write(raw)
    if target.stat().st_size:
        return [target]
    target.unlink()  # every weight is small
    return []


def run_onnx(ms, path, inputs, unit):
    """Outputs of an ONNX file in onnxruntime, after onnx.checker."""
    import onnx

    onnx.checker.check_model(str(path))
    names = [tensor.name for tensor in unit.outputs]
    try:
        return run_session(open_session(path), names, inputs, f"unit {unit.name}")
    except EngineError as error:
        raise OutputError(f"unit {unit.name}: its file does not run ({error})") from error


WRITE = {"mindir": write_mindir, "onnx": write_onnx}
RUN = {"mindir": run_mindir, "onnx": run_onnx}


def _megabytes(folder, entry):
    size = sum((folder / part["path"]).stat().st_size for part in (entry, *entry.get("data", ())))
    return f"{size / 1e6:.1f} MB"
