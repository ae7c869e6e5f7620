"""A bundle: a folder with exported graphs, their manifest, and the configs a pipeline needs to run them.

    manifest.json  {"format": 1, "model", "precision", "mindspore", "mind_ir_version", "weights_sha256", "licence",
                    "gear", "for_cpu", "units": {NAME: {
                    "inputs": [{"name", "shape", "dtype"}], "outputs": [...],
                    "onnx" | "mindir" | "om" | "lite": {"path", "sha256", "data": [{"path", "sha256"}]}}}}
    config/        config.json of each network
    onnx/, mindir/ the graphs

Reading one needs NumPy and the standard library only.
"""

import json
from dataclasses import asdict
from pathlib import Path

from sonic_ms.errors import EngineError, InputMissingError, WeightsError
from sonic_ms.files.digest import sha256_of
from sonic_ms.files.temporary import Temporary
from sonic_ms.runtime.unit import Tensor, Unit

MANIFEST = "manifest.json"
FORMAT = 1
KINDS = ("onnx", "mindir", "om", "lite")
DTYPES = ("float32", "float16", "int32")
REQUIRED = ("format", "model", "precision", "weights_sha256", "licence", "gear", "units")


class Bundle:
    """A bundle that has been read. Use `Bundle.load`.

    folder: Path; manifest: dict; units: {name: Unit} as exported, without a way to build Cells.
    """

    def __init__(self, folder, manifest):
        self.folder, self.manifest = Path(folder), manifest
        self.units = {
            name: Unit(name, _tensors(entry["inputs"]), _tensors(entry["outputs"]), None)
            for name, entry in manifest["units"].items()
        }
        self._checked = {}

    @classmethod
    def load(cls, folder):
        """Read and check the manifest. Raises InputMissingError, WeightsError that names what is wrong."""
        path = Path(folder) / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputMissingError(f"{folder} is not a bundle: cannot open {path} ({error.strerror})") from error
        except ValueError as error:
            raise WeightsError(f"{path} is not JSON ({error}); export the bundle again") from error
        problem = _problem(manifest)
        if problem:
            raise WeightsError(f"{path}: {problem}; export the bundle again with this version")
        return cls(folder, manifest)

    @property
    def model(self):
        return self.manifest["model"]

    @property
    def precision(self):
        return self.manifest["precision"]

    def has(self, unit, kind):
        """Whether the unit was exported as `kind`: onnx, mindir or om."""
        return kind in self.manifest["units"].get(unit, {})

    def check_device(self, device):
        """Raise EngineError for a device ("CPU", "Ascend") that the graphs were not exported for."""
        if self.manifest.get("for_cpu") and device != "CPU":
            raise EngineError(f"{self.folder} was exported --for-cpu, not for {device}; export it without")

    def path(self, unit, kind):
        """Path of a graph, after its sha256 and that of its data files were compared with the manifest."""
        if unit not in self.units:
            raise WeightsError(f"{self.folder} has no unit {unit!r}; it has {', '.join(self.units)}")
        entry = self.manifest["units"][unit].get(kind)
        if entry is None:
            raise WeightsError(f"{self.folder} has no {kind} of {unit}; export it with --format {kind}")
        if (unit, kind) not in self._checked:
            for part in (entry, *entry.get("data", ())):
                file = self.folder / part["path"]
                if not file.is_file():
                    raise WeightsError(f"{file} is missing, the manifest names it; export the bundle again")
                if sha256_of(file) != part["sha256"]:
                    raise WeightsError(f"{file} has changed since it was exported; export the bundle again")
            self._checked[unit, kind] = self.folder / entry["path"]
        return self._checked[unit, kind]

    def weights(self, unit):
        """{name: array} of weights that a graph takes from elsewhere: a bundle's graphs have their own."""
        return {}

    def config(self, kind, network):
        """Config dataclass `kind` of a network."""
        from sonic_ms.files.weights import load_config

        return load_config(kind, self.folder / "config" / network)


def _tensors(entries):
    return tuple(Tensor(entry["name"], tuple(entry["shape"]), entry["dtype"]) for entry in entries)


def _problem(manifest):
    """What is wrong with a manifest, or None."""
    if not isinstance(manifest, dict):
        return f"holds a {type(manifest).__name__}, not the manifest of a bundle"
    missing = [key for key in REQUIRED if key not in manifest]
    if missing:
        return f"lacks {', '.join(missing)}"
    if manifest["format"] != FORMAT:
        return f"format {manifest['format']!r}, this version reads {FORMAT}"
    for name, entry in manifest["units"].items():
        for side in ("inputs", "outputs"):
            for tensor in entry.get(side) or [{}]:
                shape, dtype = tensor.get("shape"), tensor.get("dtype")
                good = isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape)
                if not (tensor.get("name") and good and dtype in DTYPES):
                    return f"unit {name}: {side} hold {tensor}, expected a name, a static shape and a known dtype"
        for kind in KINDS:
            for part in [entry[kind], *entry[kind].get("data", ())] if kind in entry else ():
                place = Path(part["path"])
                if place.is_absolute() or ".." in place.parts:
                    return f"unit {name}: path {part['path']} leaves the bundle"
    return None


def unit_entry(unit):
    """The manifest's description of a unit, without files."""
    return {
        "inputs": [asdict(tensor) for tensor in unit.inputs],
        "outputs": [asdict(tensor) for tensor in unit.outputs],
    }


def file_entry(folder, path, data=()):
    """The manifest's description of a graph file and of its data files."""
    entry = {"path": str(Path(path).relative_to(folder)), "sha256": sha256_of(path)}
    if data:
        entry["data"] = [{"path": str(Path(one).relative_to(folder)), "sha256": sha256_of(one)} for one in data]
    return entry


def write_manifest(folder, manifest):
    """Write manifest.json whole or not at all."""
    with Temporary(folder) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        temporary.replace(Path(folder) / MANIFEST)
