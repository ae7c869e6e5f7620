"""MindSpore itself as an engine: Cells in GRAPH_MODE on the CPU or on an Ascend device."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np

from sonic_ms.errors import EngineError
from sonic_ms.runtime.compiled import CompiledGraphs
from sonic_ms.runtime.engine import check_inputs
from sonic_ms.runtime.ms import start
from sonic_ms.runtime.turns import in_turn


class MindSporeEngine:
    """Engine over Cells. units: {name: units.Unit} with `build`; a Cell is built and compiled when first needed.

    about: text that says how the Cells of these names differ from others of the same shapes, for compiled graphs to be
    kept, see compiled.py; None: they are not.
    """

    kind = "Cells"

    @in_turn
    def __init__(self, units, about=None):
        self._units, self._cells, self._compiled = units, {}, set()
        self._ms = start()
        self._kept = None if about is None else CompiledGraphs(self._ms, about)

    @in_turn
    def build(self, name):
        """The Cell of a unit, loaded but not compiled."""
        if name not in self._units:
            raise EngineError(f"no unit {name!r}; there are {', '.join(self._units)}")
        if name not in self._cells:
            self._cells[name] = self._build(name)
        return self._cells[name]

    def _build(self, name):
        return self._units[name].build()

    @in_turn
    def prepare(self, unit):
        cell = self.build(unit)
        zeros = [np.zeros(tensor.shape, tensor.dtype) for tensor in self._units[unit].inputs]
        with self._compiling(unit):
            cell.compile(*[self._ms.Tensor.from_numpy(array) for array in zeros])

    def _compiling(self, unit):
        """Around what may compile a unit."""
        if self._kept is None or unit in self._compiled:
            return contextlib.nullcontext()
        self._compiled.add(unit)
        return self._kept.kept(self._units[unit])

    @in_turn
    def run(self, unit, inputs):
        cell = self.build(unit)
        arrays = check_inputs(self._units[unit], inputs)
        with self._compiling(unit):
            outputs = cell(*[self._ms.Tensor.from_numpy(array) for array in arrays])  # shares the memory
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        names = [tensor.name for tensor in self._units[unit].outputs]
        return {name: output.asnumpy() for name, output in zip(names, outputs)}

    def info(self):
        return {
            "engine": "mindspore",
            "version": self._ms.__version__,
            "device": self._ms.get_context("device_target"),
            "graphs": self.kind,
        }

    @in_turn
    def close(self):
        self._cells, self._compiled = {}, set()


class MindirEngine(MindSporeEngine):
    """Engine over the MINDIR files of a bundle."""

    kind = "MINDIR"

    def __init__(self, bundle):
        super().__init__(bundle.units)
        self._bundle = bundle
        bundle.check_device(self._ms.get_context("device_target"))

    def _build(self, name):
        return load_mindir(self._ms, self._bundle.path(name, "mindir"))

    def prepare(self, unit):
        # A loaded graph that was compiled without being run fails at its first run: run it on zeros.
        inputs = self._units[unit].inputs
        self.run(unit, {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in inputs})


def load_mindir(ms, path):
    """GraphCell of a MINDIR file.

    Above 1 GB MindSpore writes the weights into files of their own, and `ms.load` holds all of them twice: 11.5 GB for
    the UNet of sonic-base in float32. So such a graph is loaded without them, then one weight after the other.
    """
    from mindspore.train.mind_ir_pb2 import ModelProto

    path = Path(path)
    if not path.with_name(f"{path.stem.removesuffix('_graph')}_variables").is_dir():
        return ms.nn.GraphCell(ms.load(str(path)))
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    places = {}
    for parameter in model.graph.parameter:
        data = parameter.external_data
        places[parameter.name.partition(":")[2]] = path.parent / data.location, data.offset
        parameter.ClearField("external_data")
    with tempfile.TemporaryDirectory() as scratch:
        bare = Path(scratch, path.name)
        bare.write_bytes(model.SerializeToString())
        graph = ms.nn.GraphCell(ms.load(str(bare)))
    for parameter in graph.get_parameters():
        file, offset = places[parameter.name]
        values = np.fromfile(file, str(parameter.dtype).lower(), parameter.size, offset=offset)
        parameter.set_data(ms.Tensor.from_numpy(values.reshape(parameter.shape)))
    return graph
