"""Published weights that may be redistributed, fetched through the pinned assets: RIFE v3.8 and Whisper tiny.en."""

import mindspore as ms
import numpy as np
import pytest
import torch
from sonic_ms.convert import checkpoints
from sonic_ms.convert.readers import open_checkpoint
from transformers import WhisperConfig, WhisperModel

from sonic_ms.base.rife import RIFE
from sonic_ms.files.assets import fetch
from sonic_ms.files.shipped import DEMO_AUDIO
from sonic_ms.files.weights import load_weights
from sonic_ms.media.audio import load_audio, log_mel

pytestmark = [pytest.mark.slow]


def converted(asset, build, folder):
    """The Cell of a fetched checkpoint, through the real converter and the strict loader."""
    (job,), _ = checkpoints.plan(fetch(asset))
    checkpoints.convert([job], folder)
    return load_weights(build(job).set_train(False), folder / job.family.name), job.config


def psnr(ours, theirs):
    return 10 * np.log10(1 / np.mean((ours.astype(np.float64) - theirs) ** 2))


@pytest.fixture(scope="module")
def rife(tmp_path_factory):
    return converted("rife_v3.8_flownet.pkl", lambda job: RIFE(job.config, 256, 256), tmp_path_factory.mktemp("rife"))


@pytest.mark.parametrize("shift", [6, -6])
def test_rife_finds_the_frame_between_two_shifted_photos(rife, astronaut, shift):
    """A photo that moves by 6 pixels each way: the middle is the photo itself. An average of the two gives 18 dB."""
    cell, config = rife
    assert config.c == 90 and config.scale_list == (4, 2, 1)
    photo = astronaut.astype(np.float32).transpose(2, 0, 1) / 255

    def part(dx):
        return np.ascontiguousarray(photo[None, :, 20:276, 100 + dx : 356 + dx])

    first, second, truth = part(-shift), part(shift), part(0)
    _, _, middle = cell(ms.Tensor(first), ms.Tensor(second))
    found = psnr(middle.asnumpy(), truth)
    assert found >= 44, found
    assert psnr((first + second) / 2, truth) < 20


def transformers_names(path):
    """State dict of Whisper's encoder in transformers' names from a CTranslate2 file, written against the format."""
    with open_checkpoint(path) as file:
        read = lambda name: torch.from_numpy(file.read(name).astype(np.float32))  # noqa: E731
        state = {}
        for part in ("conv1", "conv2"):
            state |= {f"{part}.{kind}": read(f"encoder/{part}/{kind}") for kind in ("weight", "bias")}
        state["embed_positions.weight"] = read("encoder/position_encodings/encodings")
        norms = {"layer_norm": "encoder/layer_norm"}
        for layer in range(4):
            ours, theirs = f"layers.{layer}", f"encoder/layer_{layer}"
            norms[f"{ours}.self_attn_layer_norm"] = f"{theirs}/self_attention/layer_norm"
            norms[f"{ours}.final_layer_norm"] = f"{theirs}/ffn/layer_norm"
            weights = read(f"{theirs}/self_attention/linear_0/weight").chunk(3)
            biases = read(f"{theirs}/self_attention/linear_0/bias").chunk(3)
            for part, weight, bias in zip("qkv", weights, biases):
                state[f"{ours}.self_attn.{part}_proj.weight"] = weight
                if part == "k":
                    assert not bias.any()
                else:
                    state[f"{ours}.self_attn.{part}_proj.bias"] = bias
            for name, place in (("self_attn.out_proj", "self_attention/linear_1"), ("fc1", "ffn/linear_0"),
                                ("fc2", "ffn/linear_1")):  # fmt: skip
                state |= {f"{ours}.{name}.{kind}": read(f"{theirs}/{place}/{kind}") for kind in ("weight", "bias")}
        for name, place in norms.items():
            state |= {f"{name}.weight": read(f"{place}/gamma"), f"{name}.bias": read(f"{place}/beta")}
    return state


def test_whisper_hears_what_transformers_hears(tmp_path):
    cell, config = converted("whisper_tiny_en.bin", lambda job: job.family.cell(job.config), tmp_path)
    assert (config.d_model, config.encoder_layers, config.encoder_attention_heads) == (384, 4, 6)
    theirs = WhisperModel(
        WhisperConfig(
            d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, decoder_layers=1,
            decoder_attention_heads=6, decoder_ffn_dim=16, vocab_size=51864,
        )
    ).encoder.eval()  # fmt: skip
    theirs.load_state_dict(transformers_names(fetch("whisper_tiny_en.bin")), strict=True)
    mel = log_mel(load_audio(str(DEMO_AUDIO))[: 30 * 16000], pad_to=30 * 16000)[None]
    with torch.no_grad():
        expected = torch.stack(theirs(torch.from_numpy(mel), output_hidden_states=True).hidden_states, 2).numpy()
    states = cell(ms.Tensor(mel)).asnumpy()
    assert states.shape == expected.shape == (1, 1500, 5, 384)
    error = np.linalg.norm(states - expected) / np.linalg.norm(expected)
    assert error <= 1e-5, error
    for index in range(5):
        layer = np.linalg.norm(states[:, :, index] - expected[:, :, index]) / np.linalg.norm(expected[:, :, index])
        assert layer <= 1e-4, (index, layer)
