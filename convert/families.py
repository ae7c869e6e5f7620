"""What each upstream checkpoint is: how it is recognised, which sizes it has, which Cell and name map belong to it.

Sizes come from the shapes of the tensors. What shapes cannot tell (the number of heads, mostly) comes from upstream's
config.json, or from the published values when the sizes are the published ones; otherwise the run stops.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
from sonic_ms.convert import maps

from sonic_ms.base.audio_adapters import Audio2Bucket, Audio2Token
from sonic_ms.base.clip import CLIPVision
from sonic_ms.base.configs import (
    AdapterConfig,
    CLIPConfig,
    RIFEConfig,
    UNetConfig,
    VAEConfig,
    YOLOFaceConfig,
)
from sonic_ms.base.rife import RIFE
from sonic_ms.base.unet import SonicUNet
from sonic_ms.base.vae import VAE
from sonic_ms.base.yoloface import YOLOFace
from sonic_ms.errors import WeightsError, printable
from sonic_ms.nn.sizes import WhisperConfig
from sonic_ms.nn.whisper import WhisperEncoder

MAX_BLOCKS = 100  # of one kind in a network; CLIP has 32 layers
MAX_PLACES = 100  # in which the names of one network may begin in a file
AUDIO_SUFFIX = "attn2.processor.to_k_ip.0.weight"


@dataclass(frozen=True)
class Family:
    """One kind of checkpoint.

    signature: tensor names that all must be there, after a prefix; without: names that must not be.
    config(shapes, hints, read): the config dataclass; cell(config): the Cell; table(config): the name map.
    classes: the values of `_class_name` or `architectures` in an upstream config.json that describe it.
    """

    name: str
    signature: tuple
    config: object
    cell: object
    table: object
    without: tuple = ()
    prefixes: tuple = ("",)
    classes: tuple = ()


def count(shapes, template):
    """How many consecutive numbers, from 0, stand for `{}` at the start of a tensor's name."""
    pattern = re.compile(re.escape(template).replace(r"\{\}", r"(\d{1,9})"))
    numbers = {int(match[1]) for name in shapes if (match := pattern.match(name))}
    number = next(number for number in range(len(numbers) + 1) if number not in numbers)
    if number > MAX_BLOCKS:
        raise WeightsError(f"{number} blocks called {template.format('N')}; at most {MAX_BLOCKS}")
    return number


def size(largest, least=1):
    """A check of hints: a whole number in a range."""
    return lambda value: type(value) is int and least <= value <= largest


def number(least, largest):
    """A check of hints: a finite number in a range."""
    return lambda value: type(value) in (int, float) and least <= value <= largest


def sizes(largest, longest):
    """A check of hints: some whole numbers."""
    return lambda value: type(value) is tuple and 1 <= len(value) <= longest and all(map(size(largest), value))


# What a config.json may say: its values decide how much is built before any weight is read.
HINTS = {
    "num_attention_heads": lambda value: size(1024)(value) or sizes(1024, 16)(value),
    "encoder_attention_heads": size(1024),
    "num_frames": size(1024),
    "audio_context_tokens": size(4096),
    "ip_audio_scale": number(-1000, 1000),
    "scaling_factor": number(1e-6, 1e6),
    "hidden_act": lambda value: value in ("gelu", "quick_gelu"),
    "layer_norm_eps": number(1e-12, 1),
    "clip_channels": size(1 << 20, 0),
    "seq_len": size(1 << 20),
    "blocks": size(1 << 20),
    "channels": size(1 << 20),
    "scale_list": lambda value: sizes(16, 8)(value) and all(scale & (scale - 1) == 0 for scale in value),
}


def hint(hints, key, published, matches, what):
    """A size that shapes cannot tell: from config.json, or the published one if the network has published sizes."""
    if key in hints:
        value = tuple(hints[key]) if isinstance(hints[key], list) else hints[key]
        if not HINTS[key](value):
            shown = printable(repr(hints[key]))
            raise WeightsError(f"{what}: config.json says {key} is {shown}, which no such network has; correct it")
        return value
    if matches:
        return published
    raise WeightsError(f"{what}: {key} cannot be read from the tensors; put upstream's config.json beside the file")


def divided(heads, width, what):
    """The number of heads, which must divide the width of their layer."""
    if type(heads) is int and width % heads:
        raise WeightsError(f"{what}: config.json says {heads} heads, which do not divide {width} channels; correct it")
    return heads


def unet_config(shapes, hints, _read):
    levels = count(shapes, "down_blocks.{}.")
    channels = tuple(shapes[f"down_blocks.{i}.resnets.0.spatial_res_block.conv2.weight"][0] for i in range(levels))
    published = channels == (320, 640, 1280, 1280)
    ids = shapes["add_embedding.linear_1.weight"][1]
    heads = hint(hints, "num_attention_heads", (5, 10, 20, 20), published, "UNet")
    heads = heads if isinstance(heads, tuple) else (heads,) * levels
    if len(heads) != levels:
        raise WeightsError(f"UNet: config.json gives heads for {len(heads)} levels, the tensors have {levels}")
    for level, width in zip(heads, channels):
        divided(level, width, "UNet")
    return UNetConfig(
        block_out_channels=channels,
        num_attention_heads=heads,
        cross_attention_dim=shapes["mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"][1],
        addition_time_embed_dim=ids // 3,  # fps and two motion buckets
        projection_class_embeddings_input_dim=ids,
        layers_per_block=count(shapes, "down_blocks.0.resnets.{}."),
        in_channels=shapes["conv_in.weight"][1],
        out_channels=shapes["conv_out.weight"][0],
        num_frames=hint(hints, "num_frames", 25, True, "UNet"),
        audio_context_tokens=hint(hints, "audio_context_tokens", 32, True, "UNet"),
        ip_audio_scale=hint(hints, "ip_audio_scale", 1.0, True, "UNet"),
    )


def vae_config(shapes, hints, _read):
    levels = count(shapes, "encoder.down_blocks.{}.")
    return VAEConfig(
        block_out_channels=tuple(shapes[f"encoder.down_blocks.{i}.resnets.0.conv2.weight"][0] for i in range(levels)),
        layers_per_block=count(shapes, "encoder.down_blocks.0.resnets.{}."),
        latent_channels=shapes["decoder.conv_in.weight"][1],
        scaling_factor=hint(hints, "scaling_factor", 0.18215, True, "VAE"),
    )


def clip_config(shapes, hints, _read):
    patches, width, patch = *shapes["vision_model.embeddings.position_embedding.weight"], _patch(shapes)
    published = width == 1280
    return CLIPConfig(
        hidden_size=width,
        intermediate_size=shapes["vision_model.encoder.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=count(shapes, "vision_model.encoder.layers.{}."),
        num_attention_heads=divided(hint(hints, "num_attention_heads", 16, published, "CLIP"), width, "CLIP"),
        image_size=round((patches - 1) ** 0.5) * patch,
        patch_size=patch,
        projection_dim=shapes["visual_projection.weight"][0],
        hidden_act=hint(hints, "hidden_act", "gelu", published, "CLIP"),
        layer_norm_eps=hint(hints, "layer_norm_eps", 1e-5, True, "CLIP"),
    )


def _patch(shapes):
    return shapes["vision_model.embeddings.patch_embedding.weight"][-1]


def whisper_config(shapes, hints, _read):
    positions, width = shapes["encoder.embed_positions.weight"]
    return WhisperConfig(
        d_model=width,
        encoder_layers=count(shapes, "encoder.layers.{}."),
        encoder_attention_heads=divided(
            hint(hints, "encoder_attention_heads", 6, width == 384, "Whisper"), width, "Whisper"
        ),
        encoder_ffn_dim=shapes["encoder.layers.0.fc1.weight"][0],
        num_mel_bins=shapes["encoder.conv1.weight"][1],
        max_source_positions=positions,
    )


def audio2token_config(shapes, hints, _read):
    inputs, output = shapes["proj1.weight"][1], shapes["norm.weight"][0]
    sizes = _window(hints, inputs, {"seq_len": 10, "blocks": 5, "channels": 384}, 0, "audio2token")
    tokens = shapes["proj3.weight"][0] // output
    return AdapterConfig(**sizes, intermediate_dim=shapes["proj1.weight"][0], output_dim=output, context_tokens=tokens)


def audio2bucket_config(shapes, hints, _read):
    inputs, published = shapes["proj1.weight"][1], {"seq_len": 50, "blocks": 1, "channels": 384}
    clip = hint(hints, "clip_channels", 1024, inputs == 50 * 384 + 1024, "audio2bucket")
    sizes = _window(hints, inputs, published, clip, "audio2bucket")
    return AdapterConfig(
        **sizes,
        intermediate_dim=shapes["proj1.weight"][0],
        output_dim=1,
        context_tokens=shapes["proj3.weight"][0],
        clip_channels=clip,
    )


def _window(hints, inputs, published, extra, what):
    """seq_len, blocks and channels of an adapter: only their product is in the shapes."""
    matches = inputs == math.prod(published.values()) + extra
    found = {key: hint(hints, key, value, matches, what) for key, value in published.items()}
    if math.prod(found.values()) + extra != inputs:
        raise WeightsError(f"{what}: proj1 takes {inputs} inputs, config.json says {found} and {extra}")
    return found


def rife_config(shapes, hints, _read):
    return RIFEConfig(
        c=shapes["block0.convblock0.0.0.weight"][0],
        scale_list=hint(hints, "scale_list", (4, 2, 1), True, "RIFE"),
    )


def yoloface_config(shapes, _hints, read):
    grid = read("model.23.anchor_grid")  # (3, 1, 3, 1, 1, 2): pixels
    strides = grid.reshape(len(grid), -1) / read("model.23.anchors").reshape(len(grid), -1)
    return YOLOFaceConfig(
        width=shapes["model.0.stem_1.conv.weight"][0],
        short_depth=count(shapes, "model.1.m.{}."),
        long_depth=count(shapes, "model.3.m.{}."),
        anchors=tuple(tuple(float(side) for side in row) for row in grid.reshape(len(grid), -1)),
        strides=tuple(int(stride) for stride in np.round(strides[:, 0])),
        norm="model.0.stem_1.bn.weight" in shapes,
    )


def build_rife(config):
    """The Cell at the smallest size it takes; its weights fit any size."""
    return RIFE(config, config.multiple, config.multiple)


def constant(table):
    """A name map that depends on no size."""
    return lambda config: table


FAMILIES = (
    Family(
        "unet",
        ("conv_in.weight", f"mid_block.attentions.0.transformer_blocks.0.{AUDIO_SUFFIX}"),
        unet_config,
        SonicUNet,
        maps.unet,
        classes=("UNetSpatioTemporalConditionModel",),
    ),
    Family(
        "svd_unet",
        ("conv_in.weight", "mid_block.attentions.0.temporal_transformer_blocks.0.attn2.to_v.weight"),
        unet_config,
        SonicUNet,
        maps.unet,
        without=(f"mid_block.attentions.0.transformer_blocks.0.{AUDIO_SUFFIX}",),
        classes=("UNetSpatioTemporalConditionModel",),
    ),
    Family(
        "vae",
        ("decoder.time_conv_out.weight", "quant_conv.weight"),
        vae_config,
        VAE,
        constant(maps.VAE),
        classes=("AutoencoderKLTemporalDecoder",),
    ),
    Family(
        "clip",
        ("vision_model.embeddings.class_embedding", "visual_projection.weight"),
        clip_config,
        CLIPVision,
        constant(maps.CLIP),
        classes=("CLIPVisionModelWithProjection",),
    ),
    Family(
        "whisper",
        ("encoder.conv1.weight", "encoder.embed_positions.weight"),
        whisper_config,
        WhisperEncoder,
        constant(maps.WHISPER),
        prefixes=("model.", ""),
        classes=("WhisperForConditionalGeneration", "WhisperModel"),
    ),
    Family("audio2token", ("proj1.weight", "norm.weight"), audio2token_config, Audio2Token, constant(maps.AUDIO2TOKEN)),
    Family(
        "audio2bucket",
        ("proj1.weight", "proj3.weight"),
        audio2bucket_config,
        Audio2Bucket,
        constant(maps.AUDIO2BUCKET),
        without=("norm.weight",),
    ),
    Family(
        "rife",
        ("block0.conv0.0.0.weight", "block2.conv2.2.weight"),
        rife_config,
        build_rife,
        constant(maps.RIFE),
        prefixes=("module.", ""),
    ),
    Family(
        "yoloface",
        ("model.0.stem_1.conv.weight", "model.23.anchor_grid"),
        yoloface_config,
        YOLOFace,
        constant(maps.YOLOFACE),
        prefixes=("", "model."),
    ),
)


def recognise(shapes):
    """Tensor names of a checkpoint -> (Family, prefix of its names), or None. Signatures exclude one another."""
    for family in FAMILIES:
        for prefix in family.prefixes:
            if fits(family, prefix, shapes):
                return family, prefix
    return None


def fits(family, prefix, shapes):
    """Whether the tensors of a family's signature are there under a prefix."""
    has = all(prefix + name in shapes for name in family.signature)
    return has and not any(prefix + name in shapes for name in family.without)


# What training code puts around a network's names. A prefix of other words is only unwrapped if all tensors have it.
WRAPPERS = {
    "state_dict", "model_state_dict", "module", "model", "net", "network", "params", "params_ema", "ema", "model_ema",
    "ema_model", "weights", "generator", "_orig_mod", "unet", "vae", "image_encoder", "whisper", "audio2token",
    "audio2bucket", "rife", "flownet", "yoloface", "detector", "0",
}  # fmt: skip


def places(names, shapes):
    """Prefixes, ending in a dot or empty, under which all of `names` are in a file; a few at most."""
    found = []
    for name in shapes:
        prefix = name.removesuffix(names[0])
        ends = name.endswith(names[0]) and (not prefix or prefix.endswith("."))
        if ends and all(prefix + other in shapes for other in names):
            found.append(prefix)
            if len(found) == MAX_PLACES:
                break
    return found


def wrappers(shapes):
    """Prefixes that stand before all names of some network, in order.

    A prefix that is part of the family's own names, as Whisper's `model.`, is none.
    """
    found = set()
    for family in FAMILIES:
        for whole in places(family.signature, shapes):
            own = max((own for own in family.prefixes if whole.endswith(own)), key=len)
            prefix = whole.removesuffix(own)
            common = min(shapes).startswith(prefix) and max(shapes).startswith(prefix)
            if fits(family, whole, shapes) and (common or set(prefix.split(".")[:-1]) <= WRAPPERS):
                found.add(prefix)
    # A network inside another one is a part of it.
    return sorted(one for one in found if not any(one != other and one.startswith(other) for other in found))
