"""A bundle: a folder with exported graphs, their manifest, and the configs a pipeline needs to run them.

    manifest.json  {"format": 1, "model", "precision", "mindspore", "mind_ir_version", "weights_sha256", "licence",
                    "gear", "for_cpu", "units": {NAME: {
                    "inputs": [{"name", "shape", "dtype"}], "outputs": [...], "threads",
                    "onnx" | "mindir" | "om" | "lite": {"path", "sha256", "data": [{"path", "sha256"}]}}}}
    config/        config.json of each network
    onnx/, mindir/ the graphs

Reading one needs NumPy and the standard library only.
"""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path

from sonic_ms.errors import EngineError, InputMissingError, WeightsError, printable, short
from sonic_ms.files.digest import sha256_of
from sonic_ms.files.reading import read_json
from sonic_ms.files.temporary import Temporary
from sonic_ms.files.weights import CONFIG_FILE, MAX_NAME, MAX_RANK, MAX_SIDE, load_config
from sonic_ms.runtime.unit import Tensor, Unit

MANIFEST = "manifest.json"
FORMAT = 1
KINDS = ("onnx", "mindir", "om", "lite")
DTYPES = ("float32", "float16", "int32")
UNIT_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"  # it becomes the name of folders and files
MAX_UNITS, MAX_TENSORS = 100, 200  # of a bundle; inputs or outputs of a unit
MAX_ELEMENTS = 1 << 28  # of one input or output: 1 GB of float32
KINDS_OF_VALUES = {
    "model": str, "precision": str, "mindspore": str, "weights_sha256": str, "licence": str, "gear": dict,
    "units": dict, "for_cpu": bool, "mind_ir_version": int,
}  # fmt: skip
REQUIRED = ("format", "model", "precision", "weights_sha256", "licence", "gear", "units")


class Bundle:
    """A bundle that has been read. Use `Bundle.load`.

    folder: Path; manifest: dict; units: {name: Unit} as exported, without a way to build Cells.
    """

    def __init__(self, folder, manifest):
        self.folder, self.manifest = Path(folder), manifest
        self.units = {
            name: Unit(name, _tensors(entry["inputs"]), _tensors(entry["outputs"]), None, entry.get("threads", 0))
            for name, entry in manifest["units"].items()
        }
        self._checked = {}

    @classmethod
    def load(cls, folder):
        """Read and check the manifest. Raises InputMissingError, WeightsError that names what is wrong."""
        path = inside(folder, MANIFEST)
        try:
            manifest = read_json(path, "JSON")
        except InputMissingError as error:
            raise InputMissingError(f"{folder} is not a bundle: {error}") from error
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

    @property
    def chips(self):
        """Names of the chips that graphs were built for, sorted; none for a bundle that runs anywhere."""
        entries = [unit[kind] for unit in self.manifest["units"].values() for kind in KINDS if kind in unit]
        return sorted({str(entry["soc"]) for entry in entries if "soc" in entry})

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
                file = inside(self.folder, part["path"])
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
        return load_config(kind, inside(self.folder, f"config/{network}/{CONFIG_FILE}").parent)


def _tensors(entries):
    return tuple(Tensor(entry["name"], tuple(entry["shape"]), entry["dtype"]) for entry in entries)


def inside(folder, path):
    """folder/path; WeightsError when a link on the way leads out of the folder: a bundle brings its own files only."""
    place = Path(folder) / path
    if not place.resolve().is_relative_to(Path(folder).resolve()):
        raise WeightsError(f"{place} is a link that leaves the bundle; put the file itself there")
    return place


def _problem(manifest):
    """What is wrong with a manifest, or None."""
    if not isinstance(manifest, dict):
        return f"holds a {type(manifest).__name__}, not the manifest of a bundle"
    missing = [key for key in REQUIRED if key not in manifest]
    if missing:
        return f"lacks {', '.join(missing)}"
    if manifest["format"] != FORMAT:
        return f"format {short(manifest['format'])}, this version reads {FORMAT}"
    for key, kind in KINDS_OF_VALUES.items():
        if key in manifest and not isinstance(manifest[key], kind):
            return f"{key} is {short(manifest[key])}, expected a {kind.__name__}"
    if not re.fullmatch(r"\d{1,4}\.\d{1,4}.{0,20}", manifest.get("mindspore", "0.0")):
        return f"mindspore is {short(manifest['mindspore'])}, expected a version"
    for name, value in manifest["gear"].items():
        numbers = value if isinstance(value, list) else [value]
        if (name == "sides" and value is not numbers) or not all(n is None or _is_size(n, 0) for n in numbers):
            return f"gear {printable(name)} is {short(value)}, expected whole numbers"
    if not 1 <= len(manifest["units"]) <= MAX_UNITS:
        return f"{len(manifest['units'])} units, expected 1 to {MAX_UNITS}"
    problems = (_problem_of_unit(name, entry) for name, entry in manifest["units"].items())
    return next(filter(None, problems), None)


def _problem_of_unit(name, entry):
    """What is wrong with one unit of a manifest, or None."""
    if not re.fullmatch(UNIT_NAME, name) or not isinstance(entry, dict):
        return f"unit {short(name)} is {short(entry)}, expected a name of letters and digits, and an object"
    for side in ("inputs", "outputs"):
        tensors = entry.get(side)
        if not isinstance(tensors, list) or not 1 <= len(tensors) <= MAX_TENSORS:
            return f"unit {name}: {side} are {short(tensors)}, expected a list of 1 to {MAX_TENSORS}"
        for tensor in tensors:
            if not _is_tensor(tensor):
                return f"unit {name}: {side} hold {short(tensor)}, expected a name, a static shape and a known dtype"
            count = math.prod(tensor["shape"])
            if count > MAX_ELEMENTS:
                return f"unit {name}: {tensor['name']} has {count} elements, expected at most {MAX_ELEMENTS}"
        if len({tensor["name"] for tensor in tensors}) < len(tensors):
            return f"unit {name}: two of the {side} have one name"
    if type(entry.get("threads", 0)) is not int or entry.get("threads", 0) not in (0, 1):
        return f"unit {name}: threads is {short(entry['threads'])}, expected 0 for all or 1"
    problems = (file_problem(entry[kind]) for kind in KINDS if kind in entry)
    return next((f"unit {name}: {problem}" for problem in problems if problem), None)


def file_problem(entry):
    """What is wrong with the description of a graph file and of its data files, or None."""
    data = entry.get("data", []) if isinstance(entry, dict) else []
    for part in [entry, *data] if isinstance(data, list) else [data]:
        named = isinstance(part, dict) and _is_text(part.get("path")) and isinstance(part.get("sha256"), str)
        if not named:
            return f"a file is {short(part)}, expected a path and a sha256"
        place = Path(part["path"])
        if place.is_absolute() or ".." in place.parts:
            return f"path {part['path']} leaves the bundle"
    return None


def _is_size(value, least=1):
    return type(value) is int and least <= value <= MAX_SIDE


def _is_text(value):
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def _is_tensor(value):
    if not isinstance(value, dict) or not _is_text(value.get("name")) or value.get("dtype") not in DTYPES:
        return False
    shape = value.get("shape")
    return isinstance(shape, list) and len(shape) <= MAX_RANK and all(map(_is_size, shape))


def unit_entry(unit):
    """The manifest's description of a unit, without files."""
    return {
        "inputs": [asdict(tensor) for tensor in unit.inputs],
        "outputs": [asdict(tensor) for tensor in unit.outputs],
        "threads": unit.threads,
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
