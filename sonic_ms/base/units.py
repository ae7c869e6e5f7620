"""Every graph of sonic-base, written down once."""

from dataclasses import dataclass

from sonic_ms.base.configs import AdapterConfig, CLIPConfig, RIFEConfig, UNetConfig, VAEConfig
from sonic_ms.base.configs import YOLOFaceConfig as YOLOConfig
from sonic_ms.nn.sizes import WhisperConfig
from sonic_ms.runtime.unit import Tensor, Unit

NAME = "sonic-base"
ADAPTER_BATCH = 32  # frames the audio adapters see at once

CONFIGS = {
    "unet": UNetConfig,
    "vae": VAEConfig,
    "clip": CLIPConfig,
    "whisper": WhisperConfig,
    "audio2token": AdapterConfig,
    "audio2bucket": AdapterConfig,
    "rife": RIFEConfig,
    "yoloface": YOLOConfig,
}  # network -> dataclass of its config
CELL_OF = {  # unit -> (network, part of its Cell, None for the whole)
    "unet": ("unet", "denoiser"),
    "unet_context": ("unet", "context"),
    "unet_features0": ("unet", "features0"),
    "unet_features1": ("unet", "features1"),
    "unet_shallow0": ("unet", "shallow0"),
    "unet_shallow1": ("unet", "shallow1"),
    "vae_encoder": ("vae", "encoder"),
    "vae_decoder": ("vae", "decoder"),
    "clip": ("clip", None),
    "whisper": ("whisper", None),
    "audio2token": ("audio2token", None),
    "audio2bucket": ("audio2bucket", None),
    "rife": ("rife", None),
    "yoloface": ("yoloface", None),
}
CACHE_BRANCHES = (0, 1)  # see unet.FeatureUNet
BUILT_FOR_A_SIZE = ("rife",)  # these units' Cells are built for one (height, width) of the picture


@dataclass(frozen=True)
class BaseGear:
    """Sizes that fix the graphs of sonic-base: picture in pixels, frames the decoder takes at once, guidance branches
    in one batch (3 is faster, 1 needs a third of the memory), and the detector's input (height, width).

    cache_branches: feature caches that there are graphs for, each of them two; see unet.FeatureUNet."""

    height: int
    width: int
    chunk: int = 8
    branches: int = 1
    frames: int | None = None  # of the UNet's window; None: as the checkpoint says
    detector: tuple[int, int] = (416, 416)
    cache_branches: tuple[int, ...] = ()


def base_units(configs, gear, build, precision="fp32"):
    """{name: Unit} of sonic-base for one gear.

    configs: {network: config dataclass}. build(network, part, *size) -> Cell of a network or its part, see cells.py;
    None for a table of which nothing is built.
    """
    dtype = {"fp32": "float32", "fp16": "float16"}[precision]

    def tensor(name, *shape):
        return Tensor(name, shape, dtype)

    def unit(name, inputs, outputs):
        size = (gear.height, gear.width) if name in BUILT_FOR_A_SIZE else ()
        return Unit(name, tuple(inputs), tuple(outputs), lambda: build(*CELL_OF[name], *size))

    unet, vae, clip, whisper = (configs[name] for name in ("unet", "vae", "clip", "whisper"))
    token, bucket, yolo = (configs[name] for name in ("audio2token", "audio2bucket", "yoloface"))
    frames, branches = gear.frames or unet.num_frames, gear.branches
    height, width = gear.height // vae.downscale, gear.width // vae.downscale
    total, tokens, seen = sum(unet.attention_channels), unet.audio_context_tokens, unet.cross_attention_dim
    masked = sum((height >> level) * (width >> level) for level in range(unet.levels))
    rows, columns = gear.detector
    states = whisper.max_source_positions
    images = [tensor(name, 1, 3, gear.height, gear.width) for name in ("first", "second", "middle")]

    def contexts(n, prefix):
        names = ("key", "value", "clip")
        width = sum(unet.context_channels[1 if prefix else 0])
        return [tensor(prefix + name, n, 1 if name == "clip" else tokens, width) for name in names]

    step = [
        tensor("sample", branches, frames, unet.in_channels, height, width),
        tensor("time", branches, unet.block_out_channels[0]),
        tensor("ids", branches, unet.projection_class_embeddings_input_dim),
        tensor("masks", 1, masked, 1),
        *contexts(branches * frames, ""),
        *contexts(branches, "temporal_"),
        tensor("positions", frames, total),
    ]
    prediction = tensor("prediction", branches, frames, unet.out_channels, height, width)
    caches = []
    for branch in gear.cache_branches:
        features = tensor("features", branches * frames, unet.feature_channels(branch), height, width)
        caches.append(unit(f"unet_features{branch}", step, [prediction, features]))
        caches.append(unit(f"unet_shallow{branch}", [*step, features], [prediction]))
    units = (
        unit("unet", step, [prediction]),
        unit(
            "unet_context",
            [
                tensor("clip_embedding", frames, 1, seen),
                tensor("audio", frames, tokens, seen),
                tensor("sinusoids", frames, total),
            ],
            [
                *contexts(frames, ""),
                *contexts(frames, "temporal_"),
                tensor("positions", frames, total),
            ],
        ),
        unit(
            "vae_encoder",
            [tensor("image", 1, 3, gear.height, gear.width)],
            [tensor("latents", 1, vae.latent_channels, height, width)],
        ),
        unit(
            "vae_decoder",
            [tensor("latents", gear.chunk, vae.latent_channels, height, width)],
            [tensor("frames", gear.chunk, 3, gear.height, gear.width)],
        ),
        unit(
            "clip",
            [tensor("image", 1, 3, clip.image_size, clip.image_size)],
            [tensor("embedding", 1, clip.projection_dim)],
        ),
        unit(
            "whisper",
            [tensor("mel", 1, whisper.num_mel_bins, 2 * states)],
            [tensor("states", 1, states, whisper.encoder_layers + 1, whisper.d_model)],
        ),
        unit(
            "audio2token",
            [tensor("states", ADAPTER_BATCH, token.seq_len, token.blocks, token.channels)],
            [tensor("tokens", ADAPTER_BATCH, token.context_tokens, token.output_dim)],
        ),
        unit(
            "audio2bucket",
            [
                tensor("states", ADAPTER_BATCH, bucket.seq_len, bucket.blocks, bucket.channels),
                tensor("embedding", ADAPTER_BATCH, bucket.clip_channels),
            ],
            [tensor("buckets", ADAPTER_BATCH, bucket.context_tokens * bucket.output_dim)],
        ),
        unit(
            "rife",
            images[:2],
            [tensor("flow", 1, 4, gear.height, gear.width), tensor("mask", 1, 1, gear.height, gear.width), images[2]],
        ),
        unit(
            "yoloface",
            [tensor("image", 1, 3, rows, columns)],
            [
                tensor(f"map_{stride}", 1, len(anchors) // 2 * 16, rows // stride, columns // stride)
                for stride, anchors in zip(yolo.strides, yolo.anchors)
            ],
        ),
    )
    return {one.name: one for one in (*units, *caches)}
