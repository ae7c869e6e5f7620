"""Where sonic-base's networks come from: the weights of a folder as Cells, or the graphs of a bundle on an engine.

Both have the same face: `config(network)`, `run(unit, *arrays)` with the units of units.py, `gear` (None when any size
will do), `digest()` and `done(network)`.
"""

from pathlib import Path

import numpy as np

from sonic_ms.base.units import CONFIGS
from sonic_ms.errors import WeightsError
from sonic_ms.files.digest import weights_digest

PARTS = {  # unit -> (network, part of its Cell); the others are a network each
    "unet": ("unet", "denoiser"),
    "unet_context": ("unet", "context"),
    "vae_encoder": ("vae", "encoder"),
    "vae_decoder": ("vae", "decoder"),
}


class CellNetworks:
    """The converted networks of a folder, each loaded when it is first called; arrays in, float32 arrays out.

    Cells are compiled for the first shapes they see and again for others. precision: "fp32", or "fp16" for weights and
    activations of half the size. keep: hold on to networks that a video no longer needs, for the next video; without
    it the UNet's memory is free again before the frames are decoded.
    """

    gear = None

    def __init__(self, folder, precision="fp32", keep=True):
        from sonic_ms.runtime.ms import start

        self._ms = start()
        self.folder, self.precision, self.keep = Path(folder), precision, keep
        missing = [name for name in CONFIGS if not (self.folder / name).is_dir()]
        if missing:
            raise WeightsError(f"{folder} lacks {', '.join(missing)}; convert it with tools/pt2ms_weights.py")
        self._cells, self._configs = {}, {}

    def config(self, network):
        """Config dataclass of a network."""
        from sonic_ms.files.weights import load_config

        if network not in self._configs:
            self._configs[network] = load_config(CONFIGS[network], self.folder / network)
        return self._configs[network]

    def cell(self, network, *size):
        """A loaded Cell; `size` is (height, width) where the network is built for one."""
        from sonic_ms.base.cells import CELLS
        from sonic_ms.files.weights import load_weights, set_precision

        key = (network, *size)
        if key not in self._cells:
            cell = set_precision(CELLS[network](self.config(network), *size).set_train(False), self.precision)
            self._cells[key] = load_weights(cell, self.folder / network)
        return self._cells[key]

    def run(self, unit, *arrays):
        """One unit on arrays: a float32 array, or a tuple of them."""
        network, part = PARTS.get(unit, (unit, None))
        cell = self.cell(network, *(arrays[0].shape[2:] if network == "rife" else ()))
        return run(getattr(cell, part) if part else cell, *arrays)

    def digest(self):
        """Text that says which weights these are, and in what precision."""
        return f"{weights_digest(self.folder, CONFIGS)} {self.precision}"

    def done(self, network):
        """Give back the memory of a network that this video no longer needs, unless networks are kept."""
        if not self.keep:
            self._cells = {key: cell for key, cell in self._cells.items() if key[0] != network}


def run(cell, *arrays):
    """A Cell on arrays, which take the precision of its parameters; a float32 array or a tuple of them."""
    import mindspore as ms

    dtype = np.float16 if next(iter(cell.get_parameters())).dtype == ms.float16 else np.float32
    out = cell(*[ms.Tensor(np.ascontiguousarray(array, dtype)) for array in arrays])
    parts = tuple(part.asnumpy().astype(np.float32, copy=False) for part in (out if isinstance(out, tuple) else (out,)))
    return parts if isinstance(out, tuple) else parts[0]


class BundleNetworks:
    """The graphs of a bundle on an engine; see CellNetworks. Their shapes are fixed: `gear` says for what picture."""

    def __init__(self, bundle, engine):
        from sonic_ms.base.units import BaseGear

        self._bundle, self._engine = bundle, engine
        fields = bundle.manifest["gear"]
        self.gear = BaseGear(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})

    def config(self, network):
        return self._bundle.config(CONFIGS[network], network)

    def run(self, unit, *arrays):
        spec = self._bundle.units[unit]
        inputs = {one.name: np.ascontiguousarray(array, one.dtype) for one, array in zip(spec.inputs, arrays)}
        outputs = self._engine.run(unit, inputs)
        parts = tuple(outputs[one.name].astype(np.float32, copy=False) for one in spec.outputs)
        return parts if len(parts) > 1 else parts[0]

    def digest(self):
        return f"{self._bundle.manifest['weights_sha256']} {self._bundle.manifest['precision']}"

    def done(self, network):
        pass  # an engine keeps its graphs until it is closed
