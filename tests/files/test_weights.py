"""Strict loading, atomic writing and the safetensors reader, against the safetensors package."""

import dataclasses
import json
import os

import mindspore as ms
import numpy as np
import pytest
import safetensors.numpy
import torch
from mindspore import nn

from sonic_ms.errors import InputMissingError, OutputError, WeightsError
from sonic_ms.files import digest, weights


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the test network."""

    width: int
    sides: tuple = (2, 3)


class Net(nn.Cell):
    """Two parameters of unlike shapes."""

    def __init__(self, config):
        super().__init__()
        self.one = nn.Dense(3, config.width)
        self.two = nn.Conv2d(1, 2, 3)


def arrays(width=4):
    rng = np.random.default_rng(0)
    shapes = {"one.weight": (width, 3), "one.bias": (width,), "two.weight": (2, 1, 3, 3)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def store(folder, tensors):
    safetensors.numpy.save_file(tensors, folder / weights.MODEL_FILE)
    return folder


def test_saved_model_loads_bit_for_bit(tmp_path):
    config = Config(5)
    net = Net(config)
    weights.save_model(net, config, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert weights.load_config(Config, tmp_path) == config
    again = weights.load_weights(Net(config), tmp_path)
    reference = safetensors.numpy.load_file(tmp_path / weights.MODEL_FILE)
    for name, parameter in net.parameters_and_names():
        assert np.array_equal(reference[name], parameter.asnumpy())
        assert np.array_equal(again.parameters_dict()[name].asnumpy(), parameter.asnumpy())


def test_every_problem_is_in_one_error(tmp_path):
    tensors = arrays()
    del tensors["one.bias"]
    tensors["three.weight"] = np.zeros(2, np.float32)
    tensors["two.weight"] = np.zeros((2, 1, 3, 5), np.float32)
    net = Net(Config(4))
    before = net.one.weight.asnumpy().copy()
    with pytest.raises(WeightsError) as caught:
        weights.load_weights(net, store(tmp_path, tensors))
    for part in ("missing: one.bias", "unknown: three.weight", "two.weight (2, 1, 3, 5) instead of (2, 1, 3, 3)"):
        assert part in str(caught.value)
    assert np.array_equal(net.one.weight.asnumpy(), before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    tensors = arrays()
    tensors["one.bias"][2] = value
    with pytest.raises(WeightsError, match=r"not finite: one\.bias"):
        weights.load_weights(Net(Config(4)), store(tmp_path, tensors))


def test_a_part_of_a_file_by_prefix(tmp_path):
    tensors = {"left." + name: array for name, array in arrays().items()} | {"right.x": np.zeros(1, np.float32)}
    net = weights.load_weights(Net(Config(4)), store(tmp_path, tensors), prefix="left.")
    assert np.array_equal(net.one.bias.asnumpy(), tensors["left.one.bias"])


def test_half_precision_files_are_widened_to_the_cell(tmp_path):
    tensors = {name: array.astype(np.float16) for name, array in arrays().items()}
    net = weights.load_weights(Net(Config(4)), store(tmp_path, tensors))
    assert net.one.weight.dtype == ms.float32
    assert np.array_equal(net.one.weight.asnumpy(), tensors["one.weight"].astype(np.float32))


def test_bf16_bits_are_torch_s():
    values = np.array([0, -0.0, 1, 1 + 2**-8, 1 + 3 * 2**-8, 3.3e38, 1e-40, np.inf, -np.inf, 65504], np.float32)
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    bits = weights.fp32_to_bf16(values)
    assert np.array_equal(bits, theirs.view(torch.int16).numpy().view(np.uint16))
    assert np.array_equal(weights.bf16_to_fp32(bits), theirs.float().numpy())
    assert np.isnan(weights.bf16_to_fp32(weights.fp32_to_bf16(np.array([np.nan], np.float32)))).all()


def test_a_weight_that_overflows_half_precision_is_refused():
    with pytest.raises(WeightsError, match="big: the value 70000 does not fit in fp16"):
        weights.cast("big", np.array([1, 70000], np.float32), "fp16")
    kept, name = weights.cast("count", np.array([70000]), "fp16")
    assert name == "I64" and kept[0] == 70000


def test_config_with_unknown_or_missing_keys_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"heigth": 3}))
    with pytest.raises(WeightsError, match="unknown keys heigth; known are width, sides"):
        weights.load_config(Config, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        weights.load_config(Config, tmp_path)
    with pytest.raises(InputMissingError):
        weights.load_config(Config, tmp_path / "nowhere")


def damage(path, kind):
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if kind == "short":
        return path.write_bytes(data[:-1])
    if kind == "long":
        return path.write_bytes(data + b"x")
    if kind == "header":
        data[9] = 0
        return path.write_bytes(data)
    if kind == "huge header":
        return path.write_bytes(b"\xff" * 8 + data[8:])
    if kind == "overlap":
        header["one.weight"]["data_offsets"] = [0, 48]
    if kind == "negative":
        header["one.bias"]["shape"] = [-4]
    if kind == "dtype":
        header["one.bias"]["dtype"] = "F7"
    if kind == "size":
        header["one.bias"]["shape"] = [10**12]
    text = json.dumps(header).encode()
    return path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


KINDS = ["short", "long", "header", "huge header", "overlap", "negative", "dtype", "size"]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused(tmp_path, kind):
    path = store(tmp_path, arrays()) / weights.MODEL_FILE
    with weights.TensorFile(path) as file:
        assert file.shapes["one.bias"] == (4,)
    damage(path, kind)
    with pytest.raises(WeightsError, match="safetensors"):
        weights.TensorFile(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputMissingError, match="nothing"):
        weights.TensorFile(tmp_path / "nothing")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.safetensors"
    array = np.arange(3, dtype=np.float32)
    weights.write_tensors(path, [("a", "F32", (3,), lambda: array)])
    with pytest.raises(WeightsError, match="announced"):
        weights.write_tensors(path, [("a", "F32", (4,), lambda: array)])
    with pytest.raises(WeightsError, match="two tensors"):
        weights.write_tensors(path, [("a", "F32", (3,), lambda: array)] * 2)
    assert [item.name for item in tmp_path.iterdir()] == ["out.safetensors"]
    assert np.array_equal(safetensors.numpy.load_file(path)["a"], array)


def test_bytes_that_change_on_the_way_to_the_disk_are_noticed(tmp_path, monkeypatch):
    read = weights.TensorFile.read_raw
    monkeypatch.setattr(weights.TensorFile, "read_raw", lambda self, name: read(self, name) + 1)
    with pytest.raises(OutputError, match="reads back different"):
        weights.write_tensors(tmp_path / "x", [("a", "F32", (3,), lambda: np.zeros(3, np.float32))])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*Not a directory"):
        weights.save_config(Config(1), tmp_path / "file" / "sub")


SOUND_ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
ODD_HEADERS = {
    "metadata": {"__metadata__": [1], "a": SOUND_ENTRY},
    "metadata of numbers": {"__metadata__": {"a": 1}, "a": SOUND_ENTRY},
    "no object": [],
    "entry": {"a": 5},
    "type": {"a": {"dtype": ["F32"], "shape": [], "data_offsets": [0, 4]}},
    "shape": {"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}},
    "side": {"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}},
    "truth": {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    "offsets": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [None, 4]}},
    "three offsets": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}},
    "empty and huge": {"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}},
    "empty and huge in sum": {"a": {"dtype": "F32", "shape": [0, 2**31 - 1, 2**31 - 1], "data_offsets": [0, 0]}},
    "axes": {"a": {"dtype": "F32", "shape": [1] * 40, "data_offsets": [0, 4]}},
    "name": {"a\n\x1b[31m": SOUND_ENTRY},
    "half a character": {"\ud800": SOUND_ENTRY},
    "long name": {"a" * 5000: SOUND_ENTRY},
    "fp8": {"a": {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]}},
}


@pytest.mark.parametrize("kind", ODD_HEADERS)
def test_odd_headers_end_in_one_line(tmp_path, kind):
    text = json.dumps(ODD_HEADERS[kind]).encode()
    data = bytes(0 if kind.startswith("empty") else 4)  # nothing else is wrong with the file
    (tmp_path / "file").write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(WeightsError) as caught:
        weights.TensorFile(tmp_path / "file")
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600
    assert ("8-bit floats (fp8)" in message) == (kind == "fp8")


def test_a_header_nested_too_deeply_is_refused(tmp_path):
    text = b"[" * 100_000
    (tmp_path / "file").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(WeightsError, match="nested too deeply"):
        weights.TensorFile(tmp_path / "file")


VALUES = [("width", value) for value in ("4", 4.0, True, None, -1, 10**30, [4])] + [("sides", 3), ("sides", {"a": 1})]


@pytest.mark.parametrize(("key", "value"), VALUES)
def test_a_config_with_a_value_of_another_type_is_refused(tmp_path, key, value):
    (tmp_path / "config.json").write_text(json.dumps({"width": 4, key: value}))
    with pytest.raises(WeightsError, match=rf"config\.json: {key} is .*; expected"):
        weights.load_config(Config, tmp_path)


@pytest.mark.parametrize(
    "text",
    ['{"a":' * 100_000, '{"width": 4, "sides": ' + "[" * 800 + "]" * 800 + "}", '{"a": "' + "x" * (2 << 20) + '"}'],
)
def test_a_config_that_is_too_deep_or_too_long_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"nested too deeply|more than \d+ bytes"):
        weights.load_config(Config, tmp_path)


def test_a_tensor_beyond_every_network_is_not_read(tmp_path):
    """A file of 8 GB that takes no room on the disk."""
    size = 8 << 30
    text = json.dumps({"a": {"dtype": "F32", "shape": [1024, size >> 12], "data_offsets": [0, size]}}).encode()
    (tmp_path / "file").write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(tmp_path / "file", 8 + len(text) + size)
    with weights.TensorFile(tmp_path / "file") as file, pytest.raises(WeightsError, match="a has 2147483648 elements"):
        file.read("a")


def test_the_digest_of_a_file_that_cannot_be_read_is_an_error_of_ours(tmp_path):
    with pytest.raises(InputMissingError, match=r"cannot open .*nowhere"):
        digest.sha256_of(tmp_path / "nowhere")
    with pytest.raises(InputMissingError, match="cannot open"):
        digest.sha256_of(tmp_path)


def test_a_list_of_names_stays_short_and_counts_the_rest():
    assert weights.summary([]) == "" and weights.summary(["a", "b"]) == "a, b"
    long = [f"{number:03}{'x' * 97}" for number in range(50)]
    text = weights.summary(long)
    assert text.startswith(f"{long[0]}, {long[1]}") and text.endswith(" and 47 more") and len(text) < 450
    assert weights.summary(["y" * 500, "z"]) == f"{'y' * 500} and 1 more"
