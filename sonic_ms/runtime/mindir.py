"""Which primitives a MINDIR uses, without MindSpore: a reader of the few protobuf fields that say so.

MindSpore's own reader (mindspore.train.mind_ir_pb2) cannot share a process with the onnx package: whichever is imported
second breaks, since they need different implementations of protobuf. Field numbers are those of mind_ir.proto.
"""

import mmap
from dataclasses import dataclass

from sonic_ms.errors import WeightsError

FUNCTIONS, PRIMITIVES, VERSION = 8, 12, 13  # of ModelProto
OP_TYPE = 2  # of PrimitiveProto
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class Mindir:
    """primitives: names in the file's order; functions: graphs besides the main one; version: mind_ir_version."""

    primitives: tuple[str, ...]
    functions: int
    version: int


def read_mindir(path):
    """Mindir of a file. Weights are skipped, not read. Raises WeightsError for a file that is not MINDIR."""
    names, functions, version = {}, 0, 0
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, value in _fields(data, 0, len(data)):
                if number == PRIMITIVES:
                    for inner, name in _fields(data, *value):
                        if inner == OP_TYPE:
                            names[data[slice(*name)].decode()] = True
                elif number == FUNCTIONS:
                    functions += 1
                elif number == VERSION:
                    version = value
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read as MINDIR ({error}); export it again") from error
    if not names:
        raise WeightsError(f"{path} names no primitive: not a MINDIR of MindSpore 2; export it again")
    return Mindir(tuple(names), functions, version)


def _fields(data, start, end):
    """Yield (field number, value) of a message: an int, or (start, end) of bytes inside data."""
    while start < end:
        key, start = _varint(data, start)
        kind = key & 7
        if kind == VARINT:
            value, start = _varint(data, start)
        elif kind == BYTES:
            size, start = _varint(data, start)
            value = (start, start + size)
            start += size
        elif kind in (FIXED64, FIXED32):
            value, start = None, start + (8 if kind == FIXED64 else 4)
        else:
            raise ValueError(f"unknown wire type {kind}")
        if start > end:
            raise ValueError("truncated")
        yield key >> 3, value


def _varint(data, start):
    value = shift = 0
    while True:
        byte = data[start]
        value |= (byte & 0x7F) << shift
        start, shift = start + 1, shift + 7
        if byte < 0x80:
            return value, start
        if shift > 63:
            raise ValueError("number too long")
