"""The spatio-temporal residual block that the UNet and the temporal VAE decoder share.

Source of the architecture: Stable Video Diffusion (Blattmann et al. 2023), as published in diffusers. Frames stay
folded into the batch throughout: x is (n, c, h, w) with n = clips * frames.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sonic_ms.nn.groups import columns, rows
from sonic_ms.nn.portable import FrameConv, GroupNorm, add, conv2d, nearest_x2, silu

GROUPS = 32  # of every group normalisation
INNER = rows(*[f"{one}.{part}" for one in ("conv1", "time_emb_proj", "norm2") for part in ("weight", "bias")])


class SpatialResBlock(nn.Cell):
    """norm, SiLU, 3x3 convolution, twice, plus the input; an embedding (n, c') may be added in between.

    What lies between the convolutions goes by groups of their normalisation: the statistics of the others stay.
    """

    UNITS = (("norm2.groups", INNER + columns("conv2.weight")),)

    def __init__(self, channels_in, channels_out, embedding, epsilon):
        super().__init__()
        self.norm1 = GroupNorm(GROUPS, channels_in, epsilon)
        self.conv1 = conv2d(channels_in, channels_out, 3)
        self.time_emb_proj = nn.Dense(embedding, channels_out) if embedding else None
        self.norm2 = GroupNorm(GROUPS, channels_out, epsilon)
        self.conv2 = conv2d(channels_out, channels_out, 3)
        self.conv_shortcut = conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def construct(self, x, embedding, frames):
        hidden = self.conv1(silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            hidden = self.norm2(hidden, 1, spread(self.time_emb_proj(embedding), frames))
        else:
            hidden = self.norm2(hidden)
        hidden = self.conv2(silu(hidden))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return add(x, hidden)


class TemporalResBlock(nn.Cell):
    """The same with convolutions over time and statistics over the whole clip; returns what is to be added to x."""

    THREE_FRAMES = columns("conv2.conv.weight", repeats=3)
    UNITS = (("norm2.groups", rows(*[m.name.replace("conv1.", "conv1.conv.") for m in INNER]) + THREE_FRAMES),)

    def __init__(self, channels, embedding, epsilon):
        super().__init__()
        self.norm1 = GroupNorm(GROUPS, channels, epsilon)
        self.conv1 = FrameConv(channels, channels)
        self.time_emb_proj = nn.Dense(embedding, channels) if embedding else None
        self.norm2 = GroupNorm(GROUPS, channels, epsilon)
        self.conv2 = FrameConv(channels, channels)

    def construct(self, x, embedding, frames):
        hidden = self.conv1(silu(self.norm1(x, frames)), frames)
        if self.time_emb_proj is not None:
            hidden = self.norm2(hidden, frames, spread(self.time_emb_proj(embedding), frames))
        else:
            hidden = self.norm2(hidden, frames)
        return self.conv2(silu(hidden), frames)


class SpatioTemporalResBlock(nn.Cell):
    """Spatial block s(x), then s + w * temporal(s): the blend a*s + (1 - a)*(s + temporal(s)) with w = 1 - a.

    `temporal_weight` is w, computed from upstream's mix_factor at conversion: 1 - sigmoid(mix_factor) in the UNet,
    sigmoid(mix_factor) in the VAE, which blends the other way round.
    """

    def __init__(self, channels_in, channels_out, embedding, epsilon, temporal_epsilon):
        super().__init__()
        self.spatial_res_block = SpatialResBlock(channels_in, channels_out, embedding, epsilon)
        self.temporal_res_block = TemporalResBlock(channels_out, embedding, temporal_epsilon)
        self.temporal_weight = Parameter(Tensor(np.full(1, 0.5, np.float32)))

    def construct(self, x, embedding, frames):
        x = self.spatial_res_block(x, embedding, frames)
        change = ops.cast(self.temporal_res_block(x, embedding, frames), ms.float32)
        return add(x, ops.cast(self.temporal_weight, ms.float32) * change)


class Upsample(nn.Cell):
    """Nearest x2, then a 3x3 convolution: (n, c, h, w) -> (n, c, 2h, 2w)."""

    def __init__(self, channels):
        super().__init__()
        self.conv = conv2d(channels, channels, 3)

    def construct(self, x):
        return self.conv(nearest_x2(x))


def spread(embedding, frames):
    """One embedding a clip (b, c) -> the same for each of its frames (b*frames, c)."""
    b, c = embedding.shape
    return ops.reshape(ops.tile(ops.reshape(embedding, (b, 1, c)), (1, frames, 1)), (b * frames, c))
