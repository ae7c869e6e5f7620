"""Readers of checkpoints: the same numbers as torch, and nothing in a file is ever run."""

import collections
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from sonic_ms.convert.readers import open_checkpoint

from sonic_ms.errors import InputMissingError, WeightsError

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)


def state():
    """A state dict with every dtype, a scalar, an empty tensor, shared and transposed storage, nested containers."""
    generator = torch.Generator().manual_seed(0)
    tensors = collections.OrderedDict()
    for dtype in DTYPES:
        tensors[f"of.{dtype}"] = (torch.randn((3, 4), generator=generator) * 3).to(dtype)
    whole = torch.randn((4, 5), generator=generator)
    tensors.update(scalar=torch.tensor(7), empty=torch.zeros(0, 3), whole=whole, part=whole[1:3, 2:], turned=whole.T)
    tensors["parameter"] = torch.nn.Parameter(whole * 2)
    return tensors


def save(tensors, path, kind):
    if kind == "safetensors":
        tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_container_gives_torch_s_numbers(tmp_path, kind):
    tensors = state()
    with open_checkpoint(save(tensors, tmp_path / "file", kind)) as checkpoint:
        assert set(checkpoint.shapes) == set(tensors)
        for name, theirs in tensors.items():
            ours = checkpoint.read(name)
            theirs = theirs.detach()
            theirs = theirs.float() if theirs.dtype == torch.bfloat16 else theirs
            assert ours.shape == tuple(theirs.shape) == checkpoint.shapes[name], name
            assert ours.dtype == theirs.numpy().dtype and np.array_equal(ours, theirs.numpy()), name


def test_nested_containers_are_flattened(tmp_path):
    nested = {"epoch": 3, "state_dict": {"a": torch.ones(2)}, "list": [torch.zeros(1), "text"]}
    with open_checkpoint(save(nested, tmp_path / "file", "zip")) as checkpoint:
        assert set(checkpoint.shapes) == {"state_dict.a", "list.0"}


class Scripted(torch.nn.Module):
    """A module with parameters, buffers and children, as TorchScript stores them."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
        self.register_buffer("grid", torch.arange(6.0).reshape(2, 3))
        self.sizes = [1, 2, 3]

    def forward(self, x):
        return self.inner(x) + self.grid.sum() + self.sizes[0]


def test_torchscript_archive(tmp_path):
    module = Scripted().eval()
    torch.jit.script(module).save(str(tmp_path / "file"))
    with open_checkpoint(tmp_path / "file") as checkpoint:
        assert set(checkpoint.shapes) == set(module.state_dict())
        for name, theirs in module.state_dict().items():
            assert np.array_equal(checkpoint.read(name), theirs.numpy()), name


class Bomb:
    """Its pickle asks for os.system."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


class Setter:
    """Its pickle sets attributes on a function that is allowed."""

    def __reduce__(self):
        return collections.OrderedDict, (), None, None, iter([("x", Bomb())])


def pickles(payload, protocol=2):
    return pickle.dumps(payload, protocol=protocol)


def malicious_zip(path, data, script=False):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        if script:
            archive.writestr("archive/constants.pkl", pickles(()))
    return path


def malicious_legacy(path, data):
    header = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    path.write_bytes(b"".join(pickles(part) for part in header) + data + pickles([]))
    return path


@pytest.mark.parametrize("container", ["zip", "script", "legacy", "bare"])
@pytest.mark.parametrize("payload", [Bomb(), {"a": [Bomb()]}, Setter()], ids=["plain", "nested", "in a dict"])
def test_malicious_pickles_are_refused_by_name_and_not_run(tmp_path, monkeypatch, container, payload):
    monkeypatch.chdir(tmp_path)
    path, data = tmp_path / "file", pickles(payload)
    if container == "legacy":
        malicious_legacy(path, data)
    elif container == "bare":
        path.write_bytes(data)
    else:
        malicious_zip(path, data, script=container == "script")
    with pytest.raises(WeightsError, match=r"refused (posix|os)\.system"):
        open_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


NAMES = ["builtins eval", "builtins getattr", "torch load", "torch._utils _rebuild_sparse_tensor", "numpy ndarray"]


@pytest.mark.parametrize("name", NAMES)
def test_other_names_are_refused(tmp_path, name):
    module, attribute = name.split()
    data = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"."
    with pytest.raises(WeightsError, match=rf"refused {module}\.{attribute}"):
        open_checkpoint(malicious_zip(tmp_path / "file", data))


@pytest.mark.parametrize("opcodes", [b"}X\x01\x00\x00\x00aK\x01sb.", b"N}X\x01\x00\x00\x00aK\x01s\x86b."])
def test_allowed_functions_cannot_be_changed(tmp_path, opcodes):
    """BUILD on a function would set its attributes."""
    data = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + opcodes
    with pytest.raises(WeightsError, match="damaged"):
        open_checkpoint(malicious_zip(tmp_path / "file", data))


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"\x80\x02(((((", b"\x80\x02h\xff.", b"\x80\x05\x8d" + b"\xff" * 8])
def test_broken_pickles_are_named(tmp_path, data):
    with pytest.raises(WeightsError, match="damaged"):
        open_checkpoint(malicious_zip(tmp_path / "file", data))


def tensor_pickle(shape, stride, count, offset=0, kind="FloatStorage"):
    """Opcodes of {'a': tensor} as torch writes them, with any sizes."""

    def integer(number):
        return b"\x8a" + bytes([10]) + number.to_bytes(10, "little", signed=True)

    def tuple_of(numbers):
        return b"(" + b"".join(integer(number) for number in numbers) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\n" + kind.encode() + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage += integer(count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(offset) + tuple_of(shape) + tuple_of(stride)
    return b"\x80\x02}X\x01\x00\x00\x00a" + tensor + b"\x89}tRs."


def zip_with(path, data, storage=b"\0" * 48):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", storage)
    return path


def test_a_sound_handmade_tensor_is_read(tmp_path):
    storage = np.arange(12, dtype=np.float32).tobytes()
    with open_checkpoint(zip_with(tmp_path / "file", tensor_pickle((2, 3), (6, 1), 12, 1), storage)) as checkpoint:
        assert checkpoint.read("a").tolist() == [[1, 2, 3], [7, 8, 9]]


ABSURD = {
    "repeated": ((1000, 1000), (0, 0), 12),
    "outside": ((2, 6), (7, 1), 12),
    "negative": ((-2, -3), (3, 1), 12),
    "negative stride": ((2, 3), (-3, 1), 12),
    "huge": ((2**62, 4), (4, 1), 12),
    "strides of another rank": ((2, 3), (1,), 12),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_sizes_are_refused(tmp_path, case):
    with pytest.raises(WeightsError, match="damaged"):
        open_checkpoint(zip_with(tmp_path / "file", tensor_pickle(*ABSURD[case])))


def test_a_storage_of_another_size_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="needs 48 bytes, storage 0 has 44"):
        open_checkpoint(zip_with(tmp_path / "file", tensor_pickle((2, 3), (3, 1), 12), b"\0" * 44))
    with pytest.raises(WeightsError, match="needs 96 bytes, storage 0 has 48"):
        open_checkpoint(zip_with(tmp_path / "file", tensor_pickle((2, 3), (3, 1), 12, 0, "DoubleStorage")))


def test_a_missing_storage_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="data of a is missing"):
        open_checkpoint(malicious_zip(tmp_path / "file", tensor_pickle((2, 3), (3, 1), 12)))


def test_an_unknown_storage_type_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"refused torch\.QInt8Storage"):
        open_checkpoint(zip_with(tmp_path / "file", tensor_pickle((2, 3), (3, 1), 12, 0, "QInt8Storage")))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("keep", [0.3, 0.97])
def test_truncated_files_are_refused(tmp_path, kind, keep):
    path = save({"a": torch.randn(200, 30)}, tmp_path / "file", kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(WeightsError):
        open_checkpoint(path)


def test_a_flipped_bit_in_a_zip_is_noticed_when_the_tensor_is_read(tmp_path):
    path = save({"a": torch.zeros(500)}, tmp_path / "file", "zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = next(info for info in archive.infolist() if "/data/" in info.filename)
    data[entry.header_offset + 600] ^= 1
    path.write_bytes(data)
    with open_checkpoint(path) as checkpoint, pytest.raises(WeightsError, match="damaged"):
        checkpoint.read("a")


def test_compressed_storages_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle((10**6,), (1,), 10**6))
        archive.writestr("archive/data/0", b"\0" * 4 * 10**6)
    with pytest.raises(WeightsError, match="compressed"):
        open_checkpoint(tmp_path / "file")


def test_storages_that_share_bytes_are_refused(tmp_path):
    """Two directory entries that point at the same data, as in a zip bomb."""
    path = zip_with(tmp_path / "file", tensor_pickle((2, 3), (3, 1), 12))
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    directory = data[start:end]
    last = directory[directory.rindex(b"PK\x01\x02") :].replace(b"archive/data/0", b"archive/data/1")
    closing = bytearray(data[end:])
    count = struct.unpack_from("<H", closing, 10)[0] + 1
    struct.pack_into("<HHL", closing, 8, count, count, len(directory) + len(last))
    path.write_bytes(data[:start] + directory + last + closing)
    with pytest.raises(WeightsError, match="overlap"):
        open_checkpoint(path)


def test_a_zip_of_something_else_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"without data\.pkl"):
        open_checkpoint(tmp_path / "file")


def test_big_endian_files_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle((2, 3), (3, 1), 12))
        archive.writestr("archive/byteorder", "big")
        archive.writestr("archive/data/0", b"\0" * 48)
    with pytest.raises(WeightsError, match="big-endian"):
        open_checkpoint(tmp_path / "file")


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / "text").write_text("hello, this is no checkpoint")
    with pytest.raises(WeightsError, match="is no checkpoint"):
        open_checkpoint(tmp_path / "text")
    (tmp_path / "pickle").write_bytes(pickles({"a": 1}) * 3)
    with pytest.raises(WeightsError, match="not a torch checkpoint"):
        open_checkpoint(tmp_path / "pickle")
    with pytest.raises(WeightsError, match="holds no tensors"):
        open_checkpoint(malicious_zip(tmp_path / "none", pickles({"a": 1})))
    with pytest.raises(InputMissingError, match="nowhere"):
        open_checkpoint(tmp_path / "nowhere")


def test_a_pickle_that_contains_itself_ends(tmp_path):
    loop = {"a": torch.ones(1)}
    loop["again"] = loop
    with open_checkpoint(save(loop, tmp_path / "file", "zip")) as checkpoint:
        assert set(checkpoint.shapes) == {"a"}


def test_deep_nesting_is_named(tmp_path):
    data = b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b"."
    with pytest.raises(WeightsError, match=r"nested too deeply|damaged"):
        open_checkpoint(malicious_zip(tmp_path / "file", data))
