"""MindSpore Lite as an engine, in a worker process.

On a CPU it runs the bundle's ONNX, which Lite's own converter turns into MINDIR once; the result is kept in the cache
folder. On Ascend it loads what converter_lite made for the chip, or our MINDIR, which needs Lite 2.7 or newer. Lite 2.0
on x86 is what the tests run; Ascend was only exercised against a double, never on hardware.

Environment:
    SONIC_MS_LITE_PYTHON   interpreter that has mindspore_lite; default: this one if it has, else that of the virtual
                           environment "lite" in the cache folder, ~/.cache/sonic_ms/lite
    SONIC_MS_LITE_TARGET   cpu (default) or ascend
    SONIC_MS_LITE_TIMEOUT  seconds one run may take, default 600
    SONIC_MS_DEVICE_ID     number of the Ascend device, default 0
"""

import hashlib
import importlib.util
import json
import os
import sys
import warnings

from sonic_ms.errors import EngineError, OutputError
from sonic_ms.files.assets import cache_dir
from sonic_ms.files.temporary import Temporary
from sonic_ms.runtime.engine import check_inputs, device_id
from sonic_ms.runtime.lite_process import INSTALL, Worker
from sonic_ms.runtime.mindir import read_mindir
from sonic_ms.runtime.turns import in_turn

TARGETS = ("cpu", "ascend")
LOAD_TIMEOUT = 3600  # seconds; Lite compiles for Ascend when it loads our MINDIR
RUN_TIMEOUT = 600
FIRST_ON_ASCEND = (2, 7)  # release that reads the MINDIR of MindSpore 2.7 to 2.10
NEWEST_MINDIR = 3  # mind_ir_version that release reads; Lite 2.0 reads 1


class LiteEngine:
    """Engine over a bundle. The worker starts at once; after a crash or time-out the next run starts a new one."""

    @in_turn
    def __init__(self, bundle):
        self._bundle, self._units = bundle, {}
        self._target = os.environ.get("SONIC_MS_LITE_TARGET", "cpu")
        if self._target not in TARGETS:
            raise EngineError(f"SONIC_MS_LITE_TARGET is {self._target!r}; expected one of {', '.join(TARGETS)}")
        bundle.check_device("CPU" if self._target == "cpu" else "Ascend")
        self._timeout = _run_timeout()
        self._python = find_python()
        self._worker = self._start()

    def _start(self):
        return Worker(self._python, _environment(self._target))

    @in_turn
    def prepare(self, unit):
        self._arrays(unit)

    def _arrays(self, name):
        """{name: array} shared with the worker for a unit; loads the unit when it is not."""
        if not self._worker.alive:
            self._units, self._worker = {}, self._start()
        if name not in self._units:
            graph, unit = self._graph(name), self._bundle.units[name]
            size, rows, arrays = self._worker.share((*unit.inputs, *unit.outputs))
            self._worker.call(
                f"load {name} from {graph}",
                LOAD_TIMEOUT,
                do="load",
                unit=name,
                graph=str(graph),
                target=self._target,
                device_id=device_id(),
                precision=self._precision(),
                threads=len(os.sched_getaffinity(0)),
                size=size,
                inputs=rows[: len(unit.inputs)],
                outputs=rows[len(unit.inputs) :],
            )
            self._units[name] = arrays
        return self._units[name]

    def _precision(self):
        if self._target == "cpu":
            return "enforce_fp32"
        return "enforce_origin" if self._bundle.precision == "fp16" else "preferred_fp32"

    def _graph(self, name):
        """Path of the graph that Lite loads."""
        if self._target == "cpu":
            return self._converted(name)
        numbers = tuple(int(part) for part in self._worker.version.split(".")[:2])
        if numbers < FIRST_ON_ASCEND:
            raise EngineError(
                f"MindSpore Lite {self._worker.version} cannot read MINDIR of MindSpore 2.7 and newer; install Lite "
                "2.7 or newer from the MindSpore site"
            )
        if self._bundle.has(name, "lite"):
            return self._bundle.path(name, "lite")
        path = self._bundle.path(name, "mindir")
        version = read_mindir(path).version
        if version > NEWEST_MINDIR:
            raise EngineError(f"{path} has mind_ir_version {version}, known are 1 to {NEWEST_MINDIR}; export it again")
        exporter = self._bundle.manifest.get("mindspore", "0.0")
        if tuple(int(part) for part in exporter.split(".")[:2]) > numbers:
            # documented rule, but the format has been the same since 2.7
            warnings.warn(f"{path} comes from MindSpore {exporter}, Lite is {self._worker.version}", stacklevel=2)
        return path

    def _converted(self, name):
        """Path of Lite's own MINDIR of a unit's ONNX, converted on first use and then cached."""
        source = self._bundle.path(name, "onnx")
        entry = self._bundle.manifest["units"][name]["onnx"]
        parts = [self._worker.version, entry["sha256"], *(part["sha256"] for part in entry.get("data", ()))]
        graphs = cache_dir() / "lite-graphs"
        folder = graphs / hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        if not folder.is_dir():
            try:
                graphs.mkdir(parents=True, exist_ok=True)
                with Temporary(graphs, is_folder=True) as temporary:
                    self._convert(source, temporary / "graph")
                    (temporary / "graph").rename(folder)
            except OSError as error:
                if folder.is_dir():  # another process was faster
                    return next(folder.glob("*.mindir"))
                raise OutputError(f"cannot keep a converted graph in {graphs} ({error.strerror})") from error
        return next(folder.glob("*.mindir"))

    def _convert(self, source, folder):
        """Convert an ONNX file into a folder: one .mindir, beside it the weights of a graph above 1 GB."""
        folder.mkdir()
        converter = self._start()  # of its own: Lite 2.0 crashes at the end of a process that did both
        try:
            request = {"do": "convert", "source": str(source), "result": str(folder / "graph")}
            converter.call(f"convert {source}", LOAD_TIMEOUT, **request)
        finally:
            converter.close()
        if not any(folder.glob("*.mindir")):
            raise EngineError(f"MindSpore Lite wrote no graph from {source}, and did not say why")

    @in_turn
    def run(self, unit, inputs):
        arrays = self._arrays(unit)
        spec = self._bundle.units[unit]
        for tensor, array in zip(spec.inputs, check_inputs(spec, inputs)):
            arrays[tensor.name][:] = array
        self._worker.call(f"run {unit}", self._timeout, do="run", unit=unit)
        return {tensor.name: arrays[tensor.name].copy() for tensor in spec.outputs}

    def info(self):
        return {
            "engine": "lite",
            "version": self._worker.version,
            "device": "CPU" if self._target == "cpu" else f"Ascend {device_id()}",
            "graphs": "MINDIR converted from ONNX" if self._target == "cpu" else "MINDIR",
        }

    @in_turn
    def close(self):
        self._units = {}
        self._worker.close()


def find_python():
    """Path of the interpreter that has mindspore_lite. Raises EngineError when there is none to try."""
    named = os.environ.get("SONIC_MS_LITE_PYTHON")
    if named:
        return named
    if importlib.util.find_spec("mindspore_lite"):
        return sys.executable
    place = cache_dir() / "lite" / "bin" / "python"
    if place.is_file():
        return str(place)
    raise EngineError(
        f"no Python with MindSpore Lite: SONIC_MS_LITE_PYTHON is not set and {place} is missing; {INSTALL}"
    )


def _run_timeout():
    value = os.environ.get("SONIC_MS_LITE_TIMEOUT", str(RUN_TIMEOUT))
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0
    if not seconds > 0:
        raise EngineError(f"SONIC_MS_LITE_TIMEOUT is {value!r}; expected seconds, more than 0")
    return seconds


def _environment(target):
    """Variables of the worker: CANN needs its PYTHONPATH, another Python is confused by ours."""
    dropped = () if target == "ascend" else ("PYTHONPATH", "PYTHONHOME")
    variables = {name: value for name, value in os.environ.items() if name not in dropped}
    return {"GLOG_v": "3", **variables}  # errors only
