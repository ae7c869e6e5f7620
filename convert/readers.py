"""Read checkpoints without torch and without running anything in them.

`open_checkpoint(path)` knows five containers: safetensors, torch's zip archive, torch's legacy pickle stream,
TorchScript archives and CTranslate2's list of arrays. The first bytes decide, not the name. Pickles are read by
pickles.py, which builds dictionaries, lists and descriptions of tensors, and refuses every other name: nothing of the
file is ever called. Tensors are read one at a time, and only the bytes of the file that they cover.

Whatever a file holds, it is read or ends in a SonicError, and takes less than 1 GB of memory.
"""

import io
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sonic_ms.convert import pickles
from sonic_ms.convert.ctranslate2 import HEADS as CTRANSLATE2_HEADS
from sonic_ms.convert.ctranslate2 import CTranslate2Checkpoint
from sonic_ms.convert.files import cause_of, unwritten
from sonic_ms.convert.pickles import ScriptObject, TensorEntry
from sonic_ms.convert.pickles import Storage as Storage

from sonic_ms.errors import SonicError, WeightsError, printable
from sonic_ms.files.reading import open_binary
from sonic_ms.files.weights import (
    DTYPES,
    MAX_NAME,
    MAX_TENSOR_BYTES,
    MAX_TENSORS,
    Closing,
    TensorFile,
    bf16_to_fp32,
    check_readable,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_DIRECTORY_BYTES = 8 << 20  # of a zip archive: 60,000 storages
MAX_DEPTH = 100  # of containers in containers
MAX_VISITS = 1_000_000  # of containers and values; a list that holds itself twice, forty times over, has 2**40
WALKED = (TensorEntry, ScriptObject, list, tuple, dict)
BLOCK = 1 << 20
ZIP_FAULTS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    OverflowError,
    struct.error,
)


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
        count = math.prod(entry.shape)
        check_readable(self.path, name, count, dtype)
        if count:
            span = 1 + sum((side - 1) * step for side, step in zip(entry.shape, entry.stride))
            if span * dtype.itemsize > MAX_TENSOR_BYTES:
                raise WeightsError(
                    f"{self.path}: {name} is spread over {span * dtype.itemsize} bytes; at most {MAX_TENSOR_BYTES}"
                )
            data = self._load(entry.storage, entry.offset * dtype.itemsize, span * dtype.itemsize)
            stride = tuple(step * dtype.itemsize for step in entry.stride)
            # numpy compares shape and strides with the bytes in hand: a view that leaves them raises ValueError.
            values = np.ndarray(entry.shape, dtype, data, 0, stride)
        else:
            values = np.empty(entry.shape, dtype)
        return bf16_to_fp32(values) if entry.storage.dtype == "BF16" else np.asarray(values, order="C")

    def _load(self, storage, begin, size):
        """The `size` bytes of a storage from byte `begin` on."""
        raise NotImplementedError

    def _take(self, place, size, what):
        """Exactly `size` bytes of the file from `place` on."""
        try:
            self._file.seek(place)
            data = self._file.read(size)
        except (OSError, OverflowError, ValueError) as error:
            raise WeightsError(f"{self.path}: {what} cannot be read ({error})") from error
        if len(data) != size:
            raise WeightsError(f"{self.path}: {what} ends early: {len(data)} bytes of {size}")
        return data

    def close(self):
        """Close the file."""
        self._file.close()


class Limited:
    """The file of a zip archive as the standard library reads its directory: no more than a limit at once."""

    def __init__(self, file, path):
        self._file, self._path = file, path

    def __getattr__(self, name):
        return getattr(self._file, name)

    def read(self, size=-1):
        if size < 0 or size > MAX_DIRECTORY_BYTES:
            size = MAX_DIRECTORY_BYTES + 1
        data = self._file.read(size)
        if len(data) > MAX_DIRECTORY_BYTES:
            raise WeightsError(f"{self._path}: the zip directory has more than {MAX_DIRECTORY_BYTES} bytes")
        return data


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a zip archive that is stored plain. `end`: where the next one, or the file, begins or ends."""

    name: str
    header: int
    size: int
    crc: int
    end: int


class ZipCheckpoint(Checkpoint):
    """torch.save's zip archive, or a TorchScript archive: <root>/data.pkl and one file <root>/data/<key> a storage.

    Only the directory is left to the standard library. Members are read here: stored plain, inside the bytes between
    their header and the next one, and with the checksum that the directory states.
    """

    def __init__(self, path):
        self.path, self._checked = path, set()
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        try:
            self._members = self._directory()
            super().__init__(path, self._described())
            for name, entry in self._tensors.items():
                self._check_storage(name, entry.storage)
        except SonicError:
            self._file.close()
            raise

    def _directory(self):
        """Members by name. They lie side by side: neither compressed (bombs) nor sharing bytes."""
        try:
            with zipfile.ZipFile(Limited(self._file, self.path)) as archive:
                infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        except ZIP_FAULTS as error:
            problem = "its last quarter is zeros" if unwritten(self.path) else printable(str(error))
            raise WeightsError(
                f"{self.path}: the zip archive is damaged or cut short ({problem}); get the file again"
            ) from error
        members = {}
        ends = [info.header_offset for info in infos[1:]] + [self.path.stat().st_size]
        for info, end in zip(infos, ends):
            name = printable(info.filename)
            if info.filename in members:
                raise WeightsError(f"{self.path}: two entries of the zip archive are called {name}")
            if info.header_offset < 0 or info.header_offset + info.compress_size > end:
                raise WeightsError(f"{self.path}: {name} overlaps the entry after it or the end of the file")
            plain = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
            if self._is_data(info.filename) and not plain:
                raise WeightsError(f"{self.path}: {name} is compressed; torch stores tensors plain, so save it again")
            if self._is_data(info.filename) and info.flag_bits & 1:
                raise WeightsError(f"{self.path}: {name} is encrypted; torch cannot do that, so unpack it first")
            members[info.filename] = Member(name, info.header_offset, info.file_size, info.CRC, end)
        return members

    @staticmethod
    def _is_data(name):
        """Whether a member is one that is read: the pickle, the byte order, or a storage."""
        parts = name.split("/")
        return (len(parts) == 2 and parts[1] in ("data.pkl", "byteorder")) or parts[1:2] == ["data"]

    def _described(self):
        roots = [name.split("/")[0] for name in self._members if name.split("/")[1:] == ["data.pkl"]]
        if len(roots) != 1:
            raise WeightsError(f"{self.path} is a zip archive without data.pkl: not a torch checkpoint")
        self._root = roots[0]
        order = self._members.get(f"{self._root}/byteorder")
        if order and self._content(order, 16) != b"little":
            raise WeightsError(f"{self.path} was saved on a big-endian machine; save it again on a little-endian one")
        pickle = self._members[f"{self._root}/data.pkl"]
        script = f"{self._root}/constants.pkl" in self._members
        return flatten(pickles.load(self._stream(pickle), self.path, script), self.path)

    def _stream(self, member):
        """The pickle as a file; its checksum is compared before anything is made of it."""
        return io.BytesIO(self._content(member, pickles.MAX_BYTES))

    def _content(self, member, limit):
        if member.size > limit:
            raise WeightsError(f"{self.path}: {member.name} announces {member.size} bytes; at most {limit}")
        return self._part(member, 0, member.size)

    def _check_storage(self, name, storage):
        expected = storage.count * DTYPES[storage.dtype].itemsize
        member = self._members.get(f"{self._root}/data/{storage.key}")
        if member is None:
            raise WeightsError(f"{self.path}: the data of {name} is missing (storage {storage.key})")
        if member.size != expected:
            raise WeightsError(f"{self.path}: {name} needs {expected} bytes, storage {storage.key} has {member.size}")

    def _load(self, storage, begin, size):
        return self._part(self._members[f"{self._root}/data/{storage.key}"], begin, size)

    def _part(self, member, begin, size):
        """Bytes of a member. Its checksum covers all of it, so the first part to be read pays for the whole."""
        header = self._take(member.header, 30, member.name)
        start = member.header + 30 + sum(struct.unpack("<HH", header[26:30]))
        if header[:4] != b"PK\x03\x04" or start + member.size > member.end:
            raise WeightsError(f"{self.path}: {member.name} is damaged: its {member.size} bytes are not all there")
        if member.name not in self._checked:
            crc = 0
            for place in range(start, start + member.size, BLOCK):
                block = self._take(place, min(BLOCK, start + member.size - place), member.name)
                crc = zlib.crc32(block, crc)
            if crc != member.crc:
                raise WeightsError(f"{self.path}: {member.name} is damaged: its checksum differs; get the file again")
            self._checked.add(member.name)
        return self._take(start + begin, size, member.name)


class LegacyCheckpoint(Checkpoint):
    """torch.save before 1.6: a stream of pickles (magic, version, platform, tensors, keys), then the storages."""

    def __init__(self, path):
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        try:
            magic = pickles.load(self._file, path)
            if type(magic) is not int or magic != LEGACY_MAGIC:
                raise WeightsError(f"{path} is a pickle, but not a torch checkpoint")
            version, platform = (pickles.load(self._file, path) for _ in range(2))
            if type(version) is not int or version != 1001:
                raise WeightsError(f"{path} is a torch checkpoint of an unknown version; save it again with torch")
            if not (isinstance(platform, dict) and platform.get("little_endian", True)):
                raise WeightsError(f"{path} was saved on a big-endian machine; save it again on a little-endian one")
            super().__init__(path, flatten(pickles.load(self._file, path), path))
            self._locate(pickles.load(self._file, path))
        except SonicError:
            self._file.close()
            raise

    def _locate(self, keys):
        """Note where each storage starts: 8 bytes of element count, then its data, in the order of `keys`."""
        storages = {}
        for entry in self._tensors.values():
            if storages.setdefault(entry.storage.key, entry.storage) != entry.storage:
                raise WeightsError(f"{self.path}: storage {entry.storage.key} is announced in two ways")
        self._starts = {}
        size, place = self.path.stat().st_size, self._file.tell()
        for key in keys if isinstance(keys, list) else []:
            storage = storages.get(printable(str(key))) if type(key) in (str, int) else None
            if storage is None or storage.key in self._starts:
                raise WeightsError(f"{self.path}: the list of storages is damaged, or has one that no tensor announces")
            count = int.from_bytes(self._take(place, 8, f"storage {storage.key}"), "little")
            if count != storage.count:
                raise WeightsError(f"{self.path}: storage {storage.key} has {count} elements, not {storage.count}")
            self._starts[storage.key] = place + 8
            place += 8 + count * DTYPES[storage.dtype].itemsize
            if place > size:
                raise WeightsError(f"{self.path} is truncated in storage {storage.key}: {size} bytes of {place}")
        missing = sorted(set(storages) - set(self._starts))
        if missing:
            raise WeightsError(f"{self.path}: the data of storage {', '.join(missing[:5])} is missing")

    def _load(self, storage, begin, size):
        return self._take(self._starts[storage.key] + begin, size, f"storage {storage.key}")


def flatten(value, path):
    """Nested containers -> {dotted name: TensorEntry}; values that are not tensors are left out.

    A container that is reached twice is walked twice, since each way to it is a name, unless there was no tensor in it;
    one that holds itself is left there. What may then be walked is limited: forty tuples suffice for 2**40 ways.
    """
    tensors, above, barren, visits = {}, set(), set(), 0

    def walk(node, prefix):
        """Collect the tensors below; whether there are any."""
        nonlocal visits
        if isinstance(node, TensorEntry):
            name = prefix[:-1]
            if len(name) > MAX_NAME or not name.isprintable():
                raise WeightsError(f"{path}: the name of a tensor is no text of at most {MAX_NAME}: {printable(name)}")
            if name in tensors:
                raise WeightsError(f"{path}: two tensors are called {name}")
            if len(tensors) == MAX_TENSORS:
                raise WeightsError(f"{path} holds more than {MAX_TENSORS} tensors")
            tensors[name] = node
            return True
        if isinstance(node, ScriptObject):
            node = node.state
        # Everything is still held by `value`, so that an id names one container.
        if id(node) in above or id(node) in barren:
            return False
        if len(above) == MAX_DEPTH:
            raise WeightsError(f"{path}: containers are nested too deeply for a checkpoint; at most {MAX_DEPTH}")
        visits += 1 + len(node)
        if visits > MAX_VISITS:
            raise WeightsError(f"{path}: containers hold more than {MAX_VISITS} values, or hold one another too often")
        above.add(id(node))
        found = False
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(child, WALKED):
                # Cut where a name is too long anyway: a prefix of megabytes would be copied for every value below it.
                found |= walk(child, f"{prefix}{str(key)[: MAX_NAME + 1]}."[: MAX_NAME + 2])
        above.discard(id(node))
        if not found:
            barren.add(id(node))
        return found

    if isinstance(value, WALKED):
        walk(value, "")
    if not tensors:
        raise WeightsError(f"{path} holds no tensors")
    return tensors


def open_checkpoint(path):
    """Open a checkpoint of any known container, recognised by its first bytes."""
    path = Path(path)
    with open_binary(path) as file:
        head = file.read(512)
    if head[8:9] == b"{" and not any(head[5:8]):  # first: the header's length before it may start like a pickle
        return TensorFile(path)
    if head.startswith(b"PK\x03\x04"):
        return ZipCheckpoint(path)
    if head[:10] in CTRANSLATE2_HEADS:
        return CTranslate2Checkpoint(path)
    if head.startswith(b"\x80"):
        return LegacyCheckpoint(path)
    raise WeightsError(f"{path} is no checkpoint: {cause_of(path, head)}")
