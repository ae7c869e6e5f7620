"""What an mp4 says of itself: the keys of moov.udta.meta, read box by box.

ISO/IEC 14496-12 (boxes) and Apple's QuickTime File Format (keys of the namespace `mdta`, values in `ilst`). Files
are strangers': every size is held against its parent's, and only the box `moov` is read into memory.
"""

import struct

from sonic_ms.errors import VideoError
from sonic_ms.media.kinds import require_file

C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # C2PA specification, BMFF-based formats
MAX_MOOV = 32 << 20  # bytes; an hour of video and sound has about 2 MB
MAX_BOXES = 100_000  # of a file; a fragmented hour has 7,200


def boxes(data, name):
    """Yield (type, content) of the boxes that fill `data` (bytes). Raises VideoError, begun with `name`."""
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1 and place + 16 <= len(data):
            size, head = struct.unpack_from(">Q", data, place + 8)[0], 16
        elif size == 0:
            size = len(data) - place
        if size < head or place + size > len(data):
            raise VideoError(f"{name}: damaged, box {kind!r} of its index claims {size} bytes; export it again")
        yield kind, data[place + head : place + size]
        place += size


def file_boxes(path):
    """Yield (type, content) of the boxes of an mp4; content: its first bytes, or all of `moov`. Raises
    InputMissingError; VideoError for what is no mp4, or is cut short."""
    require_file(path, name := f"video {path}")
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        place, count, found = 0, 0, set()
        while place < end:
            file.seek(place)
            header = file.read(16)
            if len(header) < 8 or (place == 0 and header[4:8] != b"ftyp"):
                break
            size, kind = struct.unpack(">I4s", header[:8])
            head = 8
            if size == 1 and len(header) == 16:
                size, head = struct.unpack(">Q", header[8:])[0], 16
            elif size == 0:
                size = end - place
            if size < head or place + size > end:
                raise VideoError(
                    f"{name}: cut short, box {kind.decode('latin-1')!r} claims {size} bytes of the {end - place} that "
                    "are left; copy or export it again"
                )
            if kind == b"moov" and size > MAX_MOOV:
                raise VideoError(f"{name}: its index has {size} bytes, expected at most {MAX_MOOV}")
            count += 1
            if count > MAX_BOXES:
                raise VideoError(f"{name}: made of more than {MAX_BOXES} boxes; export it again")
            file.seek(place + head)
            found.add(kind)
            yield kind, file.read(size - head if kind == b"moov" else min(size - head, 16))
            place += size
    if not found:
        raise VideoError(f"{name}: not an mp4; expected one, labels are read from and written to nothing else")
    if b"moov" not in found:
        raise VideoError(f"{name}: cut short, it has no index (moov); copy or export it again")


def has_manifest(path):
    """Whether an mp4 has the box that holds a C2PA manifest. Raises InputMissingError, VideoError."""
    return any(kind == b"uuid" and content == C2PA_BOX for kind, content in list(file_boxes(path)))


def read_keys(path):
    """{key: value} of the texts in moov.udta.meta, keys of the namespace mdta. Raises InputMissingError, VideoError."""
    name = f"video {path}"
    found = {}
    moov = next(content for kind, content in list(file_boxes(path)) if kind == b"moov")
    for kind, user in boxes(moov, name):
        for inner, meta in boxes(user, name) if kind == b"udta" else ():
            if inner == b"meta" and len(meta) > 4:
                # in mp4 four bytes of version come first, in QuickTime's own files none
                found |= _texts(dict(boxes(meta[4:] if meta[4:8] != b"hdlr" else meta, name)), name)
    return found


def _texts(meta, name):
    keys, names = meta.get(b"keys", b""), []
    for space, key in boxes(keys[8:], name):
        names.append(key.decode("utf-8", "replace") if space == b"mdta" else None)
    found = {}
    for index, item in boxes(meta.get(b"ilst", b""), name):
        number = int.from_bytes(index, "big")
        for kind, value in boxes(item, name):
            if kind == b"data" and 1 <= number <= len(names) and names[number - 1] is not None:
                found[names[number - 1]] = value[8:].decode("utf-8", "replace")  # after its type and its locale
    return found
