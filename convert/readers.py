"""Read checkpoints without torch and without running anything in them.

`open_checkpoint(path)` knows five containers: safetensors, torch's zip archive, torch's legacy pickle stream,
TorchScript archives and CTranslate2's list of arrays. The first bytes decide, not the name. Pickles pass through
`RestrictedUnpickler`, which builds dictionaries, lists and descriptions of tensors, and refuses every other name:
nothing of the file is ever called. Tensors are read one at a time.
"""

import io
import math
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sonic_ms.convert.ctranslate2 import HEADS as CTRANSLATE2_HEADS
from sonic_ms.convert.ctranslate2 import CTranslate2Checkpoint

from sonic_ms.errors import InputMissingError, WeightsError
from sonic_ms.files.weights import DTYPES, Closing, TensorFile, bf16_to_fp32

# torch's storage classes -> safetensors dtype
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_PICKLE_BYTES = 64 << 20  # descriptions of a few thousand tensors take a few hundred kilobytes
BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    UnicodeError,
    ImportError,
)


@dataclass(frozen=True)
class Storage:
    """A run of elements in the file: key of the storage, safetensors dtype, number of elements."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class TensorEntry:
    """A tensor described by a pickle: a strided view of a storage. Offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple
    stride: tuple


class ScriptObject:
    """An object of a TorchScript archive, as the dictionary of its attributes."""

    def __init__(self):
        self.state = {}

    def __setstate__(self, state):
        self.state = state if isinstance(state, dict) else {}


class StateDict(dict):
    """Stands for collections.OrderedDict; torch hangs version numbers on it, which are dropped."""

    def __setstate__(self, state):
        pass


class Callable:
    """What a pickle gets for an allowed function. It has no attributes, so that a pickle can change nothing."""

    __slots__ = ("_function",)

    def __init__(self, function):
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name, value):
        raise pickle.UnpicklingError(f"attribute {name} set on a function")

    def __setstate__(self, state):
        raise pickle.UnpicklingError("state given to a function")

    def __call__(self, *arguments):
        return self._function(*arguments)


def rebuild_tensor(storage, offset, shape, stride, *_):
    """torch._utils._rebuild_tensor_v2, as a description. Refuses a view that leaves its storage or repeats it."""
    entry = TensorEntry(storage, offset, tuple(shape), tuple(stride))
    numbers = [offset, *entry.shape, *entry.stride]
    if not isinstance(storage, Storage) or not all(type(number) is int and number >= 0 for number in numbers):
        raise pickle.UnpicklingError("a tensor with a negative or non-integer size")
    if len(entry.shape) != len(entry.stride):
        raise pickle.UnpicklingError("a tensor whose shape and strides differ in length")
    count = math.prod(entry.shape)
    last = offset + sum((side - 1) * step for side, step in zip(entry.shape, entry.stride)) if count else offset
    if count > storage.count or (count and last >= storage.count):
        raise pickle.UnpicklingError(f"a tensor of {count} elements in a storage of {storage.count}")
    return entry


def rebuild_parameter(tensor, *_):
    """torch._utils._rebuild_parameter, as a description."""
    return tensor


ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"): Callable(rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Callable(rebuild_parameter),
    ("collections", "OrderedDict"): StateDict,
    # TorchScript marks the element types of lists with these.
    **{("torch.jit._pickle", f"build_{kind}list"): Callable(list) for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): Callable(rebuild_parameter),
}


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickler of tensors and plain containers. Anything else is refused by name, before it is looked up."""

    def __init__(self, file, script=False):
        super().__init__(file, encoding="utf-8")
        self._script = script

    def find_class(self, module, name):
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if self._script and module.split(".")[0] == "__torch__":
            return ScriptObject
        raise WeightsError(f"refused {module}.{name}: a checkpoint may hold tensors and plain containers only")

    def persistent_load(self, identity):
        kind, dtype, key, _device, count, *view = identity
        if kind != "storage" or dtype not in DTYPES or any(part is not None for part in view):
            raise pickle.UnpicklingError("an unknown kind of storage")
        if type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage of negative size")
        return Storage(str(key), dtype, count)


class Checkpoint(Closing):
    """Tensors of a checkpoint by name: `shapes`, `dtypes` (safetensors names), `read(name)` -> array."""

    def __init__(self, path, tensors):
        self.path = path
        self._tensors = tensors
        self.shapes = {name: entry.shape for name, entry in tensors.items()}
        self.dtypes = {name: entry.storage.dtype for name, entry in tensors.items()}

    def read(self, name):
        """One tensor in its own memory, float32 where the file has bfloat16."""
        entry = self._tensors[name]
        dtype = DTYPES[entry.storage.dtype]
        data = self._load(entry.storage, entry.storage.count * dtype.itemsize)
        values = np.frombuffer(data, dtype)
        stride = tuple(step * dtype.itemsize for step in entry.stride)
        values = np.lib.stride_tricks.as_strided(values[entry.offset :], entry.shape, stride, writeable=False)
        return bf16_to_fp32(values) if entry.storage.dtype == "BF16" else np.asarray(values, order="C")

    def _load(self, storage, size):
        """Bytes of a storage, exactly `size` of them."""
        raise NotImplementedError

    def close(self):
        """Close the file."""


class ZipCheckpoint(Checkpoint):
    """torch.save's zip archive, or a TorchScript archive: <root>/data.pkl and one file <root>/data/<key> a storage."""

    def __init__(self, path):
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise WeightsError(f"{path}: the zip archive is damaged ({error})") from error
        try:
            self._check_layout(path)
            super().__init__(path, self._tensors_of(path))
            for name, entry in self._tensors.items():
                self._check_storage(name, entry.storage)
        except WeightsError:
            self._zip.close()
            raise

    def _check_layout(self, path):
        """Entries must be stored plain, side by side: neither compressed (bombs) nor sharing bytes."""
        position = 0
        for info in sorted(self._zip.infolist(), key=lambda info: info.header_offset):
            if info.file_size != info.compress_size and self._is_storage(info.filename):
                raise WeightsError(f"{path}: {info.filename} is compressed; torch stores tensors plain")
            if info.header_offset < position:
                raise WeightsError(f"{path}: {info.filename} overlaps the entry before it")
            position = info.header_offset + info.compress_size
        pickles = [name for name in self._zip.namelist() if name.endswith("data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise WeightsError(f"{path} is a zip archive without data.pkl: not a torch checkpoint")
        self._root = pickles[0].rpartition("/")[0]
        self._sizes = {info.filename: info.file_size for info in self._zip.infolist()}
        order = self._sizes.get(f"{self._root}/byteorder") and self._zip.read(f"{self._root}/byteorder")
        if order and order != b"little":
            raise WeightsError(f"{path} was saved on a big-endian machine; save it again on a little-endian one")

    @staticmethod
    def _is_storage(name):
        return name.split("/")[1:2] == ["data"]

    def _tensors_of(self, path):
        script = f"{self._root}/constants.pkl" in self._sizes
        name = f"{self._root}/data.pkl"
        if self._sizes[name] > MAX_PICKLE_BYTES:
            raise WeightsError(f"{path}: data.pkl announces {self._sizes[name]} bytes; at most {MAX_PICKLE_BYTES}")
        try:
            data = self._zip.read(name)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise WeightsError(f"{path}: data.pkl is damaged ({error})") from error
        return flatten(unpickle(io.BytesIO(data), path, script), path)

    def _check_storage(self, name, storage):
        expected = storage.count * DTYPES[storage.dtype].itemsize
        size = self._sizes.get(f"{self._root}/data/{storage.key}")
        if size is None:
            raise WeightsError(f"{self.path}: the data of {name} is missing (storage {storage.key})")
        if size != expected:
            raise WeightsError(f"{self.path}: {name} needs {expected} bytes, storage {storage.key} has {size}")

    def _load(self, storage, size):
        try:
            return self._zip.read(f"{self._root}/data/{storage.key}")
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise WeightsError(f"{self.path}: storage {storage.key} is damaged ({error})") from error

    def close(self):
        self._zip.close()


class LegacyCheckpoint(Checkpoint):
    """torch.save before 1.6: a stream of pickles (magic, version, platform, tensors, keys), then the storages."""

    def __init__(self, path):
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        try:
            magic, version, platform = (unpickle(self._file, path) for _ in range(3))
            if magic != LEGACY_MAGIC or version != 1001:
                raise WeightsError(f"{path} is a pickle, but not a torch checkpoint")
            if not (isinstance(platform, dict) and platform.get("little_endian", True)):
                raise WeightsError(f"{path} was saved on a big-endian machine; save it again on a little-endian one")
            super().__init__(path, flatten(unpickle(self._file, path), path))
            self._locate(unpickle(self._file, path))
        except WeightsError:
            self._file.close()
            raise

    def _locate(self, keys):
        """Note where each storage starts: 8 bytes of element count, then its data, in the order of `keys`."""
        storages = {entry.storage.key: entry.storage for entry in self._tensors.values()}
        self._starts = {}
        size = self.path.stat().st_size
        for key in keys if isinstance(keys, list) else []:
            count = int.from_bytes(self._file.read(8), "little")
            storage = storages.get(str(key))
            if storage is None or count != storage.count:
                raise WeightsError(f"{self.path}: storage {key} has {count} elements, which no tensor announces")
            self._starts[storage.key] = self._file.tell()
            end = self._file.seek(count * DTYPES[storage.dtype].itemsize, 1)
            if end > size:
                raise WeightsError(f"{self.path} is truncated in storage {key}: {size} bytes of {end}")
        missing = sorted(set(storages) - set(self._starts))
        if missing:
            raise WeightsError(f"{self.path}: the data of storage {', '.join(missing[:5])} is missing")

    def _load(self, storage, size):
        self._file.seek(self._starts[storage.key])
        data = self._file.read(size)
        if len(data) != size:
            raise WeightsError(f"{self.path}: storage {storage.key} ends early; the file changed while it was read")
        return data

    def close(self):
        self._file.close()


def unpickle(file, path, script=False):
    """The next pickle of `file`, restricted; every way a pickle can be broken becomes a WeightsError."""
    try:
        return RestrictedUnpickler(file, script).load()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except BROKEN as error:
        raise WeightsError(f"{path}: the pickle is damaged ({error or type(error).__name__})") from error


def flatten(value, path):
    """Nested containers -> {dotted name: TensorEntry}; values that are not tensors are left out."""
    tensors, seen = {}, set()

    def walk(node, prefix):
        if isinstance(node, TensorEntry):
            tensors[prefix[:-1]] = node
            return
        if isinstance(node, ScriptObject):
            node = node.state
        if isinstance(node, (list, tuple)):
            node = dict(enumerate(node))
        if isinstance(node, dict) and id(node) not in seen:  # a pickle may contain itself
            seen.add(id(node))
            for key, child in node.items():
                walk(child, f"{prefix}{key}.")

    try:
        walk(value, "")
    except RecursionError as error:
        raise WeightsError(f"{path}: containers are nested too deeply for a checkpoint") from error
    if not tensors:
        raise WeightsError(f"{path} holds no tensors")
    return tensors


def open_checkpoint(path):
    """Open a checkpoint of any known container, recognised by its first bytes."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(10)
    except OSError as error:
        raise InputMissingError(f"cannot open {path}: {error.strerror}") from error
    if head[8:9] == b"{":  # first: the header's length before it may start like a pickle
        return TensorFile(path)
    if head.startswith(b"PK\x03\x04"):
        return ZipCheckpoint(path)
    if head in CTRANSLATE2_HEADS:
        return CTranslate2Checkpoint(path)
    if head.startswith(b"\x80"):
        return LegacyCheckpoint(path)
    raise WeightsError(f"{path} is no checkpoint: expected safetensors, a torch zip archive or a torch pickle")
