"""Whisper as CTranslate2 stores it (`model.bin`): a flat list of named arrays. Read without the library.

Format, little-endian: version u32; text kind; revision u32; count u32; then for each array: text name, rank u8, rank
sizes u32, element type u8, byte count u32, data. A text is a u16 length and so many bytes, the last one NUL. The
aliases that follow only name arrays twice and are not read.
"""

import math
import struct
from pathlib import Path

import numpy as np
from sonic_ms.convert.maps import NameMap, under

from sonic_ms.errors import WeightsError, printable
from sonic_ms.files.weights import (
    DTYPES,
    MAX_NAME,
    MAX_RANK,
    MAX_TENSORS,
    Closing,
    bf16_to_fp32,
    check_readable,
    sound_shape,
)

HEADS = (b"\x05\x00\x00\x00\x0c\x00Whis", b"\x06\x00\x00\x00\x0c\x00Whis")  # first ten bytes, versions 5 and 6
TYPES = ("F32", "I8", "I16", "I32", "F16", "BF16")
HEADS_NAME = "encoder/num_heads"


class CTranslate2Checkpoint(Closing):
    """`shapes`, `dtypes` and `read(name)`, as the other checkpoints have them."""

    def __init__(self, path):
        self.path = Path(path)
        self.shapes, self.dtypes, self._starts = {}, {}, {}
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        try:
            self._index(self.path.stat().st_size)
        except WeightsError:
            self._file.close()
            raise

    def _take(self, form):
        data = self._file.read(struct.calcsize(f"<{form}"))
        try:
            return struct.unpack(f"<{form}", data)
        except struct.error as error:
            raise WeightsError(f"{self.path} is truncated or damaged at byte {self._file.tell()}") from error

    def _text(self):
        (length,) = self._take("H")
        return self._take(f"{length}s")[0].rstrip(b"\0").decode("utf-8", "replace")

    def _index(self, size):
        """Note shape, type and place of every array; each must lie inside the file and have the size it announces."""
        self._take("I")
        self._text()
        _revision, count = self._take("II")
        if count > MAX_TENSORS:
            raise WeightsError(f"{self.path} announces {count} arrays; at most {MAX_TENSORS}")
        for _ in range(count):
            name, (rank,) = self._text(), self._take("B")
            if name in self.shapes or len(name) > MAX_NAME or not name.isprintable():
                raise WeightsError(f"{self.path}: the name {printable(name)} of an array is damaged, or there twice")
            if rank > MAX_RANK:
                raise WeightsError(f"{self.path}: {name} has {rank} axes; at most {MAX_RANK}")
            shape, (kind, length) = self._take(f"{rank}I"), self._take("BI")
            try:
                elements = sound_shape(shape)
            except ValueError as error:
                raise WeightsError(f"{self.path}: {name} is {error}") from error
            if kind >= len(TYPES) or elements * DTYPES[TYPES[kind]].itemsize != length:
                raise WeightsError(f"{self.path}: {name} {shape} of type {kind} does not fit its {length} bytes")
            self.shapes[name], self.dtypes[name], self._starts[name] = shape, TYPES[kind], self._file.tell()
            if self._file.seek(length, 1) > size:
                raise WeightsError(f"{self.path} is truncated in {name}: {size} bytes of {self._file.tell()}")

    def read(self, name):
        """One array, float32 where the file has bfloat16. Quantised ones are refused by the converter."""
        dtype, count = DTYPES[self.dtypes[name]], math.prod(self.shapes[name])
        check_readable(self.path, name, count, dtype)
        try:
            self._file.seek(self._starts[name])
            data = self._file.read(count * dtype.itemsize)
        except OSError as error:
            raise WeightsError(f"{self.path}: {name} cannot be read: {error.strerror}") from error
        if len(data) != count * dtype.itemsize:
            raise WeightsError(f"{self.path}: {name} ends early; the file changed while it was read")
        values = np.frombuffer(data, dtype).reshape(self.shapes[name])
        return bf16_to_fp32(values) if self.dtypes[name] == "BF16" else values

    def heads(self):
        """The number of attention heads, which is an array of one number in the file."""
        if math.prod(self.shapes[HEADS_NAME]) != 1 or self.dtypes[HEADS_NAME] not in ("I8", "I16", "I32"):
            raise WeightsError(f"{self.path}: {HEADS_NAME} is not one whole number")
        return int(self.read(HEADS_NAME).reshape(-1)[0])

    def close(self):
        self._file.close()


NORM = {"gamma": "weight", "beta": "bias"}
LAYER = {
    **under(NORM, "self_attention/layer_norm/", "self_attn_layer_norm."),
    "self_attention/linear_0/weight": [(f"self_attn.{part}_proj.weight", f"third_{i}") for i, part in enumerate("qkv")],
    "self_attention/linear_0/bias": [  # Whisper's keys have no bias: that third is zero
        ("self_attn.q_proj.bias", "third_0"),
        ("self_attn.v_proj.bias", "third_2"),
    ],
    "self_attention/linear_1/weight": "self_attn.out_proj.weight",
    "self_attention/linear_1/bias": "self_attn.out_proj.bias",
    **under(NORM, "ffn/layer_norm/", "final_layer_norm."),
    **{f"ffn/linear_{i}/{kind}": f"fc{i + 1}.{kind}" for i in (0, 1) for kind in ("weight", "bias")},
}
ENCODER = NameMap(
    under(
        {
            **{f"conv{i}/{kind}": f"conv{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")},
            "position_encodings/encodings": "embed_positions.weight",
            **under(LAYER, "layer_{}/", "layers.{}."),
            **under(NORM, "layer_norm/", "layer_norm."),
        },
        "encoder/",
        "encoder.",
    )
)


def views(shapes):
    """{source: shape} -> ([{name in transformers: (source, Transform)}] of the encoder, unknown names).

    Returns None if the file is of another layout. Single numbers describe the network, and the text decoder is not
    used: both are left out.
    """
    if HEADS_NAME not in shapes:
        return None
    found, unknown = {}, []
    for source, shape in shapes.items():
        goals = ENCODER.targets(source)
        if goals:
            found |= {target: (source, transform) for target, transform in goals}
        elif shape and not source.startswith("decoder/"):
            unknown.append(source)
    return [found], sorted(unknown)
