"""Every network against torch, at sizes of its own: through the real converter, strict loading, graph mode.

H, W, frames, heads and channels are all unequal, so that swapped axes cannot pass. Each network also shows that its
test can fail: one weight changed, and the outputs differ by far more than the tolerance.
"""

import json

import mindspore as ms
import numpy as np
import pytest
import torch
from sonic_ms.convert import checkpoints
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, WhisperModel
from transformers import WhisperConfig as TheirWhisperConfig

from sonic_ms.base import boxes
from sonic_ms.files.weights import load_config, load_weights
from sonic_ms.nn.host import frame_sinusoids, mask_tokens, time_sinusoids
from tests.support.torch_reference import SonicUNet, random_state, rife, tiny_vae, yoloface

pytestmark = [pytest.mark.slow]

RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.standard_normal(shape, np.float32)


def convert(tmp_path, state, hints=None, build=None):
    """torch state dict -> converted, strictly loaded Cell and its config."""
    source = tmp_path / "upstream"
    source.mkdir()
    torch.save({name: value.contiguous() for name, value in state.items()}, source / "weights.pth")
    if hints is not None:
        (source / "weights.json").write_text(json.dumps(hints))
    jobs, notes = checkpoints.plan(source)
    assert len(jobs) == 1 and not notes
    checkpoints.convert(jobs, tmp_path / "ours")
    folder = tmp_path / "ours" / jobs[0].family.name
    config = load_config(type(jobs[0].config), folder)
    cell = (build or jobs[0].family.cell)(config)
    return load_weights(cell.set_train(False), folder), config


def run(cell, *arrays):
    out = cell(*[ms.Tensor(np.asarray(array, np.float32)) for array in arrays])
    return tuple(part.asnumpy() for part in out) if isinstance(out, tuple) else out.asnumpy()


def distance(ours, theirs):
    """Relative L2; infinite for unequal shapes."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    if ours.shape != theirs.shape:
        return np.inf
    return np.linalg.norm(ours.astype(np.float64) - theirs) / np.linalg.norm(theirs)


def break_one(cell, name):
    """Change one element of one weight noticeably."""
    parameter = cell.parameters_dict()[name]
    values = parameter.asnumpy().copy()
    values.flat[0] += 10 * np.abs(values).max()
    ms.ops.assign(parameter, ms.Tensor(values))  # in place: set_data would compile the graph again


@pytest.fixture(autouse=True)
def the_same_weights_in_every_order_of_tests():
    """With a rare draw the weight that `break_one` changes hardly matters."""
    torch.manual_seed(1)


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    theirs = SonicUNet(scale=0.7)
    cell, config = convert(tmp_path_factory.mktemp("unet"), theirs.state_dict(), theirs.hints)
    return theirs, cell, config


def unet_inputs(b=2, t=3, h=6, w=10, cross=24):
    sample, clip, audio = normal(b, t, 8, h, w), normal(b * t, 1, cross), normal(b * t, 32, cross)
    # The library hands one CLIP token a clip to the temporal blocks; all frames of a clip have the same here.
    clip = np.repeat(clip[::t], t, 0)
    mask = (RNG.random((48, 80)) > 0.5).astype(np.float32)
    ids = np.array([[12.5, 20 + i, 35 - i] for i in range(b)], np.float32)
    return sample, 1.3, clip, audio, mask, ids


def run_unet(cell, config, sample, timestep, clip, audio, mask, ids):
    b, t, _, h, w = sample.shape
    context = run(cell.context, clip, audio, frame_sinusoids(config, t))
    temporal = [part.reshape(b, t, *part.shape[1:]).mean(1) for part in context[3:6]]
    inputs = (*time_sinusoids(config, timestep, ids), mask_tokens(config, mask, h, w))
    return run(cell.denoiser, sample, *inputs, *context[:3], *temporal, context[6])


def test_unet(unet):
    theirs, cell, config = unet
    assert config.ip_audio_scale == 0.7 and config.num_attention_heads == (1, 2)
    inputs = unet_inputs()
    expected = theirs(*[torch.tensor(part) for part in inputs])
    assert distance(run_unet(cell, config, *inputs), expected) <= 1e-5
    for name in (
        "context.layers.0.spatial.audio_key.weight",
        "denoiser.mid_attention.temporal.attn1.to_k.weight",
        "denoiser.up_blocks.1.resnets.0.temporal_weight",
    ):
        before = cell.parameters_dict()[name].asnumpy().copy()
        break_one(cell, name)
        assert distance(run_unet(cell, config, *inputs), expected) > 1e-4, name
        ms.ops.assign(cell.parameters_dict()[name], ms.Tensor(before))


def test_unet_branches_do_not_mix(unet):
    """A batch of branches gives what each branch gives alone: nothing leaks from clip to clip."""
    _, cell, config = unet
    sample, timestep, clip, audio, mask, ids = unet_inputs()
    together = run_unet(cell, config, sample, timestep, clip, audio, mask, ids)
    sample, clip, audio = sample.copy(), clip.copy(), audio.copy()
    sample[1], clip[3:], audio[3:] = 0, 0, 0
    changed = run_unet(cell, config, sample, timestep, clip, audio, mask, ids)
    assert distance(changed[:1], together[:1]) <= 1e-6
    assert distance(changed[1:], together[1:]) > 0.1


def test_vae(tmp_path):
    theirs = tiny_vae()
    cell, config = convert(tmp_path, theirs.state_dict())
    assert config.downscale == 2
    image, latents = normal(1, 3, 12, 20), normal(3, 4, 6, 10)
    with torch.no_grad():
        mean = theirs.encode(torch.from_numpy(image)).latent_dist.mean
        frames = theirs.decode(torch.from_numpy(latents), num_frames=3).sample
    assert distance(run(cell.encoder, image), mean) <= 1e-5
    assert distance(run(cell.decoder, latents), frames) <= 1e-5
    break_one(cell, "decoder.resnets.0.0.temporal_res_block.conv1.conv.weight")
    assert distance(run(cell.decoder, latents), frames) > 1e-4


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_clip(tmp_path, activation):
    sizes = {"num_attention_heads": 3, "hidden_act": activation}
    theirs = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            image_size=30,
            patch_size=10,
            projection_dim=20,
            **sizes,
        )
    )
    torch.manual_seed(1)
    for parameter in theirs.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    theirs.eval()
    cell, _ = convert(tmp_path, theirs.state_dict(), sizes)
    image = normal(2, 3, 30, 30)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(image)).image_embeds
    assert distance(run(cell, image), expected) <= 1e-5
    break_one(cell, "layers.1.fc1.weight")
    assert distance(run(cell, image), expected) > 1e-4


def test_whisper(tmp_path):
    theirs = WhisperModel(
        TheirWhisperConfig(
            d_model=24,
            encoder_layers=2,
            encoder_attention_heads=3,
            encoder_ffn_dim=40,
            decoder_layers=1,
            decoder_attention_heads=3,
            decoder_ffn_dim=40,
            max_source_positions=35,
            vocab_size=60,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    )
    torch.manual_seed(2)
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    theirs.eval()
    cell, config = convert(tmp_path, theirs.state_dict(), {"encoder_attention_heads": 3})
    assert config.max_source_positions == 35
    mel = normal(1, 80, 70)
    with torch.no_grad():
        states = theirs.encoder(torch.from_numpy(mel), output_hidden_states=True)
    expected = torch.stack(states.hidden_states, 2)
    # Upstream runs the encoder a second time for this; once is enough.
    assert torch.equal(states.last_hidden_state, expected[:, :, -1])
    assert distance(run(cell, mel), expected) <= 1e-5
    break_one(cell, "layers.0.k_proj.weight")
    assert distance(run(cell, mel), expected) > 1e-4


def test_rife(tmp_path):
    state = random_state("rife", {90: 12, 45: 6})
    state = {f"module.{name.removeprefix('module.')}": value for name, value in state.items()}
    for name in state:
        if ".conv1.2." in name:  # the flow, so that it moves pixels and the warp is tested too
            state[name] *= 20
    cell, config = convert(tmp_path, state, {"scale_list": [2, 2, 1]}, lambda config: rife_cell(config, 24, 40))
    assert config.c == 12 and config.multiple == 8
    first, second = RNG.random((2, 1, 3, 24, 40), np.float32)
    expected = rife(state, torch.from_numpy(first), torch.from_numpy(second), config.scale_list)
    assert expected[0].abs().max() > 1
    for ours, theirs in zip(run(cell, first, second), expected):
        assert distance(ours, theirs) <= 2e-5
    break_one(cell, "blocks.0.mask_head.up2.conv.weight")
    assert distance(run(cell, first, second)[2], expected[2]) > 1e-4


def rife_cell(config, height, width):
    from sonic_ms.base.rife import RIFE

    return RIFE(config, height, width)


def test_yoloface(tmp_path):
    sizes = {24: 4, 48: 8, 96: 16, 192: 32, 384: 64, 768: 128, 1536: 256}
    state = random_state("yoloface", sizes, r"model\.\d+\.m\.[2-9]\.cv")
    anchors = [[4, 5, 8, 10, 13, 16], [23, 29, 43, 55, 73, 105], [146, 217, 231, 300, 335, 433]]
    strides = (8, 16, 32)
    grid = torch.tensor(anchors, dtype=torch.float32)
    state["model.23.anchor_grid"] = grid.reshape(3, 1, 3, 1, 1, 2)
    state["model.23.anchors"] = (grid / torch.tensor(strides).reshape(3, 1)).reshape(3, 3, 2)
    cell, config = convert(tmp_path, state)
    assert config.strides == strides and config.anchors[1] == (23, 29, 43, 55, 73, 105)
    assert (config.width, config.short_depth, config.long_depth) == (8, 2, 2)
    image = RNG.random((1, 3, 64, 96), np.float32)
    expected = yoloface(state, torch.from_numpy(image), anchors, strides)
    assert distance(boxes.decode(run(cell, image), config), expected) <= 1e-5
    break_one(cell, "layer_7.cv2.conv.weight")
    assert distance(boxes.decode(run(cell, image), config), expected) > 1e-4
