"""Sizes of the networks of sonic-base, as saved beside their weights. Importing this needs no MindSpore.

kept: numbers of heads and inner channels that are left where some were cut, see nn/groups.py; empty for whole networks.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the network; the last level has no attention, as published."""

    block_out_channels: tuple[int, ...]
    num_attention_heads: tuple[int, ...]
    cross_attention_dim: int
    addition_time_embed_dim: int
    projection_class_embeddings_input_dim: int
    layers_per_block: int = 2
    in_channels: int = 8
    out_channels: int = 4
    num_frames: int = 25
    audio_context_tokens: int = 32
    ip_audio_scale: float = 1.0
    kept: dict[str, int] = field(default_factory=dict)

    @property
    def levels(self):
        return len(self.block_out_channels)

    @property
    def attention_levels(self):
        """Level of every transformer, in the order they run: down, middle, up."""
        down = [level for level in range(self.levels - 1) for _ in range(self.layers_per_block)]
        up = [level for level in reversed(range(self.levels - 1)) for _ in range(self.layers_per_block + 1)]
        return (*down, self.levels - 1, *up)

    @property
    def attention_channels(self):
        """Channels of every transformer, in the same order."""
        return tuple(self.block_out_channels[level] for level in self.attention_levels)

    @property
    def transformers(self):
        """Name of every transformer in the UNet, in the same order."""
        down = [f"down_blocks.{i}.attentions.{j}" for i in range(self.levels - 1) for j in range(self.layers_per_block)]
        up = [f"up_blocks.{i}.attentions.{j}" for i in range(1, self.levels) for j in range(self.layers_per_block + 1)]
        return (*down, "mid_attention", *up)

    @property
    def context_channels(self):
        """Channels of the keys and values of every transformer, in the same order: (spatial, temporal)."""
        found = []
        for part in ("spatial", "temporal"):
            sizes = []
            for path, level, channels in zip(self.transformers, self.attention_levels, self.attention_channels):
                heads = self.num_attention_heads[level]
                left = self.kept.get(f"denoiser.{path}.{part}.attn2.heads", heads)
                sizes.append(channels // heads * left)
            found.append(tuple(sizes))
        return tuple(found)

    def feature_channels(self, branch):
        """Channels of the features that enter the last `branch` + 1 layers, see unet.FeatureUNet."""
        return self.block_out_channels[0 if branch < self.layers_per_block else 1]


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the network. The latents a denoiser works on are scaling_factor * the encoder's mean."""

    block_out_channels: tuple[int, ...]
    layers_per_block: int = 2
    latent_channels: int = 4
    scaling_factor: float = 0.18215

    @property
    def downscale(self):
        """Pixels of the image a latent pixel stands for, on each side."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of the network."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    projection_dim: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    kept: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of either adapter; clip_channels is 0 where the portrait's embedding is not an input."""

    seq_len: int
    blocks: int
    channels: int
    intermediate_dim: int
    output_dim: int
    context_tokens: int
    clip_channels: int = 0
    kept: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RIFEConfig:
    """c: channels of every block. scale_list: how much each block shrinks its input, coarse to fine."""

    c: int = 90
    scale_list: tuple[int, ...] = (4, 2, 1)

    @property
    def multiple(self):
        """Both sides of an image must be divisible by this: the coarsest scale, halved twice more."""
        return 4 * max(self.scale_list)


@dataclass(frozen=True)
class YOLOFaceConfig:
    """width: channels of the stem. *_depth: residual blocks of the short and of the long stages.

    anchors: width and height in pixels of three anchors a scale, flat; strides: pixels a map cell stands for.
    norm: batch normalisation is a layer of its own; False where it was folded into the convolutions.
    """

    width: int
    short_depth: int
    long_depth: int
    anchors: tuple[tuple[float, ...], ...]
    strides: tuple[int, ...] = (8, 16, 32)
    norm: bool = True
