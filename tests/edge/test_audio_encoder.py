"""The ear is OpenAI's, the head is a convolution, and both stay small."""

import numpy as np
import pytest
from mindspore import Tensor, nn

from sonic_ms.edge.audio_encoder import AudioEncoder
from sonic_ms.edge.heard import HEARD, AudioEncoderConfig
from sonic_ms.edge.units import EDGE_FOLDER, audio_config
from sonic_ms.files.weights import TensorFile, load_weights
from sonic_ms.nn.sizes import WhisperConfig
from sonic_ms.train.edge.ear import Ear, head_line, save_encoder, set_head, whisper_weights
from sonic_ms.train.edge.lines import apply

pytestmark = [pytest.mark.slow]

SMALL = AudioEncoderConfig(WhisperConfig(16, 1, 2, 32, 80, 40), 5, tuple(np.arange(8.0)), 0.0)
MOST_PARAMETERS, MOST_BYTES = 10e6, 20e6


@pytest.fixture(scope="module")
def small():
    encoder = AudioEncoder(SMALL).set_train(False)
    rng = np.random.default_rng(0)
    for parameter in encoder.get_parameters():
        parameter.set_data(Tensor(rng.normal(0, 0.2, parameter.shape).astype(np.float32)))
    return encoder


def test_the_head_is_the_line_with_repeated_ends(small):
    features = np.random.default_rng(1).normal(size=(1, 20, 16)).astype(np.float32)
    rows = small.articulate(Tensor(features)).asnumpy()[0].T
    assert rows.shape == (20, len(HEARD))
    np.testing.assert_allclose(rows, apply(head_line(small), features[0]), atol=1e-4)


def test_a_line_is_set_and_read_again(small):
    rng = np.random.default_rng(2)
    line = rng.normal(size=(5, 16, len(HEARD))).astype(np.float32), rng.normal(size=len(HEARD)).astype(np.float32)
    before = head_line(small)
    set_head(small, *line)
    for given, found in zip(line, head_line(small)):
        np.testing.assert_array_equal(given, found)
    set_head(small, *before)


def test_features_are_states_averaged_in_pairs(small):
    mel = np.random.default_rng(3).normal(size=(1, 80, 80)).astype(np.float32)
    states = small.whisper(Tensor(mel))[-1].asnumpy()[0]
    features = small.listen(Tensor(mel)).asnumpy()[0]
    np.testing.assert_allclose(features, (states[::2] + states[1::2]) / 2, atol=1e-5)


def test_stored_in_half_the_ear_in_full_the_head(small, tmp_path):
    save_encoder(small, SMALL, tmp_path)
    with TensorFile(tmp_path / "model.safetensors") as file:
        assert {name: dtype for name, dtype in file.dtypes.items() if not name.startswith("whisper.")} == {
            "head.weight": "F32", "head.bias": "F32",
        }  # fmt: skip
        assert {dtype for name, dtype in file.dtypes.items() if name.startswith("whisper.")} == {"F16"}
    assert "Copyright (c) 2022 OpenAI" in (tmp_path / "LICENSE.whisper").read_text()
    again = load_weights(AudioEncoder(SMALL).set_train(False), tmp_path)
    np.testing.assert_array_equal(again.head.weight.asnumpy(), small.head.weight.asnumpy())
    assert str(again.whisper.conv1.weight.dtype) == "Float32"


def test_the_shipped_ear_is_openais():
    with TensorFile(EDGE_FOLDER / "audio" / "model.safetensors") as file:
        stored = {name: file.read(name) for name in file.shapes if name.startswith("whisper.")}
    published = whisper_weights()
    assert {f"whisper.{name}" for name in published} == set(stored)
    for name, values in published.items():
        np.testing.assert_array_equal(values, stored[f"whisper.{name}"])


def test_the_shipped_model_is_small():
    encoder = AudioEncoder(audio_config())
    assert sum(parameter.size for parameter in encoder.get_parameters()) <= MOST_PARAMETERS
    assert sum(path.stat().st_size for path in EDGE_FOLDER.rglob("*") if path.is_file()) <= MOST_BYTES
    assert (EDGE_FOLDER / "audio" / "LICENSE.whisper").is_file()


def test_an_ear_hears_25_rows_a_second():
    encoder = load_weights(AudioEncoder(audio_config()).set_train(False), EDGE_FOLDER / "audio")
    assert isinstance(encoder, nn.Cell)
    assert Ear(encoder)(np.zeros(16000, np.float32)).shape == (25, 384)
