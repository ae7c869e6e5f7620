"""sonic-base's networks by name, whatever engine runs them: the Cells of a folder, or the graphs of a bundle."""

from pathlib import Path

import numpy as np

from sonic_ms.base.units import BUILT_FOR_A_SIZE, CACHE_BRANCHES, CELL_OF, CONFIGS, BaseGear, base_units
from sonic_ms.errors import EngineError, WeightsError
from sonic_ms.files.config import from_dict
from sonic_ms.files.digest import weights_digest
from sonic_ms.files.weights import load_config
from sonic_ms.runtime.turns import in_turn


class Networks:
    """Units of base/units.py on arrays.

    engine: any engine; units: its table. configs: {network: config dataclass}. gear: sizes that the graphs are made
    for, None when any will do. digest(): text that says which weights these are, and in what precision. folder: of the
    weights, None for a bundle.
    """

    def __init__(self, engine, units, configs, digest, gear=None, folder=None):
        self.engine, self.units, self.configs = engine, units, configs
        self.digest, self.gear, self.folder = digest, gear, folder

    def run(self, unit, *arrays):
        """One unit on arrays in the order of its inputs: a float32 array, or a tuple of them."""
        spec = self.units.get(unit)
        if spec is None:
            raise WeightsError(f"sonic-base needs the unit {unit}, which this bundle lacks; export the bundle again")
        inputs = {one.name: np.ascontiguousarray(array, one.dtype) for one, array in zip(spec.inputs, arrays)}
        outputs = self.engine.run(unit, inputs)
        parts = tuple(outputs[one.name].astype(np.float32, copy=False) for one in spec.outputs)
        return parts if len(parts) > 1 else parts[0]

    def done(self, network):
        """This video no longer needs a network: the engine may give back its memory."""
        if isinstance(self.engine, CellEngine):
            self.engine.release(network)


class CellEngine:
    """Engine over the converted networks of a folder, each loaded when it is first called.

    Cells are compiled for the first shapes they see and again for others, so that pictures of any size will do.
    precision: "fp32", or "fp16" for weights and activations of half the size. keep: hold on to networks that a video no
    longer needs, for the next video; without it the UNet's memory is free again before the frames are decoded. trained:
    {network: Cell} that is used as it is in memory.
    """

    @in_turn
    def __init__(self, folder, precision="fp32", keep=True, trained=None):
        from sonic_ms.runtime.ms import start

        self._ms = start()
        self.folder, self.precision, self.keep, self.trained = Path(folder), precision, keep, trained or {}
        missing = [name for name in CONFIGS if not (self.folder / name).is_dir()]
        if missing:
            raise WeightsError(f"{folder} lacks {', '.join(missing)}; convert it with sonic-ms convert")
        self.configs = {name: load_config(kind, self.folder / name) for name, kind in CONFIGS.items()}
        # Only names and types of this table are used, its shapes are those of one gear.
        gear = BaseGear(512, 512, cache_branches=CACHE_BRANCHES)
        self.units = base_units(self.configs, gear, None, precision)
        self._cells, self._parts = {}, {}

    def cell(self, network, *size):
        """A loaded Cell; `size` is (height, width) where the network is built for one."""
        from sonic_ms.base import cells

        if network in self.trained:
            return self.trained[network]
        key = (network, *size)
        if key not in self._cells:
            self._cells[key] = cells.load(self.folder, self.configs[network], *key, precision=self.precision)
        return self._cells[key]

    def _part(self, cell, network, part):
        """A part of a Cell, always the same object: it holds the graphs that were compiled."""
        from sonic_ms.base.cells import part_of

        if part is None:
            return cell
        if (network, part) not in self._parts:
            self._parts[network, part] = part_of(cell, part)
        return self._parts[network, part]

    def prepare(self, unit):
        """Nothing: which shapes a Cell will be compiled for is known when it runs."""

    @in_turn
    def run(self, unit, inputs):
        if unit not in self.units:
            raise EngineError(f"no unit {unit!r}; there are {', '.join(self.units)}")
        network, part = CELL_OF[unit]
        arrays = [inputs[one.name] for one in self.units[unit].inputs]
        cell = self.cell(network, *(arrays[0].shape[2:] if network in BUILT_FOR_A_SIZE else ()))
        cell = self._part(cell, network, part)
        half = next(iter(cell.get_parameters())).dtype == self._ms.float16  # a trained one may be, in another precision
        dtype = np.float16 if half else np.float32
        out = cell(*[self._ms.Tensor(np.ascontiguousarray(array, dtype)) for array in arrays])
        parts = out if isinstance(out, tuple) else (out,)
        return {one.name: value.asnumpy() for one, value in zip(self.units[unit].outputs, parts)}

    @in_turn
    def release(self, network):
        """Give back the memory of a network, unless networks are kept."""
        if not self.keep:
            self._cells = {key: cell for key, cell in self._cells.items() if key[0] != network}
            self._parts = {key: part for key, part in self._parts.items() if key[0] != network}

    def info(self):
        return {
            "engine": "mindspore",
            "version": self._ms.__version__,
            "device": self._ms.get_context("device_target"),
            "graphs": "Cells",
        }

    @in_turn
    def close(self):
        self._cells, self._parts = {}, {}


def open_folder(folder, precision="fp32", keep=True, trained=None):
    """Networks of a converted folder. Raises WeightsError for what is missing, EngineError without MindSpore."""
    engine = CellEngine(folder, precision, keep, trained)

    def digest():  # reads every weight file, which only an interrupted video needs
        return f"{weights_digest(folder, CONFIGS)} {precision}"

    return Networks(engine, engine.units, engine.configs, digest, folder=Path(folder))


def open_bundle(bundle, engine):
    """Networks of a bundle, on an open engine."""
    gear = from_dict(BaseGear, bundle.manifest["gear"], f"{bundle.folder}: gear", WeightsError)
    configs = {name: bundle.config(kind, name) for name, kind in CONFIGS.items()}
    manifest = bundle.manifest
    return Networks(
        engine, bundle.units, configs, lambda: f"{manifest['weights_sha256']} {manifest['precision']}", gear
    )
