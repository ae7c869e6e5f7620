"""Files that no honest program writes: opcodes of pickles, and archives whose directory lies."""

import pickle
import struct
import zlib

ORDERED = b"ccollections\nOrderedDict\n"
LEGACY = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(number):
    data = pickle.encode_long(number)
    return (b"\x8a" + bytes([len(data)]) if len(data) < 256 else b"\x8b" + struct.pack("<i", len(data))) + data


def sequence(*items):
    return b"(" + b"".join(items) + b"t"


def listed(*items):
    return b"](" + b"".join(items) + b"e"


def dictionary(**items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(key="0", count=4, kind="FloatStorage"):
    return sequence(text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), integer(count)) + b"Q"


def tensor(key="0", count=4, shape=None, stride=None, offset=0):
    """A tensor of four floats, unless told otherwise."""
    shape = sequence(*map(integer, (count,) if shape is None else shape))
    stride = sequence(*map(integer, (1,) if stride is None else stride))
    body = sequence(storage(key, count), integer(offset), shape, stride, b"\x89", ORDERED + b")R")
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + body + b"R"


def stream(body):
    return b"\x80\x02" + body + b"."


def zip_member(name, data, size=None, packed=None, crc=None, method=0, flags=0):
    """A member whose directory entry may say other sizes, another checksum, method or flags than its data has."""
    size = len(data) if size is None else size
    packed = len(data) if packed is None else packed
    crc = zlib.crc32(data) if crc is None else crc
    return name.encode(), data, struct.pack("<HHHHHIII", 20, flags, method, 0, 0x21, crc, packed, size)


def write_zip(path, members, filler=b""):
    """Members of `zip_member` one after another, then the directory, with `filler` in it."""
    body, directory = b"", b""
    for name, data, fields in members:
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + fields
        directory += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, len(body)) + name
        body += b"PK\x03\x04" + fields + struct.pack("<HH", len(name), 0) + name + data
    directory += filler
    count = min(len(members), 0xFFFF)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


def torch_zip(path, body, storages=None, more=()):
    """A checkpoint of torch with this pickle."""
    storages = {"0": bytes(16)} if storages is None else storages
    members = [zip_member("archive/data.pkl", stream(body))]
    members += [zip_member(f"archive/data/{key}", data) for key, data in storages.items()]
    return write_zip(path, [*members, *more])


def torch_legacy(path, body, keys=("0",), storages=((4, bytes(16)),)):
    """The same in the format of torch before 1.6."""
    parts = [pickle.dumps(part, 2) for part in LEGACY] + [stream(body), pickle.dumps(list(keys), 2)]
    path.write_bytes(b"".join(parts) + b"".join(struct.pack("<q", count) + data for count, data in storages))
    return path


def safetensors(path, header, data=b""):
    """A file with this header, as text or bytes."""
    header = header if isinstance(header, bytes) else header.encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def zeros_deflated(megabytes):
    """What deflate makes of so many megabytes of zeros, in a thousandth of the time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + b"\x03\x00"
