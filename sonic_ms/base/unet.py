"""Spatio-temporal UNet of sonic-base: Stable Video Diffusion's, with audio in every cross-attention.

Sources: Stable Video Diffusion (Blattmann et al. 2023; layout as in diffusers) and Sonic (CVPR 2025).

Two Cells share one weight file. `UNetContext` turns the CLIP and audio tokens of frames into keys and values, which
depend on neither the step nor the pixel and are computed once a clip; `UNet` is what runs at every step. Inside, frames
are folded into the batch: n = b * frames, and tokens are (n, h*w, c). Weights are float32 or float16; softmax and
normalisation are always float32.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sonic_ms.base.resnet import GROUPS, SpatioTemporalResBlock, Upsample
from sonic_ms.nn.attention import Attention, merge_heads, split_heads
from sonic_ms.nn.groups import columns, rows, shrink
from sonic_ms.nn.portable import (
    GatedGelu,
    GroupNorm,
    LayerNorm,
    add,
    columns_to_rows,
    conv2d,
    multiply,
    rows_to_columns,
    silu,
    spread,
)

# Elements of the largest matrix of attention scores: 512 MB in float32. Above it, queries are taken in blocks.
MAX_SCORES = 1 << 27


class ContextLayer(nn.Cell):
    """Audio keys and values and the CLIP value of one cross-attention: tokens of n frames -> (n, 32 | 1, c) each."""

    def __init__(self, tokens, channels, scale):
        super().__init__()
        self.scale = scale  # weight of the audio branch; on the values it costs nothing
        self.clip_value = nn.Dense(tokens, channels, has_bias=False)
        self.audio_key = nn.Dense(tokens, channels, has_bias=False)
        self.audio_value = nn.Dense(tokens, channels, has_bias=False)

    def construct(self, clip, audio):
        return self.audio_key(audio), self.scale * self.audio_value(audio), self.clip_value(clip)


class TimestepMLP(nn.Cell):
    """Two dense layers with a SiLU between: (n, c) -> (n, out)."""

    def __init__(self, channels, hidden, out):
        super().__init__()
        self.linear_1 = nn.Dense(channels, hidden)
        self.linear_2 = nn.Dense(hidden, out)

    def construct(self, x):
        return self.linear_2(silu(self.linear_1(x)))


class TransformerContext(nn.Cell):
    """What one transformer needs besides pixels: contexts of two cross-attentions, embeddings of frame positions."""

    def __init__(self, tokens, channels, scale):
        super().__init__()
        self.spatial = ContextLayer(tokens, channels, scale)
        self.temporal = ContextLayer(tokens, channels, scale)
        self.time_pos_embed = TimestepMLP(channels, 4 * channels, channels)


class UNetContext(nn.Cell):
    """Contexts of all transformers, side by side on the last axis (C = sum of their channels).

    clip (n, 1, d), audio (n, 32, d) tokens of n frames; sinusoids (t, C) of the frame positions. Returns
    spatial and temporal keys and values of the audio (n, 32, C), CLIP values (n, 1, C), and positions (t, C):
    (key, value, clip value, temporal key, temporal value, temporal clip value, positions).
    The temporal ones are per frame too: their mean over a window's frames is the context of that window, since the
    projection of a mean is the mean of the projections.
    """

    def __init__(self, config):
        super().__init__()
        self.channels = config.attention_channels
        self.layers = nn.CellList(
            [TransformerContext(config.cross_attention_dim, c, config.ip_audio_scale) for c in self.channels]
        )

    def construct(self, clip, audio, sinusoids):
        spatial = tuple([layer.spatial(clip, audio) for layer in self.layers])
        temporal = tuple([layer.temporal(clip, audio) for layer in self.layers])
        positions, start = [], 0
        for layer, channels in zip(self.layers, self.channels):
            positions.append(layer.time_pos_embed(sinusoids[:, start : start + channels]))
            start += channels
        return (
            *[ops.concat(tuple([entry[part] for entry in spatial]), -1) for part in range(3)],
            *[ops.concat(tuple([entry[part] for entry in temporal]), -1) for part in range(3)],
            ops.concat(tuple(positions), -1),
        )


class FeedForward(nn.Cell):
    """GEGLU: half of the expansion gates the other half. (..., c) -> (..., c)"""

    UNITS = (("inner", rows("expand.weight", "expand.bias", repeats=2) + columns("reduce.weight")),)

    def __init__(self, channels):
        super().__init__()
        self.inner, self.gated = 4 * channels, GatedGelu()
        self.expand = nn.Dense(channels, 8 * channels)
        self.reduce = nn.Dense(4 * channels, channels)

    def construct(self, x):
        value, gate = ops.split(self.expand(x), self.inner, -1)
        return self.reduce(self.gated(value, gate))


class SelfAttention(nn.Cell):
    """Attention over h*w tokens of each frame: (n, h*w, c) -> the same."""

    UNITS = (("heads", rows("to_q.weight", "to_k.weight", "to_v.weight") + columns("to_out.weight")),)

    def __init__(self, channels, heads, max_scores):
        super().__init__()
        self.heads, self.attention = heads, Attention(max_scores)
        self.to_q = nn.Dense(channels, channels, has_bias=False)
        self.to_k = nn.Dense(channels, channels, has_bias=False)
        self.to_v = nn.Dense(channels, channels, has_bias=False)
        self.to_out = nn.Dense(channels, channels)

    def construct(self, x):
        q = split_heads(self.to_q(x), self.heads)  # (n, heads, h*w, d)
        k = split_heads(self.to_k(x), self.heads)
        v = split_heads(self.to_v(x), self.heads)
        return self.to_out(merge_heads(self.attention(q, k, v)))


class FrameAttention(SelfAttention):
    """Attention over the frames of each pixel: (b*frames, h*w, c) -> the same."""

    def split(self, x, frames):
        """(b*frames, h*w, c) -> (b*h*w, heads, frames, d)"""
        n, tokens, c = x.shape
        b, width = n // frames, c // self.heads
        x = rows_to_columns(ops.reshape(x, (b, frames * tokens * self.heads, width)), frames)  # (b, h*w*heads, f*d)
        return ops.reshape(x, (b * tokens, self.heads, frames, width))

    def construct(self, x, frames):
        n, tokens, _ = x.shape
        q = self.split(self.to_q(x), frames)
        k = self.split(self.to_k(x), frames)
        v = self.split(self.to_v(x), frames)
        x = self.attention(q, k, v)  # (b*h*w, heads, frames, d)
        x = ops.reshape(x, (n // frames, tokens * self.heads, -1))
        return self.to_out(ops.reshape(columns_to_rows(x, frames), (n, tokens, -1)))


class CrossAttention(nn.Cell):
    """CLIP and audio attention of queries x (m, tokens, c): key, value (m, 32, c), clip (m, 1, c), mask or None.

    With a single CLIP token the softmax over it is 1, so its attention is its value, for every query.
    """

    UNITS = (("heads", rows("to_q.weight") + columns("to_out.weight")),)  # and rows of its context, see SonicUNet

    def __init__(self, channels, heads, max_scores):
        super().__init__()
        self.heads, self.attention = heads, Attention(max_scores)
        self.to_q = nn.Dense(channels, channels, has_bias=False)
        self.to_out = nn.Dense(channels, channels)

    def construct(self, x, key, value, clip, mask=None):
        q = split_heads(self.to_q(x), self.heads)  # (m, heads, tokens, d)
        k, v = split_heads(key, self.heads), split_heads(value, self.heads)  # (m, heads, 32, d)
        heard = merge_heads(self.attention(q, k, v))
        if mask is not None:
            heard = multiply(heard, spread(mask, heard.shape))
        return self.to_out(add(heard, spread(clip, heard.shape)))


class SpatialBlock(nn.Cell):
    """Transformer block over the pixels of each frame."""

    def __init__(self, channels, heads, max_scores):
        super().__init__()
        self.norm1 = LayerNorm(channels, 1e-5)
        self.attn1 = SelfAttention(channels, heads, max_scores)
        self.norm2 = LayerNorm(channels, 1e-5)
        self.attn2 = CrossAttention(channels, heads, max_scores)
        self.norm3 = LayerNorm(channels, 1e-5)
        self.ff = FeedForward(channels)

    def construct(self, x, key, value, clip, mask):
        x = add(x, self.attn1(self.norm1(x)))
        x = add(x, self.attn2(self.norm2(x), key, value, clip, mask))
        return add(x, self.ff(self.norm3(x)))


class TemporalBlock(nn.Cell):
    """Transformer block over the frames of each pixel; only its self-attention mixes frames.

    The context is the same for all pixels and frames of a clip, so these are folded into one sequence of queries.
    """

    def __init__(self, channels, heads, max_scores):
        super().__init__()
        self.norm_in = LayerNorm(channels, 1e-5)
        self.ff_in = FeedForward(channels)
        self.norm1 = LayerNorm(channels, 1e-5)
        self.attn1 = FrameAttention(channels, heads, max_scores)
        self.norm2 = LayerNorm(channels, 1e-5)
        self.attn2 = CrossAttention(channels, heads, max_scores)
        self.norm3 = LayerNorm(channels, 1e-5)
        self.ff = FeedForward(channels)

    def construct(self, x, key, value, clip, frames):
        n, tokens, c = x.shape
        x = add(x, self.ff_in(self.norm_in(x)))
        x = add(x, self.attn1(self.norm1(x), frames))
        queries = ops.reshape(self.norm2(x), (n // frames, frames * tokens, c))
        x = add(x, ops.reshape(self.attn2(queries, key, value, clip), (n, tokens, c)))
        return add(x, self.ff(self.norm3(x)))


class Transformer(nn.Cell):
    """Spatial then temporal block on x (n, c, h, w), blended by `temporal_weight` = 1 - sigmoid(mix_factor)."""

    def __init__(self, channels, heads, max_scores):
        super().__init__()
        self.norm = GroupNorm(GROUPS, channels, 1e-6)
        self.proj_in = nn.Dense(channels, channels)
        self.spatial = SpatialBlock(channels, heads, max_scores)
        self.temporal = TemporalBlock(channels, heads, max_scores)
        self.temporal_weight = Parameter(Tensor(np.full(1, 0.5, np.float32)))
        self.proj_out = nn.Dense(channels, channels)

    def construct(self, x, contexts, mask, positions, frames):
        key, value, clip, temporal_key, temporal_value, temporal_clip = contexts
        n, c, h, w = x.shape
        hidden = ops.transpose(ops.reshape(self.norm(x), (n, c, h * w)), (0, 2, 1))  # (n, h*w, c)
        hidden = self.spatial(self.proj_in(hidden), key, value, clip, mask)
        positions = spread(ops.reshape(positions, (frames, 1, c)), (frames, h * w, c))
        moved = add(hidden, positions if n == frames else ops.tile(positions, (n // frames, 1, 1)))
        moved = self.temporal(moved, temporal_key, temporal_value, temporal_clip, frames)
        wide = ops.cast(hidden, ms.float32)
        change = ops.cast(self.temporal_weight, ms.float32) * (ops.cast(moved, ms.float32) - wide)
        hidden = self.proj_out(ops.cast(wide + change, x.dtype))
        return add(x, ops.reshape(ops.transpose(hidden, (0, 2, 1)), (n, c, h, w)))


class Block(nn.Cell):
    """One level on one side of the UNet: residual blocks, each followed by a transformer where there is one.

    channels_in: of every residual block, skip connection included.
    """

    def __init__(self, channels_in, channels, heads, embedding, epsilon, max_scores):
        super().__init__()
        self.resnets = nn.CellList(
            [SpatioTemporalResBlock(size, channels, embedding, epsilon, epsilon) for size in channels_in]
        )
        self.attentions = nn.CellList([Transformer(channels, heads, max_scores) for _ in channels_in if heads])


class UNet(nn.Cell):
    """One denoising step of a window of frames.

    sample (b, t, in, h, w): scaled noisy latents and image latents on the channel axis; h and w divisible by
    2^(levels - 1). time (b, c0), ids (b, 3*width): from `time_sinusoids`. masks (1, tokens, 1): from `mask_tokens`.
    key, value (b*t, 32, C), clip (b*t, 1, C), temporal_key, temporal_value (b, 32, C), temporal_clip (b, 1, C),
    positions (t, C): from `UNetContext`. Returns the prediction (b, t, out, h, w).
    """

    def __init__(self, config, max_scores=MAX_SCORES):
        super().__init__()
        channels, heads, layers = config.block_out_channels, config.num_attention_heads, config.layers_per_block
        last = config.levels - 1
        embedding = 4 * channels[0]
        self.channels, self.levels, self.layers = config.attention_channels, config.attention_levels, layers
        self.widths = config.context_channels
        self.conv_in = conv2d(config.in_channels, channels[0], 3)
        self.time_embedding = TimestepMLP(channels[0], embedding, embedding)
        self.add_embedding = TimestepMLP(config.projection_class_embeddings_input_dim, embedding, embedding)
        down, downsamplers, up, upsamplers = [], [], [], []
        skips = [channels[0]]
        before = channels[0]
        for level, size in enumerate(channels):
            inputs = [before if j == 0 else size for j in range(layers)]
            # Published networks: 1e-6 where the level has attention, 1e-5 on the last one, 1e-6 on the way up.
            epsilon = 1e-5 if level == last else 1e-6
            down.append(Block(inputs, size, 0 if level == last else heads[level], embedding, epsilon, max_scores))
            skips += [size] * layers
            if level != last:
                downsamplers.append(conv2d(size, size, 3, stride=2))
                skips.append(size)
            before = size
        for level in reversed(range(config.levels)):
            size = channels[level]
            inputs = [(before if j == 0 else size) + skips.pop() for j in range(layers + 1)]
            up.append(Block(inputs, size, 0 if level == last else heads[level], embedding, 1e-6, max_scores))
            if level != 0:
                upsamplers.append(Upsample(size))
            before = size
        self.down_blocks, self.downsamplers = nn.CellList(down), nn.CellList(downsamplers)
        self.mid_block = Block([channels[-1]] * 2, channels[-1], 0, embedding, 1e-5, max_scores)
        self.mid_attention = Transformer(channels[-1], heads[-1], max_scores)
        self.up_blocks, self.upsamplers = nn.CellList(up), nn.CellList(upsamplers)
        self.conv_norm_out = GroupNorm(GROUPS, channels[0], 1e-5)
        self.conv_out = conv2d(channels[0], config.out_channels, 3)

    def contexts(self, packed, index):
        """The slices of the packed contexts that belong to transformer `index`."""
        spatial, temporal = self.widths
        starts = [sum(widths[:index]) for widths in (spatial, temporal)]
        sizes = [spatial[index], temporal[index]]
        return tuple([part[:, :, starts[i // 3] : starts[i // 3] + sizes[i // 3]] for i, part in enumerate(packed)])

    def mask(self, masks, index, height, width):
        """The slice of the packed masks for the scale of transformer `index`; height, width: of the latents."""
        level = self.levels[index]
        start = sum([(height >> i) * (width >> i) for i in range(level)])
        return masks[:, start : start + (height >> level) * (width >> level)]

    def construct(
        self, sample, time, ids, masks, key, value, clip, temporal_key, temporal_value, temporal_clip, positions
    ):
        packed = (key, value, clip, temporal_key, temporal_value, temporal_clip)
        prediction, _ = self.whole(0, sample, time, ids, masks, packed, positions)
        return prediction

    def whole(self, branch, sample, time, ids, masks, packed, positions):
        """(prediction, features that `shallow` goes on from), see FeatureUNet."""
        b, frames, c, h, w = sample.shape
        embedding = silu(self.time_embedding(time) + self.add_embedding(ids))  # every use starts with this SiLU
        x = self.conv_in(ops.reshape(sample, (b * frames, c, h, w)))
        skips, index = (x,), 0
        for level, block in enumerate(self.down_blocks):
            for layer, resnet in enumerate(block.resnets):
                x = resnet(x, embedding, frames)
                if len(block.attentions) > 0:
                    x = self.attend(block.attentions[layer], x, packed, masks, positions, index, frames, h, w)
                    index += 1
                skips = (*skips, x)
            if level < len(self.downsamplers):
                x = self.downsamplers[level](x)
                skips = (*skips, x)
        x = self.mid_block.resnets[0](x, embedding, frames)
        x = self.attend(self.mid_attention, x, packed, masks, positions, index, frames, h, w)
        index += 1
        x = self.mid_block.resnets[1](x, embedding, frames)
        features = x
        for level, block in enumerate(self.up_blocks):
            for layer, resnet in enumerate(block.resnets):
                if level == len(self.up_blocks) - 1 and layer == len(block.resnets) - 1 - branch:
                    features = x
                x = resnet(ops.concat((x, skips[-1]), 1), embedding, frames)
                skips = skips[:-1]
                if len(block.attentions) > 0:
                    x = self.attend(block.attentions[layer], x, packed, masks, positions, index, frames, h, w)
                    index += 1
            if level < len(self.upsamplers):
                x = self.upsamplers[level](x)
        return self.out(x, frames), features

    def shallow(self, branch, sample, time, ids, masks, packed, positions, features):
        """The prediction from features of an earlier step, see ShallowUNet."""
        b, frames, c, h, w = sample.shape
        embedding = silu(self.time_embedding(time) + self.add_embedding(ids))
        x = self.conv_in(ops.reshape(sample, (b * frames, c, h, w)))
        skips = (x,)
        down, up = self.down_blocks[0], self.up_blocks[len(self.up_blocks) - 1]
        for layer in range(branch):
            x = down.resnets[layer](x, embedding, frames)
            x = self.attend(down.attentions[layer], x, packed, masks, positions, layer, frames, h, w)
            skips = (*skips, x)
        x = features
        for back in range(branch, -1, -1):  # layers from the end
            layer, index = len(up.resnets) - 1 - back, len(self.channels) - 1 - back
            x = up.resnets[layer](ops.concat((x, skips[back]), 1), embedding, frames)
            x = self.attend(up.attentions[layer], x, packed, masks, positions, index, frames, h, w)
        return self.out(x, frames)

    def out(self, x, frames):
        """Features of the last layer (b*t, c0, h, w) -> prediction (b, t, out, h, w)."""
        x = self.conv_out(silu(self.conv_norm_out(x)))
        return ops.reshape(x, (x.shape[0] // frames, frames, *x.shape[1:]))

    def attend(self, transformer, x, packed, masks, positions, index, frames, h, w):
        """Run transformer number `index` with its share of the packed inputs."""
        start = sum(self.channels[:index])
        position = positions[:, start : start + self.channels[index]]
        return transformer(x, self.contexts(packed, index), self.mask(masks, index, h, w), position, frames)


class SonicUNet(nn.Cell):
    """Both Cells of one weight file: `context` once a clip, `denoiser` at every step."""

    def __init__(self, config, max_scores=MAX_SCORES):
        super().__init__()
        self.transformers = config.transformers
        self.context = UNetContext(config)
        self.denoiser = UNet(config, max_scores)
        shrink(self, config.kept)

    def shared_members(self):
        """Rows that a cross-attention's heads have in the context, {name of a group: members}."""
        return {
            f"denoiser.{path}.{part}.attn2.heads": rows(
                *[f"context.layers.{i}.{part}.{one}.weight" for one in ("audio_key", "audio_value", "clip_value")]
            )
            for i, path in enumerate(self.transformers)
            for part in ("spatial", "temporal")
        }


class FeatureUNet(nn.Cell):
    """A UNet that also gives the features from which ShallowUNet can go on at the next steps, (b*t, c, h, w).

    DeepCache (Ma et al., CVPR 2024): features of the deep levels change slowly from step to step. branch: layers of the
    first level that ShallowUNet still runs on the way down, 0 to layers_per_block, and one more on the way up; the
    features are what enters those. The weights are those of `unet`, under their own names.
    """

    def __init__(self, unet, branch):
        super().__init__(auto_prefix=False)
        self.unet, self.branch = unet, branch

    def construct(
        self, sample, time, ids, masks, key, value, clip, temporal_key, temporal_value, temporal_clip, positions
    ):
        packed = (key, value, clip, temporal_key, temporal_value, temporal_clip)
        return self.unet.whole(self.branch, sample, time, ids, masks, packed, positions)


class ShallowUNet(nn.Cell):
    """The prediction of a step (b, t, out, h, w) from the features that FeatureUNet gave at an earlier one: only the
    first layers of the finest level are computed, and the last ones."""

    def __init__(self, unet, branch):
        super().__init__(auto_prefix=False)
        self.unet, self.branch = unet, branch

    def construct(
        self, sample, time, ids, masks, key, value, clip, temporal_key, temporal_value, temporal_clip, positions,
        features,
    ):  # fmt: skip
        packed = (key, value, clip, temporal_key, temporal_value, temporal_clip)
        return self.unet.shallow(self.branch, sample, time, ids, masks, packed, positions, features)
