"""Save and load the weights of a network: `model.safetensors` and `config.json`, side by side in one folder.

A folder always rebuilds its own network: config.json holds the fields of the network's frozen config dataclass.
Loading is strict. Missing, unknown and wrong-shaped tensors are named or counted in one error; nothing is half loaded.

The safetensors format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON header
{name: {dtype, shape, data_offsets}}, then the tensors' bytes. It is read and written here with numpy alone, one tensor
at a time, because a 6 GB checkpoint must pass through a small memory, and numpy has no bfloat16 of its own.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
from pathlib import Path

import numpy as np

from sonic_ms.errors import OutputError, UsageError, WeightsError, printable, short
from sonic_ms.files.config import from_dict
from sonic_ms.files.reading import open_binary, parse_json, read_json
from sonic_ms.files.temporary import Temporary

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
MAX_HEADER_BYTES = 8 << 20  # 60,000 tensors; parsed, the most expensive JSON of this length takes 0.4 GB
MAX_TENSORS = 100_000  # in one file; the largest real one here has 2,300
MAX_NAME = 500  # characters of a tensor's name
MAX_RANK = 8  # axes of a tensor; the most in use are six
MAX_SIDE = 2**31 - 1
MAX_ELEMENTS, MAX_TENSOR_BYTES = 1 << 26, 1 << 28  # of one tensor that is read; the largest real one has 52 million
MAX_LISTED = 400  # characters of names shown in one error before "and N more"

# safetensors name -> numpy dtype. bfloat16 is carried as its raw 16 bits and widened on reading.
DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("bool"),
}
FLOATS = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}  # precision of the command line -> safetensors name


def bf16_to_fp32(bits):
    """Raw bfloat16 bits (uint16) -> float32 of the same shape, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def fp32_to_bf16(values):
    """float32 -> raw bfloat16 bits (uint16), rounded to nearest even as every framework does; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def cast(name, values, dtype):
    """Array -> (array as stored, safetensors name). `dtype` is a key of FLOATS; None keeps the width.

    Only floats change. A finite value that becomes infinite in the narrow type raises WeightsError: half precision
    ends at 65504, and a weight beyond it would silently ruin the network.
    """
    if dtype is None or values.dtype.kind != "f":
        return values, numpy_name(values.dtype)
    if dtype == "bf16":
        return fp32_to_bf16(values), "BF16"
    with np.errstate(over="ignore"):
        narrow = values.astype(DTYPES[FLOATS[dtype]])
    if np.isinf(narrow).any() and np.isfinite(values).all():
        raise WeightsError(f"{name}: the value {np.abs(values).max():.6g} does not fit in {dtype}; use fp32 or bf16")
    return narrow, FLOATS[dtype]


def numpy_name(dtype):
    """numpy dtype -> its safetensors name."""
    for name, known in DTYPES.items():
        if name != "BF16" and known == np.dtype(dtype).newbyteorder("<"):
            return name
    raise WeightsError(f"dtype {dtype} has no place in a safetensors file; use one of {sorted(DTYPES)}")


def summary(names):
    """Names -> one string, shortened when there are very many; the first one is always there."""
    names = list(names)
    lengths = itertools.accumulate(len(name) + 2 for name in names)
    shown = max(1, sum(length <= MAX_LISTED for length in lengths))
    tail = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + tail


def sound_shape(shape):
    """Number of elements of a shape that a file states; ValueError if no tensor has such a shape.

    Checked before anything is multiplied: a product of a few thousand numbers of a few thousand digits takes minutes.
    An empty tensor is held to the same limit, counting its empty axes as one, since arrays of it are made as well.
    """
    if len(shape) > MAX_RANK:
        raise ValueError(f"a tensor of {len(shape)} axes; at most {MAX_RANK}")
    if not all(type(side) is int and 0 <= side <= MAX_SIDE for side in shape):
        raise ValueError(f"a tensor with a side that is no number from 0 to {MAX_SIDE}")
    if math.prod(max(side, 1) for side in shape) > 1 << 48:
        raise ValueError(f"a tensor of more than {1 << 48} elements")
    return math.prod(shape)


def check_readable(path, name, count, dtype):
    """Refuse to read a tensor that would take more memory than any tensor of these networks: copies follow."""
    if count > MAX_ELEMENTS or count * dtype.itemsize > MAX_TENSOR_BYTES:
        raise WeightsError(
            f"{path}: {name} has {count} elements of {dtype.itemsize} bytes; one tensor may have {MAX_ELEMENTS} and "
            f"{MAX_TENSOR_BYTES} bytes"
        )


class Closing:
    """`with` for a reader that has close()."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class TensorFile(Closing):
    """A safetensors file, opened and checked; `read(name)` maps the bytes of one tensor.

    `shapes` is {name: shape}, `dtypes` is {name: safetensors dtype}. A truncated, padded or overlapping file raises
    WeightsError when it is opened, not when a tensor is read.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._file = open_binary(self.path)  # closed by close() or with the object
        try:
            size = os.fstat(self._file.fileno()).st_size
            self._start, header = self._read_header(size)
            self.metadata = self._take_metadata(header)
            self._ranges = self._check(header, size - self._start)
        except WeightsError:
            self._file.close()
            raise
        self.shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        self.dtypes = {name: entry["dtype"] for name, entry in header.items()}

    def _read_header(self, size):
        head = self._file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or not 2 <= length <= size - 8:
            raise WeightsError(f"{self.path} is not a safetensors file, or it is truncated ({size} bytes)")
        if length > MAX_HEADER_BYTES:
            raise WeightsError(f"{self.path}: a safetensors header of {length} bytes; at most {MAX_HEADER_BYTES}")
        header = parse_json(self._file.read(length), f"{self.path}: the safetensors header is damaged")
        if not isinstance(header, dict):
            raise WeightsError(f"{self.path}: the safetensors header is damaged (not an object)")
        if len(header) > MAX_TENSORS:
            raise WeightsError(f"{self.path}: a safetensors header of {len(header)} tensors; at most {MAX_TENSORS}")
        return 8 + length, header

    def _take_metadata(self, header):
        metadata = header.pop("__metadata__", {})
        texts = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
        if not texts:
            raise WeightsError(f"{self.path}: the safetensors metadata is damaged (not an object of texts)")
        return metadata

    def _check(self, header, data_bytes):
        """Refuse any header whose tensors do not fill the data part exactly, each byte once."""
        ranges = {}
        for name, entry in header.items():
            if len(name) > MAX_NAME or not name.isprintable():
                raise WeightsError(f"{self.path}: the name {printable(name)} in the safetensors header is damaged")
            try:
                dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
                itemsize = self._dtype(name, dtype).itemsize
                count = sound_shape(shape)
                begin, end = offsets
            except (LookupError, TypeError, ValueError) as error:
                raise WeightsError(f"{self.path}: the safetensors entry of {name} is damaged ({error})") from error
            sound = isinstance(shape, list) and type(begin) is int and type(end) is int and 0 <= begin <= end
            if not sound or end - begin != count * itemsize:
                raise WeightsError(f"{self.path}: the safetensors entry of {name} does not fit its bytes: {shape}")
            ranges[name] = (begin, end)
        position = 0
        for name, (begin, end) in sorted(ranges.items(), key=lambda item: item[1]):
            if begin != position:
                raise WeightsError(f"{self.path}: {name} overlaps its neighbour or leaves a gap at byte {position}")
            position = end
        if position != data_bytes:
            raise WeightsError(f"{self.path} holds {data_bytes} bytes of tensors, its header says {position}")
        return ranges

    def _dtype(self, name, dtype):
        if dtype in DTYPES:
            return DTYPES[dtype]
        shown = printable(str(dtype))
        if shown.startswith(("F8_", "F6_", "F4")):
            raise WeightsError(
                f"{self.path}: {name} is of type {shown}: 8-bit floats (fp8) or smaller, which lost the weights' "
                "precision; get the fp16 or fp32 safetensors file"
            )
        raise WeightsError(f"{self.path}: {name} is of the unknown safetensors type {shown}; use {', '.join(DTYPES)}")

    def read_raw(self, name):
        """One tensor as stored (bfloat16 as uint16 bits), in its own memory."""
        begin, end = self._ranges[name]
        dtype = DTYPES[self.dtypes[name]]
        check_readable(self.path, name, math.prod(self.shapes[name]), dtype)
        out = np.empty(self.shapes[name], dtype)
        try:
            self._file.seek(self._start + begin)
            whole = end == begin or self._file.readinto(memoryview(out.reshape(-1)).cast("B")) == end - begin
        except OSError as error:
            raise WeightsError(f"{self.path}: {name} cannot be read: {error.strerror}") from error
        if not whole:
            raise WeightsError(f"{self.path}: {name} ends early; the file changed while it was read")
        return out

    def read(self, name):
        """One tensor; bfloat16 is widened to float32."""
        raw = self.read_raw(name)
        return bf16_to_fp32(raw) if self.dtypes[name] == "BF16" else raw

    def close(self):
        self._file.close()


def write_tensors(path, entries, metadata=None):
    """Write a safetensors file atomically, one tensor in memory at a time, then read it back and compare.

    entries: list of (name, safetensors dtype, shape, load) with load() -> the array as stored. The file appears under
    its name only when every byte has been compared with what load() gave.
    """
    path = Path(path)
    header, position = {}, 0
    if metadata:
        header["__metadata__"] = {key: str(value) for key, value in metadata.items()}
    for name, dtype, shape, _ in entries:
        if name in header:
            raise WeightsError(f"{path}: two tensors are called {name}")
        size = int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts on an 8-byte boundary, as the reference writer does
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Temporary(path.parent) as temporary:
            _compare(temporary, entries, _write(temporary, text, entries))
            os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _write(path, header, entries):
    """Write header and tensors, to the disk before this returns; {name: digest of its bytes}."""
    digests = {}
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name, dtype, shape, load in entries:
            values = np.asarray(load(), order="C")
            if values.shape != tuple(shape) or values.dtype != DTYPES[dtype]:
                raise WeightsError(f"{name}: announced {dtype} {tuple(shape)}, got {values.dtype} {values.shape}")
            data = memoryview(values.reshape(-1)).cast("B") if values.size else b""
            digests[name] = hashlib.blake2b(data).digest()
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digests


def _compare(path, entries, digests):
    with TensorFile(path) as written:
        for name, dtype, shape, _ in entries:
            values = written.read_raw(name)
            data = memoryview(values.reshape(-1)).cast("B") if values.size else b""
            same = written.dtypes[name] == dtype and values.shape == tuple(shape)
            if not same or hashlib.blake2b(data).digest() != digests[name]:
                raise OutputError(f"{path}: {name} reads back different from what was written; is the disk sound?")


def save_config(config, folder):
    """Write the fields of a config dataclass as folder/config.json, atomically."""
    path = Path(folder) / CONFIG_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Temporary(path.parent) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def load_config(kind, folder):
    """folder/config.json -> an instance of the dataclass `kind`. Unknown and missing keys raise WeightsError."""
    path = Path(folder) / CONFIG_FILE
    return config_from_fields(kind, read_json(path, "JSON"), path)


def config_from_fields(kind, fields, where):
    """Plain dict -> config dataclass `kind`; lists become tuples. Raises WeightsError, `where` names the source."""
    for name, value in fields.items() if isinstance(fields, dict) else ():
        _check_sizes(name, value, where)
    return from_dict(kind, fields, str(where), WeightsError)


def _check_sizes(name, value, where, depth=0):
    """Refuse what no config holds: lists in lists in lists, and numbers that are no size of anything."""
    if depth > MAX_RANK:
        raise WeightsError(f"{where}: values are nested too deeply; at most {MAX_RANK} in one another")
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        _check_sizes(name, one, where, depth + 1)
    large = type(value) is int and not 0 <= value <= MAX_SIDE
    if large or (type(value) is float and not -1e300 < value < 1e300):
        raise WeightsError(f"{where}: {name:.80} is {short(value)}; expected a number from 0 to {MAX_SIDE}")


def save_model(cell, config, folder):
    """Write the parameters of `cell` and its config dataclass into `folder`, atomically, compared after writing."""
    entries = []
    for name, parameter in cell.parameters_and_names():
        dtype, shape = str(parameter.dtype), tuple(parameter.shape)
        if dtype == "BFloat16":
            load = _bf16_bits(parameter)
            entries.append((name, "BF16", shape, load))
        else:
            entries.append((name, numpy_name(np.dtype(dtype.lower())), shape, parameter.asnumpy))
    save_config(config, folder)
    write_tensors(Path(folder) / MODEL_FILE, entries, {"format": "mindspore", "config": type(config).__name__})


def _bf16_bits(parameter):
    return lambda: fp32_to_bf16(parameter.float().asnumpy())


def set_precision(cell, dtype):
    """Give every parameter of a fresh cell the float width `dtype` ("fp32" or "fp16"); returns the cell.

    Activations follow the parameters and the inputs; the cells of this package normalise and take softmax in float32
    all the same.
    """
    import mindspore as ms

    widths = {"fp32": ms.float32, "fp16": ms.float16}
    if dtype not in widths:
        raise UsageError(f"precision {dtype!r}: MindSpore's CPU backend runs {' or '.join(widths)}")
    for parameter in cell.get_parameters():
        parameter.set_dtype(widths[dtype])
    return cell


def load_weights(cell, path, prefix=""):
    """Load a safetensors file (or the folder that holds it) into `cell`, strictly.

    Floats are cast to the width of the cell's parameters. `prefix` selects the part `prefix*` of the file for a cell
    that is one part of the saved one. Raises WeightsError naming every missing, unknown, wrong-shaped tensor at once,
    and any tensor with a value that is not finite. Returns the cell.
    """
    import mindspore as ms  # only here: the readers above serve the converter, which runs without MindSpore

    path = Path(path)
    if path.is_dir():
        path = path / MODEL_FILE
    parameters = {prefix + name: parameter for name, parameter in cell.parameters_and_names()}
    with TensorFile(path) as file:
        present = {name for name in file.shapes if name.startswith(prefix)}
        wrong = [
            f"{name} {file.shapes[name]} instead of {tuple(parameters[name].shape)}"
            for name in sorted(present & set(parameters))
            if file.shapes[name] != tuple(parameters[name].shape)
        ]
        problems = [
            f"{kind}: {summary(sorted(names))}"
            for kind, names in (
                ("missing", set(parameters) - present),
                ("unknown", present - set(parameters)),
                ("wrong shape", wrong),
            )
            if names
        ]
        if problems:
            raise WeightsError(f"{path} does not fit {type(cell).__name__}: {'; '.join(problems)}")
        broken = [name for name in parameters if not _finite(file, name)]
        if broken:
            raise WeightsError(f"{path} holds values that are not finite: {summary(broken)}")
        for name, parameter in parameters.items():
            values = ms.Tensor(file.read(name))
            parameter.set_data(values if values.dtype == parameter.dtype else values.astype(parameter.dtype))
    return cell


def _finite(file, name):
    values = file.read(name)
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
