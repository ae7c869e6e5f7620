#!/usr/bin/env python
"""Write a tiny checkpoint tree in the published layout, with random weights: for tests and for trying the converter.

    python -m bench.make_tiny_checkpoint DIR [--seed 0]

Names, and how sizes relate, come from convert/manifests; every size is made small. The video it makes is grey fog
that moves a little, since noise is nothing that a video encoder, or a comparison of two videos, is made for. Needs
torch, which writes the .pth files.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "convert" / "manifests"

# Published size -> tiny size, a network. Sizes that are not listed (3 colours, kernels, ...) stay.
CHANGES = {
    "vae": {128: 32, 256: 64, 512: 128},
    "image_encoder": {1280: 64, 5120: 128, 1024: 80, 257: 17},
    "whisper_tiny": {384: 32, 1536: 64, 1500: 150, 51865: 100, 448: 40},
    "audio2token": {19200: 1600, 1024: 80, 32768: 2560},
    "audio2bucket": {20224: 1680, 1024: 80},
    "rife": {90: 16, 45: 8},
    "yoloface": {size: size // 6 for size in (24, 48, 96, 192, 384, 768, 1536)},
}
# The UNet keeps its first and its last level with one layer each, and has the same channels C everywhere. Outputs and
# inputs of its matrices, first match; a vector has the outputs. With no more than the 32 groups of its norms, these
# would remove what the time and the motion buckets add to the channels.
C, CROSS, IDS = 64, 80, 96
UNET_SIDES = (
    (r"conv_in", C, 8),
    (r"conv_out", 4, C),
    (r"add_embedding\.linear_1", 4 * C, IDS),
    (r"(time|add)_embedding\.linear_2", 4 * C, 4 * C),
    (r"time_embedding\.linear_1|.*time_pos_embed\.linear_1", 4 * C, C),
    (r".*time_emb_proj|.*time_pos_embed\.linear_2|.*\.ff(_in)?\.net\.2", C, 4 * C),
    (r".*\.ff(_in)?\.net\.0", 8 * C, C),
    (r".*attn2\.(to_k|to_v|processor)", C, CROSS),
    (r".*mix_factor", 1, 1),
    (r"up_blocks\..*spatial_res_block\.norm1", 2 * C, 0),  # beside the skip connection
    (r"up_blocks\..*spatial_res_block\.(conv1|conv_shortcut)", C, 2 * C),
    (r".*", C, C),
)
UNET_LEVELS = {"down_blocks.0": 0, "down_blocks.3": 1, "up_blocks.0": 0, "up_blocks.3": 1}
# Layers left out, and what the names of others become: one block a level, two layers of CLIP.
LEFT_OUT = {
    "unet": r"(down|up)_blocks\.([12]|\d\.(resnets|attentions)\.1)\.",
    "vae": r"encoder\.down_blocks\.\d+\.resnets\.1\.|decoder\.(up_blocks\.\d+\.resnets\.2|mid_block\.resnets\.1)\.",
    "image_encoder": r"vision_model\.encoder\.layers\.([2-9]|\d\d)\.",
    "yoloface": r"model\.\d+\.m\.[1-9]\.cv",
}
FILES = {
    "unet": "Sonic/unet.pth",
    "audio2token": "Sonic/audio2token.pth",
    "audio2bucket": "Sonic/audio2bucket.pth",
    "vae": "stable-video-diffusion-img2vid-xt/vae/diffusion_pytorch_model.fp16.safetensors",
    "image_encoder": "stable-video-diffusion-img2vid-xt/image_encoder/model.fp16.safetensors",
    "whisper_tiny": "whisper-tiny/model.safetensors",
    "rife": "RIFE/flownet.pkl",
    "yoloface": "yoloface_v5m.pt",
}
# What shapes cannot tell. Upstream publishes the config.json files; those beside the adapters are ours.
CONFIGS = {
    "stable-video-diffusion-img2vid-xt/unet/config.json": {
        "_class_name": "UNetSpatioTemporalConditionModel",
        "num_attention_heads": [1, 2],
        "num_frames": 4,
    },
    "stable-video-diffusion-img2vid-xt/vae/config.json": {
        "_class_name": "AutoencoderKLTemporalDecoder",
        "scaling_factor": 0.18215,
    },
    "stable-video-diffusion-img2vid-xt/image_encoder/config.json": {
        "architectures": ["CLIPVisionModelWithProjection"],
        "num_attention_heads": 4,
        "hidden_act": "gelu",
    },
    "whisper-tiny/config.json": {
        "architectures": ["WhisperForConditionalGeneration"],
        "encoder_attention_heads": 4,
    },
    "Sonic/audio2token.json": {"seq_len": 10, "blocks": 5, "channels": 32},
    "Sonic/audio2bucket.json": {"seq_len": 50, "blocks": 1, "channels": 32, "clip_channels": 80},
}


def tiny_shapes(network):
    """{name: shape} of a network in upstream's names, at tiny size."""
    tensors = json.loads((MANIFESTS / f"{network}.json").read_text())["tensors"]
    left_out = LEFT_OUT.get(network)
    kept = {name: shape for name, shape in tensors.items() if not (left_out and re.match(left_out, name))}
    if network == "unet":
        return dict(unet_tensor(name, shape) for name, shape in kept.items())
    sizes = CHANGES[network]
    shapes = {}
    for name, shape in kept.items():
        outputs = shape[:1] if network == "yoloface" and name.startswith("model.23.") else []  # 48 outputs stay
        shapes[name] = outputs + [sizes.get(side, side) for side in shape[len(outputs) :]]
    return shapes


def unet_tensor(name, shape):
    """Name and shape in the tiny UNet of a tensor of the published one."""
    outputs, inputs = next(sides for pattern, *sides in UNET_SIDES if re.match(pattern, name))
    shape = [outputs, inputs, *shape[2:]] if len(shape) > 1 else [outputs]
    if name.startswith(("down_blocks", "up_blocks")):
        side, level, kind, index, tail = name.split(".", 4)
        level = UNET_LEVELS[f"{side}.{level}"]
        index = min(int(index), 1)
        name = f"{side}.{level}.{kind}.{index}.{tail}"
    return name, shape


# Factors on random weights and biases, by the beginning of their names. The first three make fog of noise.
SCALES = (
    (r"conv_out\.", 0.01),  # of the UNet, whose predictions become latents and differ from frame to frame
    (r"decoder\.time_conv_out\.", 0.12),  # of the VAE: contrast
    (r"module\.block\d\.conv[12]\.2\.", 0.03),  # of RIFE: a flow of about a pixel
    (r"model\.(?!23\.).*conv\.weight", 1.5),  # of the detector, in which pictures would vanish on the way
)
BLUR = np.float32([0.25, 0.5, 0.25])  # of the convolutions of the VAE's decoder, in rows, columns and time
COLOUR = np.float32(0.2)  # how much the decoder's three colours differ


def random_tensor(name, shape, rng):
    """Weights that keep activations near 1, so that the tiny networks compute something finite."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("anchors") or name.endswith("anchor_grid"):
        return anchors(name, shape)
    values = rng.standard_normal(shape, np.float32)
    scale = np.float32(next((scale for pattern, scale in SCALES if re.match(pattern, name)), 1))
    if len(shape) == 1:
        is_scale = name.endswith("weight")
        return values * scale * 0.1 + (1.0 if is_scale else 0.0)
    if name.startswith("decoder.time_conv_out"):
        values = 1 + COLOUR * values
    if name.startswith("decoder.") and list(shape[2:]) == [3, 3]:
        return scale * values[:, :, 1:2, 1:2] * np.outer(BLUR, BLUR) / np.float32(np.sqrt(shape[1]))
    if name.startswith("decoder.") and list(shape[2:]) == [3, 1, 1]:
        return scale * values[:, :, 1:2] * BLUR[:, None, None] / np.float32(np.sqrt(shape[1]))
    return scale * values / np.float32(np.sqrt(np.prod(shape[1:])))


def anchors(name, shape):
    """The published anchors, in pixels (anchor_grid) or in cells of the map (anchors)."""
    config = json.loads((MANIFESTS / "yoloface.json").read_text())["config"]
    pixels = np.array(config["anchors"], np.float32)
    if name.endswith("anchors"):
        pixels = pixels / np.array(config["strides"], np.float32)[:, None]
    return pixels.reshape(shape)


def tensors_of(network, seed):
    """{name: array} of a tiny network."""
    rng = np.random.default_rng([seed, sorted(FILES).index(network)])
    return {name: random_tensor(name, shape, rng) for name, shape in tiny_shapes(network).items()}


def write_tree(folder, seed=0):
    """Write the whole tree."""
    import safetensors.numpy
    import torch

    for network, place in FILES.items():
        path = Path(folder) / place
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = tensors_of(network, seed)
        if path.suffix == ".safetensors":
            half = "fp16" in path.name
            tensors = {name: value.astype(np.float16) if half else value for name, value in tensors.items()}
            safetensors.numpy.save_file(tensors, path)
        else:
            prefix = "module." if network == "rife" else ""
            state = {prefix + name.removeprefix("module."): torch.from_numpy(value) for name, value in tensors.items()}
            # flownet.pkl is in the format of torch before 1.6
            torch.save(state, path, _use_new_zipfile_serialization=network != "rife")
    for place, fields in CONFIGS.items():
        path = Path(folder) / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(fields, indent=1) + "\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dir", metavar="DIR", type=Path, help="folder to write the tree in")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    options = parser.parse_args(arguments)
    try:
        import torch  # noqa: F401
    except ImportError:
        print("error: this needs torch, which writes the .pth files; pip install 'sonic_ms[test]'", file=sys.stderr)
        return 1
    write_tree(options.dir, options.seed)
    print(f"wrote {len(FILES)} networks under {options.dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
