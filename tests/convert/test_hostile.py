"""Hostile checkpoints: nothing outside the file is read, memory stays below 1 GB, and the error is one of ours."""

import json
import os
import random
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import torch
from sonic_ms.convert.readers import flatten, open_checkpoint

from sonic_ms.errors import SonicError, WeightsError
from tests.support import hostile
from tests.support.fuzzing import mutated, mutated_json
from tests.support.hostile import (
    dictionary,
    integer,
    listed,
    sequence,
    tensor,
    text,
    torch_legacy,
    torch_zip,
    zip_member,
)

NEW_STATE = {
    "shape": dictionary(shape=sequence(integer(4096)), stride=sequence(integer(1))),
    "offset": dictionary(offset=integer(1 << 20)),
    "storage": dictionary(count=integer(1 << 20), key=text("1")),
    "slots": sequence(b"N", dictionary(shape=sequence(integer(4096)))),
}


def read_all(path):
    with open_checkpoint(path) as checkpoint:
        return {name: np.array(checkpoint.read(name)) for name in checkpoint.shapes}


@pytest.mark.parametrize("write", [torch_zip, torch_legacy])
@pytest.mark.parametrize("state", NEW_STATE)
def test_a_checked_tensor_cannot_be_rewritten(tmp_path, write, state):
    """BUILD gives an object new attributes: a shape that was checked became any other, and memory was read beyond."""
    with pytest.raises(WeightsError, match="damaged: state for a TensorEntry"):
        read_all(write(tmp_path / "file", dictionary(w=tensor() + NEW_STATE[state] + b"b")))


def test_a_checked_storage_cannot_be_rewritten(tmp_path):
    body = b"ctorch._utils\n_rebuild_tensor_v2\n" + sequence(
        hostile.storage() + dictionary(count=integer(4096)) + b"b",
        integer(0), sequence(integer(4096)), sequence(integer(1)), b"\x89", hostile.ORDERED + b")R",
    )  # fmt: skip
    with pytest.raises(WeightsError, match="damaged: state for a Storage"):
        read_all(torch_zip(tmp_path / "file", dictionary(w=body + b"R")))


SHORT = {
    # Inflates to four bytes, where the directory says 4000 both before and after.
    "deflated": zip_member(
        "archive/data/0",
        b"\x00\x00\x00\xff\xff" * 798 + b"\x01\x04\x00\xfb\xffabcd\x00",
        4000,
        4000,
        zlib.crc32(b"abcd"),
        8,
    ),
    "stored": zip_member("archive/data/0", bytes(400), size=4000, packed=4000),
    "of two sizes": zip_member("archive/data/0", bytes(400), size=4000, packed=400),
}


@pytest.mark.parametrize("kind", SHORT)
def test_a_storage_with_fewer_bytes_than_promised_is_refused(tmp_path, kind):
    members = [zip_member("archive/data.pkl", hostile.stream(dictionary(w=tensor(count=1000)))), SHORT[kind]]
    path = hostile.write_zip(tmp_path / "file", [*members, zip_member("archive/z", bytes(8000))])
    with pytest.raises(WeightsError, match=r"compressed|overlaps|not all there"):
        read_all(path)


def test_a_storage_that_reaches_into_its_neighbour_is_refused(tmp_path):
    """Its checksum is that of the foreign bytes, so only the place of the next member tells."""
    after = zip_member("archive/data/1", bytes(16))
    stolen = b"PK\x03\x04" + after[2] + struct.pack("<HH", len(after[0]), 0)
    member = zip_member("archive/data/0", b"", size=16, packed=16, crc=zlib.crc32(stolen[:16]))
    body = dictionary(w=tensor(), v=tensor("1"))
    path = hostile.write_zip(tmp_path / "file", [zip_member("archive/data.pkl", hostile.stream(body)), member, after])
    with pytest.raises(WeightsError, match="not all there"):
        read_all(path)


ODD_MEMBERS = {
    "encrypted": (zip_member("archive/data/0", bytes(16), flags=1), "encrypted"),
    "of an unknown method": (zip_member("archive/data/0", bytes(16), method=99), "compressed"),
    "twice": (zip_member("archive/data.pkl", hostile.stream(b"}")), "two entries"),
    "of another root": (zip_member("other/data.pkl", hostile.stream(b"}")), "without data.pkl"),
    "big-endian": (zip_member("archive/byteorder", b"big"), "big-endian"),
    "long": (zip_member("archive/byteorder", bytes(1000)), "announces 1000 bytes"),
}


@pytest.mark.parametrize("kind", ODD_MEMBERS)
def test_odd_members_are_refused(tmp_path, kind):
    member, message = ODD_MEMBERS[kind]
    storages = {} if member[0] == b"archive/data/0" else None
    with pytest.raises(WeightsError, match=message):
        read_all(torch_zip(tmp_path / "file", dictionary(w=tensor()), storages, [member]))


def test_a_pickle_under_another_name_is_no_checkpoint(tmp_path):
    hostile.write_zip(tmp_path / "file", [zip_member("archive/mydata.pkl", hostile.stream(dictionary(w=tensor())))])
    with pytest.raises(WeightsError, match=r"without data\.pkl"):
        open_checkpoint(tmp_path / "file")


def test_lists_of_lists_keep_every_tensor(tmp_path):
    """Their places were remembered by the ids of objects that no longer lived: 30 of 50 tensors were found."""
    values = {"a": [[torch.full((1,), float(number))] for number in range(50)], "b": ([torch.ones(1)], [torch.ones(2)])}
    torch.save(values, tmp_path / "file")
    found = read_all(tmp_path / "file")
    assert set(found) == {f"a.{number}.0" for number in range(50)} | {"b.0.0", "b.1.0"}
    assert all(found[f"a.{number}.0"] == number for number in range(50))


def test_a_container_under_two_names_is_there_twice(tmp_path):
    inner = {"x": torch.ones(1), "nothing": []}
    torch.save({"one": inner, "two": inner}, tmp_path / "file")
    assert set(read_all(tmp_path / "file")) == {"one.x", "two.x"}


def doubled(leaf, times=40):
    for _ in range(times):
        leaf = (leaf, leaf)
    return leaf


def test_doubled_tuples_end(tmp_path):
    """Forty tuples that hold the one before twice have 2**40 places; with a tensor in them they are refused."""
    entry = open_checkpoint(torch_zip(tmp_path / "file", dictionary(w=tensor())))._tensors["w"]
    started = time.perf_counter()
    assert list(flatten({"w": entry, "x": doubled(())}, "file")) == ["w"]
    with pytest.raises(WeightsError, match=r"more than \d+"):
        flatten({"w": entry, "x": doubled(entry)}, "file")
    assert time.perf_counter() - started < 20


def test_two_tensors_of_one_name_are_refused(tmp_path):
    """`a.b` beside `b` in `a`: one of them was lost."""
    path = torch_zip(tmp_path / "file", b"}(" + text("a.b") + tensor() + text("a") + dictionary(b=tensor("1")) + b"u",
                     {"0": bytes(16), "1": bytes(16)})  # fmt: skip
    with pytest.raises(WeightsError, match=r"two tensors are called a\.b"):
        open_checkpoint(path)


LEGACY = {
    "two kinds of one storage": (
        dictionary(a=tensor(), b=tensor().replace(b"FloatStorage", b"DoubleStorage")), ("0",), ((4, bytes(32)),)
    ),
    "a storage listed twice": (dictionary(a=tensor()), ("0", "0"), ((4, bytes(16)), (4, bytes(16)))),
    "a storage that nothing needs": (dictionary(a=tensor()), ("0", "9"), ((4, bytes(16)), (4, bytes(16)))),
    "another count": (dictionary(a=tensor()), ("0",), ((5, bytes(20)),)),
    "no count": (dictionary(a=tensor()), ("0",), ()),
}  # fmt: skip


@pytest.mark.parametrize("case", LEGACY)
def test_legacy_storages_are_each_there_once(tmp_path, case):
    with pytest.raises(WeightsError, match=r"announced|announces|elements|ends early"):
        read_all(torch_legacy(tmp_path / "file", *LEGACY[case]))


def test_steps_of_axes_of_one_element_say_nothing(tmp_path):
    """torch writes any number there, and a large one must not overflow numpy's strides."""
    path = torch_zip(tmp_path / "file", dictionary(w=tensor(shape=(1, 4), stride=(1 << 62, 1))))
    assert read_all(path)["w"].shape == (1, 4)


def test_protocols_of_pickle(tmp_path):
    """torch.save takes any protocol, and each has opcodes of its own."""
    for protocol in (2, 3, 4, 5):
        state = {"a": torch.arange(6.0).reshape(2, 3), "meta": {"epoch": 3, "name": "é", "big": 2**100, "loss": [0.5]}}
        torch.save(state, tmp_path / "file", pickle_protocol=protocol)
        assert np.array_equal(read_all(tmp_path / "file")["a"], state["a"].numpy())


# Files that cost memory or time out of all proportion. Every one is opened and read in a process of its own.
def bombs(folder):
    ok = tensor()
    memo = text("x") + b"r" + struct.pack("<I", 180_000_000) + b"0"
    big = hostile.integer(1 << 8000)
    packed = hostile.zeros_deflated(1500)
    plain = zip_member("archive/data.pkl", hostile.stream(dictionary(w=ok)))
    data = zip_member("archive/data/0", bytes(16))

    def inflating(name, announced):
        return zip_member(name, packed, announced, len(packed), 0, 8)

    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + b"x"
    pairs = listed(*[sequence(integer(number), b"N") for number in range(20_000)])
    deep = {f"nested {opening}": opening * 100_000 for opening in ("[", '{"a":')}
    tensor_json = '{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,0]}}'
    written = {
        "memo index": torch_zip(folder / "memo", memo + dictionary(w=ok)),
        "memo index, legacy": torch_legacy(folder / "memo.pkl", memo + dictionary(w=ok)),
        "byte order that inflates": hostile.write_zip(
            folder / "order", [plain, data, inflating("archive/byteorder", 1500 << 20)]
        ),
        "pickle that inflates beyond its size": hostile.write_zip(
            folder / "pickle", [inflating("archive/data.pkl", 1000), data]
        ),
        "product of long integers": torch_zip(
            folder / "product",
            big + b"q\x090" + b"ctorch._utils\n_rebuild_tensor_v2\n"
            + sequence(hostile.storage(), integer(0), *[listed(b"h\x09" * 30_000)] * 2) + b"R",
        ),
        "dictionaries, zip": torch_zip(folder / "many", dictionary(w=ok, x=listed(b"}" * 30_000_000))),
        "dictionaries, legacy": torch_legacy(folder / "many.pkl", dictionary(w=ok, x=listed(b"}" * 60_000_000))),
        "sets": torch_legacy(folder / "sets.pkl", dictionary(w=ok, x=listed(b"\x8f" * 12_000_000))),
        "copies of a list": torch_zip(
            folder / "copies",
            pairs + b"q\x010" + dictionary(w=ok, x=listed(*[hostile.ORDERED + b"h\x01\x85R"] * 3000)),
        ),
        "long names": torch_zip(
            folder / "names", ok + b"q\x010" + dictionary(**{"n" * (1 << 20): listed(*[b"h\x01"] * 3000)})
        ),
        "zip directory": hostile.write_zip(folder / "directory", [plain, data], entry * 1_000_000),
        "zip directory of 8 MB": hostile.write_zip(folder / "8", [plain, data], entry * 178_000),
        "long header": hostile.safetensors(folder / "header", '{"a":[' + "[]," * 20_000_000 + "0]}"),
        "long integers": hostile.safetensors(folder / "integers", tensor_json % ",".join(["9" * 4300] * 12_000)),
        "many axes": hostile.safetensors(folder / "axes", tensor_json % ",".join(["9" * 4000] * 1800)),
        **{name: hostile.safetensors(folder / f"deep{len(name)}", value) for name, value in deep.items()},
    }  # fmt: skip
    sparse = folder / "sparse"
    size = 8 << 30
    hostile.safetensors(
        sparse, json.dumps({"a": {"dtype": "F32", "shape": [1024, size >> 12], "data_offsets": [0, size]}})
    )
    os.truncate(sparse, sparse.stat().st_size + size)
    return {**written, "tensor of 8 GB in a sparse file": sparse}


PROBE = """
import json, signal, sys, time
from sonic_ms.convert.readers import open_checkpoint
from sonic_ms.errors import SonicError
def memory(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) * 1024
for name, path in json.load(sys.stdin).items():
    open("/proc/self/clear_refs", "w").write("5")
    before, started = memory("VmRSS"), time.time()
    try:
        with open_checkpoint(path) as file:
            for tensor in file.shapes:
                file.read(tensor)
        outcome = "read"
    except SonicError as error:
        outcome = str(error)
    except Exception as error:
        outcome = f"fault {error!r}"[:200]
    print(json.dumps([name, outcome, memory("VmHWM") - before, time.time() - started]), flush=True)
"""
BOMBS = (
    "memo index", "memo index, legacy", "byte order that inflates", "pickle that inflates beyond its size",
    "product of long integers", "dictionaries, zip", "dictionaries, legacy", "sets", "copies of a list", "long names",
    "zip directory", "zip directory of 8 MB", "long header", "long integers", "many axes", "nested [", 'nested {"a":',
    "tensor of 8 GB in a sparse file",
)  # fmt: skip


@pytest.fixture(scope="module")
def cost(tmp_path_factory):
    """{bomb: (outcome, bytes above the idle process, seconds)}."""
    files = {name: str(path) for name, path in bombs(tmp_path_factory.mktemp("bombs")).items()}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(files),
        text=True,
        stdout=subprocess.PIPE,
        timeout=300,
        check=True,
    )
    for path in files.values():
        os.unlink(path)
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_less_than_the_budget(cost, name):
    outcome, memory, seconds = cost[name]
    assert memory < 1e9 and seconds < 20, (outcome, memory, seconds)
    if not name.startswith("memo index"):  # a memo of one entry is no bomb here
        assert outcome != "read" and not outcome.startswith("fault") and "\n" not in outcome and len(outcome) < 500
    if not name.startswith(("memo index", "nested", "byte order", "pickle that", "zip directory of")):
        assert any(character.isdigit() for character in outcome.split(": ", 1)[1]), outcome  # the number is named


# A fuzzer of a few seconds: seeded, so that what fails once fails again.
SOUND = {
    "a.weight": np.arange(12, dtype="<f4").reshape(3, 4),
    "b.bias": np.arange(4, dtype="<f4"),
    "c": np.zeros((2, 0), "<f4"),
}


def sound_file(kind, folder):
    path = folder / "sound"
    if kind == "ctranslate2":
        from tests.convert.test_layouts import write_ctranslate2

        arrays = {"encoder/num_heads": np.array(4, "<i2"), "encoder/conv1/weight": np.ones((4, 8, 3), "<f4"),
                  "encoder/conv1/bias": np.ones(4, "<f4"), "x": np.ones((2, 2), "<f2")}  # fmt: skip
        return write_ctranslate2(path, arrays).read_bytes()
    if kind.startswith("safetensors"):
        import safetensors.numpy

        safetensors.numpy.save_file(SOUND, path)
    else:
        torch.save({name: torch.from_numpy(array) for name, array in SOUND.items()}, path,
                   _use_new_zipfile_serialization=kind != "legacy")  # fmt: skip
    return path.read_bytes()


def mutant(kind, data, rng, folder):
    if kind == "safetensors header":
        length = int.from_bytes(data[:8], "little")
        value = json.loads(data[8 : 8 + length])
        for _ in range(rng.choice((1, 1, 3))):
            value = mutated_json(value, rng)
        header = json.dumps(value).encode()
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    if kind == "pickle":  # in an archive that is sound otherwise
        body = dictionary(
            **{"a": tensor(), "b": listed(tensor("1", shape=(2, 2), stride=(2, 1)), hostile.ORDERED + b")R")}
        )
        return torch_zip(folder / "archive", mutated(body, rng), {"0": bytes(16), "1": bytes(16)}).read_bytes()
    start = 10 if kind == "ctranslate2" else 0
    return data[:start] + mutated(data[start:], rng)


FUZZED = ("zip", "legacy", "pickle", "safetensors", "safetensors header", "ctranslate2")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUZZED)
def test_no_mutation_ends_in_another_error(tmp_path, kind):
    data, outcomes = sound_file(kind, tmp_path), {"read": 0, "refused": 0}
    path = tmp_path / "case"
    for number in range(600):
        path.write_bytes(mutant(kind, data, random.Random(f"{kind} {number}"), tmp_path))
        try:
            read_all(path)
            outcomes["read"] += 1
        except SonicError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, number
            outcomes["refused"] += 1
        except Exception as error:
            pytest.fail(f"mutation {number}: {error!r}")
    assert outcomes["read"] and outcomes["refused"] > 100, outcomes
