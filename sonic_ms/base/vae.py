"""Autoencoder of sonic-base: a KL image encoder and the temporal decoder of Stable Video Diffusion.

Source of the architecture: AutoencoderKLTemporalDecoder (Blattmann et al. 2023; layout as in diffusers). Images are
(n, 3, H, W) in [-1, 1]; latents are (n, 4, H/8, W/8), not scaled: see `VAEConfig.scaling_factor`.
"""

from mindspore import nn, ops

from sonic_ms.base.resnet import GROUPS, SpatialResBlock, SpatioTemporalResBlock, Upsample
from sonic_ms.base.unet import MAX_SCORES
from sonic_ms.nn.attention import Attention
from sonic_ms.nn.portable import FrameConv, GroupNorm, PaddedConv2d, add, conv2d, silu

EPSILON = 1e-6  # of every normalisation except in the temporal blocks
TEMPORAL_EPSILON = 1e-5


class MidAttention(nn.Cell):
    """Single-head attention over the pixels of each image: (n, c, h, w) -> the same."""

    def __init__(self, channels, max_scores):
        super().__init__()
        self.attention = Attention(max_scores)
        self.group_norm = GroupNorm(GROUPS, channels, EPSILON)
        self.to_q = nn.Dense(channels, channels)
        self.to_k = nn.Dense(channels, channels)
        self.to_v = nn.Dense(channels, channels)
        self.to_out = nn.Dense(channels, channels)

    def construct(self, x):
        n, c, h, w = x.shape
        tokens = ops.transpose(ops.reshape(self.group_norm(x), (n, c, h * w)), (0, 2, 1))  # (n, h*w, c)
        shape = (n, 1, h * w, c)
        q, k, v = (ops.reshape(project(tokens), shape) for project in (self.to_q, self.to_k, self.to_v))
        mixed = ops.reshape(self.attention(q, k, v), (n, h * w, c))
        return add(x, ops.reshape(ops.transpose(self.to_out(mixed), (0, 2, 1)), (n, c, h, w)))


class Encoder(nn.Cell):
    """Image (n, 3, H, W) in [-1, 1] -> mean of its latents (n, 4, H/8, W/8), unscaled. The variance is not computed."""

    def __init__(self, config, max_scores=MAX_SCORES):
        super().__init__()
        channels = config.block_out_channels
        self.conv_in = conv2d(3, channels[0], 3)
        resnets, downsamplers = [], []
        before = channels[0]
        for level, size in enumerate(channels):
            inputs = [before if j == 0 else size for j in range(config.layers_per_block)]
            resnets.append(nn.CellList([SpatialResBlock(c, size, 0, EPSILON) for c in inputs]))
            if level < len(channels) - 1:
                # Upstream pads below and to the right only.
                downsamplers.append(PaddedConv2d(size, size, 3, 2, (0, 1, 0, 1)))
            before = size
        self.resnets, self.downsamplers = nn.CellList(resnets), nn.CellList(downsamplers)
        self.mid_resnets = nn.CellList([SpatialResBlock(before, before, 0, EPSILON) for _ in range(2)])
        self.mid_attention = MidAttention(before, max_scores)
        self.conv_norm_out = GroupNorm(GROUPS, before, EPSILON)
        self.conv_out = conv2d(before, 2 * config.latent_channels, 3)
        self.quant_conv = conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.latent_channels = config.latent_channels

    def construct(self, image):
        x = self.conv_in(image)
        for level, blocks in enumerate(self.resnets):
            for resnet in blocks:
                x = resnet(x, None, 1)
            if level < len(self.downsamplers):
                x = self.downsamplers[level](x)
        x = self.mid_resnets[1](self.mid_attention(self.mid_resnets[0](x, None, 1)), None, 1)
        x = self.quant_conv(self.conv_out(silu(self.conv_norm_out(x))))
        return x[:, : self.latent_channels]


class Decoder(nn.Cell):
    """Latents of consecutive frames (n, 4, h, w), unscaled -> pictures (n, 3, 8h, 8w), about [-1, 1].

    frames: of each chunk of frames that are mixed, all of them by default.
    """

    def __init__(self, config, max_scores=MAX_SCORES):
        super().__init__()
        channels, layers = config.block_out_channels, config.layers_per_block
        before = channels[-1]

        def block(size_in, size_out):
            return SpatioTemporalResBlock(size_in, size_out, 0, EPSILON, TEMPORAL_EPSILON)

        self.conv_in = conv2d(config.latent_channels, before, 3)
        self.mid_resnets = nn.CellList([block(before, before) for _ in range(layers)])
        self.mid_attention = MidAttention(before, max_scores)
        resnets, upsamplers = [], []
        for level, size in enumerate(reversed(channels)):
            resnets.append(nn.CellList([block(before if j == 0 else size, size) for j in range(layers + 1)]))
            if level < len(channels) - 1:
                upsamplers.append(Upsample(size))
            before = size
        self.resnets, self.upsamplers = nn.CellList(resnets), nn.CellList(upsamplers)
        self.conv_norm_out = GroupNorm(GROUPS, before, EPSILON)
        self.conv_out = conv2d(before, 3, 3)
        self.time_conv_out = FrameConv(3, 3)

    def construct(self, latents, frames=None):
        frames = frames or latents.shape[0]
        x = self.mid_resnets[0](self.conv_in(latents), None, frames)
        for index, resnet in enumerate(self.mid_resnets[1:]):
            if index == 0:  # one attention, after the first block, however many blocks there are
                x = self.mid_attention(x)
            x = resnet(x, None, frames)
        for level, blocks in enumerate(self.resnets):
            for resnet in blocks:
                x = resnet(x, None, frames)
            if level < len(self.upsamplers):
                x = self.upsamplers[level](x)
        return self.time_conv_out(self.conv_out(silu(self.conv_norm_out(x))), frames)


class VAE(nn.Cell):
    """Both Cells of one weight file."""

    def __init__(self, config, max_scores=MAX_SCORES):
        super().__init__()
        self.encoder = Encoder(config, max_scores)
        self.decoder = Decoder(config, max_scores)
