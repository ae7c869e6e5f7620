"""Whisper-tiny.en's first layers as they come, and an audio encoder as it is stored."""

import shutil

import mindspore as ms
import numpy as np

from sonic_ms.convert.ctranslate2 import ENCODER, CTranslate2Checkpoint
from sonic_ms.convert.maps import WHISPER, NameMap
from sonic_ms.edge.audio_encoder import AudioEncoder
from sonic_ms.edge.audio_features import MEL_PER_FRAME, WINDOW, hear
from sonic_ms.edge.heard import PERCENTILES, AudioEncoderConfig
from sonic_ms.edge.units import EDGE_FOLDER
from sonic_ms.errors import OutputError
from sonic_ms.files import assets
from sonic_ms.files.weights import MODEL_FILE, numpy_name, save_config, write_tensors
from sonic_ms.nn.sizes import WhisperConfig

ASSET = "whisper_tiny_en.bin"
LICENCE = "LICENSE.whisper"  # goes wherever these weights go
EAR = WhisperConfig(384, 2, 6, 1536, max_source_positions=MEL_PER_FRAME * WINDOW // 2)  # two of four layers, 8 s
TAPS = 5  # frames that a row is computed from
UNTRAINED = AudioEncoderConfig(EAR, TAPS, tuple(float(value) for value in range(len(PERCENTILES))), 0.0)


def whisper_weights(config=EAR):
    """{parameter of WhisperLayers: float16 array}: the first layers and positions of OpenAI's weights."""
    names, found = NameMap(WHISPER), {}
    with CTranslate2Checkpoint(assets.fetch(ASSET)) as file:
        for source in file.shapes:
            for name, first in ENCODER.targets(source) or ():
                for target, second in names.targets(name) or ():
                    number = target.split(".")[1] if target.startswith("layers.") else "0"
                    if int(number) < config.encoder_layers and not target.startswith("layer_norm."):
                        found[target] = second.apply(first.apply(file.read(source))).astype(np.float16)
    found["position_embedding"] = found["position_embedding"][: config.max_source_positions]
    return found


def untrained():
    """AudioEncoder with Whisper's weights, as they are stored, and a head of zeros."""
    encoder = AudioEncoder(UNTRAINED).set_train(False)
    weights = {f"whisper.{name}": value for name, value in whisper_weights().items()}
    for name, parameter in encoder.parameters_and_names():
        values = weights.pop(name) if name.startswith("whisper.") else np.zeros(parameter.shape)
        parameter.set_data(ms.Tensor(np.ascontiguousarray(values, np.float32).reshape(parameter.shape)))
    assert not weights
    return encoder


def head_line(encoder):
    """The head of an AudioEncoder as `set_head` takes it."""
    weight = encoder.head.weight.asnumpy().astype(np.float64)[:, :, 0, :]  # (rows, c, taps)
    return weight.transpose(2, 1, 0), encoder.head.bias.asnumpy().astype(np.float64)


class Ear:
    """Function of samples -> features (frame_count, 384) as the head of an AudioEncoder sees them."""

    def __init__(self, encoder=None):
        encoder = untrained() if encoder is None else encoder
        self._listen = Listener(encoder).set_train(False)

    def __call__(self, samples):
        return hear(lambda mel: self._listen(ms.Tensor(mel)).asnumpy().transpose(0, 2, 1), samples)


class Listener(ms.nn.Cell):
    """The part of an AudioEncoder below its head."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def construct(self, mel):
        return self.encoder.listen(mel)


def save_encoder(encoder, config, folder):
    """Write an AudioEncoder as a folder: the ear in half precision, as OpenAI published it, the head in single."""
    entries = []
    for name, parameter in encoder.parameters_and_names():
        values = parameter.asnumpy()
        values = values.astype(np.float16 if name.startswith("whisper.") else np.float32)
        entries.append((name, numpy_name(values.dtype), values.shape, lambda values=values: values))
    save_config(config, folder)
    write_tensors(folder / MODEL_FILE, entries, {"format": "mindspore", "config": type(config).__name__})
    try:
        shutil.copyfile(EDGE_FOLDER / "audio" / LICENCE, folder / LICENCE)
    except OSError as error:
        raise OutputError(f"cannot write {folder / LICENCE}: {error.strerror}") from error


def set_head(encoder, weight, bias):
    """Give an AudioEncoder the straight line features (n, c) -> rows: weight (taps, c, rows), bias (rows,)."""
    values = np.ascontiguousarray(weight.transpose(2, 1, 0)[:, :, None, :], np.float32)  # (rows, c, 1, taps)
    encoder.head.weight.set_data(ms.Tensor(values))
    encoder.head.bias.set_data(ms.Tensor(np.ascontiguousarray(bias, np.float32)))
