"""What a training step of sonic-base keeps for its backward pass, and what is at work there, from the shapes alone.

Counted are activations, by what each operator keeps, and what oneDNN keeps on a CPU; memory.py adds what is exact. See
docs/measured/training.md for how far this was checked on a CPU (bench/check_memory_plan.py), and on no Ascend at all.
"""

import os
from dataclasses import dataclass

import numpy as np

from sonic_ms.base.configs import VAEConfig
from sonic_ms.base.preflight import unet_blocks
from sonic_ms.base.unet import MAX_SCORES

WIDE_BYTES = 4  # of an activation that is float32 whatever the network's precision: norms, SiLU, softmax
NARROW_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}  # of a weight and of any other activation
# Besides what is kept, while the backward pass is inside half a block: tensors of its level, as [wide, narrow], which
# were measured on single blocks; or, inside self-attention, fewer tensors and SCORE_MATRICES of scores, all wide. Three
# of these are alive at once; that the pool takes half the place of a fourth is fitted: see docs/measured/training.md.
RES_WORKING, TRANSFORMER_WORKING = np.array([6, 0]), np.array([18, 5])
ATTENTION_WORKING, SCORE_MATRICES = np.array([4, 0]), 3.6


@dataclass(frozen=True)
class DecodedWindow:
    """What the lip-sync term decodes of each clip: `frames` pictures, by the decoder of `vae`."""

    vae: VAEConfig
    frames: int

    def sides(self, height, width):
        """Of the pictures, from those of the latents."""
        return height * self.vae.downscale, width * self.vae.downscale


@dataclass(frozen=True)
class Moves:
    """What is trained inside the UNet's blocks. spatial, temporal: every weight of these halves; adapted: names of the
    layers that have LoRA."""

    spatial: bool
    temporal: bool
    adapted: frozenset

    @classmethod
    def of(cls, config):
        everything = "all" in config.trainable
        adapted = frozenset(config.lora.targets if "lora" in config.trainable else ())
        return cls(everything, everything or "temporal" in config.trainable, adapted)

    def matrix(self, name, temporal):
        """Whether the backward pass needs the input of dense layer `name`: itself or its LoRA is trained."""
        return (self.temporal if temporal else self.spatial) or name in self.adapted


# Tensors that a block keeps for its backward pass, as [float32, network's own width] in tensors of (frames, channels,
# pixels): every norm, SiLU and blend is float32, the rest is narrow in half precision. Read off the operators of the
# networks in models/: a product keeps both factors, a sigmoid its result, a matrix its input if it is trained,
# GatedGelu both inputs, Attention q, k, v and its result.


def norm_silu_conv(taps, trained):
    """Group norm (input, scale spread to pixels), SiLU (input, sigmoid), input of a convolution over `taps` frames."""
    return np.array([4, taps * trained])


def spatial_res(grown, moves):
    """grown: channels of the input over those of the block."""
    return (1 + grown) * norm_silu_conv(1, moves.spatial)


def temporal_res(moves):
    return 2 * norm_silu_conv(3, moves.temporal)


def layer_norm(trained, into):
    """Input, spread deviation and weight, normalised where the weight is trained; its result, if `into` a matrix that
    needs it."""
    return np.array([3 + trained, into])


def feed_forward(moves, temporal):
    trained = moves.temporal if temporal else moves.spatial
    return layer_norm(trained, trained) + np.array([0, 8 + 4 * trained])  # value and gate; the product


def self_attention(moves, temporal):
    trained = moves.temporal if temporal else moves.spatial
    into = any(moves.matrix(name, temporal) for name in ("to_q", "to_k", "to_v"))
    return layer_norm(trained, into) + np.array([0, 4 + moves.matrix("to_out", temporal)])


def cross_attention(moves, temporal):
    trained = moves.temporal if temporal else moves.spatial
    out = moves.matrix("to_out", temporal)
    return layer_norm(trained, moves.matrix("to_q", temporal)) + np.array([not temporal, 2 + out])  # wide: the mask


@dataclass(frozen=True)
class Half:
    """Spatial or temporal half of a residual block or transformer, tensors as [wide, narrow]. between: kept with and
    without recompute; inside: kept without; working: at work in the backward pass; attention: what of `inside` is left
    when the backward pass comes to self-attention with scores worth counting, of `heads`. level: how many times the
    sides of the largest picture are halved."""

    level: int
    channels: int
    between: np.ndarray
    inside: np.ndarray
    working: np.ndarray
    attention: np.ndarray | None = None
    heads: int = 0


def halves(unet, moves):
    """[Half] of the UNet in the order they run. Before the first weight that is trained nothing is kept."""
    found, moving = [], moves.spatial
    for level, channels_in, channels, attends in unet_blocks(unet):
        grown = channels_in / channels
        inside, between = spatial_res(grown, moves), np.array([0, grown])
        found.append(Half(level, channels, moving * between, moving * inside, moving * RES_WORKING))
        moving = moving or moves.temporal
        inside, between = temporal_res(moves), np.array([moves.temporal, 1])  # what is blended, what enters
        found.append(Half(level, channels, moving * between, moving * inside, moving * RES_WORKING))
        if attends:
            moving = moving or bool(moves.adapted)
            attention = self_attention(moves, False) if moving else None
            inside = moving * self_attention(moves, False) + cross_attention(moves, False) + feed_forward(moves, False)
            between = np.array([2, 1 + moves.spatial])  # the norm's input and scale, what enters
            heads = unet.num_attention_heads[level]
            found.append(Half(level, channels, between, inside, TRANSFORMER_WORKING, attention, heads))
            moving = True  # the audio came in
            inside = self_attention(moves, True) + cross_attention(moves, True) + 2 * feed_forward(moves, True)
            between = np.array([0, 1 + moves.temporal + moves.spatial])  # what enters, is blended, and leaves
            found.append(Half(level, channels, between, inside, TRANSFORMER_WORKING))
    return found


def decoder_blocks(vae):
    """[(level, channels in, channels)] of the residual blocks of the VAE's decoder, in order; level 0 has the most
    pixels."""
    channels, found = vae.block_out_channels, []
    before, last = channels[-1], len(channels) - 1
    found += [(last, before, before)] * vae.layers_per_block
    for level in reversed(range(len(channels))):
        size = channels[level]
        found += [(level, before, size)] + [(level, size, size)] * vae.layers_per_block
        before = size
    return found


def decoder_halves(vae):
    """[Half] of the VAE's decoder, which is frozen: only the way to the latents is kept. Its last norm is never
    computed again."""
    frozen, found = Moves(False, False, frozenset()), []
    for number, (level, channels_in, channels) in enumerate(decoder_blocks(vae)):
        grown = channels_in / channels
        found.append(Half(level, channels, np.array([0, grown]), spatial_res(grown, frozen), RES_WORKING))
        found.append(Half(level, channels, np.array([0, 1]), temporal_res(frozen), RES_WORKING))
        if number == 0:
            inside = np.array([2, 4])  # group norm; q, k, v and the result
            found.append(Half(level, channels, np.array([0, 1]), inside, RES_WORKING, inside, 1))
    return [*found, Half(0, vae.block_out_channels[0], np.array([0, 0]), norm_silu_conv(1, False), RES_WORKING)]


def backward_peak(halves, frames, height, width, config, kept=0.0):
    """(peak, kept) in bytes of a network on `frames` pictures, height x width on level 0; kept: by what runs before.

    The backward pass takes the halves from the last to the first. In each it needs what all earlier ones keep and this
    one's inside, which with recompute exists only now, and what is at work: in self-attention or elsewhere.
    """
    bytes_of = np.array([WIDE_BYTES, NARROW_BYTES[config.loop.precision]])
    peak = 0.0
    for half in halves:
        pixels = (height >> half.level) * (width >> half.level)
        tensor = frames * half.channels * pixels * bytes_of
        kept += tensor @ half.between
        inside = tensor @ half.inside
        peak = max(peak, kept + inside + tensor @ half.working)
        if half.attention is not None:
            scores = min(MAX_SCORES, frames * half.heads * pixels**2)
            left = tensor @ (half.attention + ATTENTION_WORKING)
            peak = max(peak, kept + left + SCORE_MATRICES * WIDE_BYTES * scores)
        kept += 0.0 if config.recompute else inside
    return peak, kept


def activation_bytes(unet, config, height, width, window=None):
    """Bytes of activations at the peak of one batch; height and width of the latents; window: DecodedWindow of the
    lip-sync term, if there is one. Its backward pass comes first, while all that the UNet keeps is there."""
    clips = config.loop.batch_size
    peak, kept = backward_peak(halves(unet, Moves.of(config)), clips * config.frames, height, width, config)
    if window is None:
        return peak
    sides = window.sides(height, width)
    return max(peak, backward_peak(decoder_halves(window.vae), clips * window.frames, *sides, config, kept)[0])


def convolutions(unet):
    """[(level of the result, channels in, channels out)] of the convolutions with windows of 3x3, in no special order
    but for the first three, which run first."""
    channels = unet.block_out_channels
    found = [(0, unet.in_channels, channels[0])]
    for level, channels_in, size, _ in unet_blocks(unet):
        found += [(level, channels_in, size), (level, size, size)]
    for level, size in enumerate(channels):
        found += [(level + 1, size, size)] if level + 1 < len(channels) else []
        found += [(level - 1, size, size)] if level else []
    return [*found, (0, channels[0], unet.out_channels)]


def decoder_convolutions(vae):
    """The same of the VAE's decoder, in no special order."""
    channels = vae.block_out_channels
    found = [(len(channels) - 1, vae.latent_channels, channels[-1]), (0, channels[0], 3)]
    for level, channels_in, size in decoder_blocks(vae):
        found += [(level, channels_in, size), (level, size, size)]
    return found + [(level - 1, size, size) for level, size in enumerate(channels) if level]


def gradient_scratch(layers, frames, height, width, first_input, weights):
    """Bytes that oneDNN keeps for the gradients of convolutions on a CPU, all the time.

    To the input: on each thread the windows of one frame, or on one thread if the frames cannot be shared out evenly,
    and the weights twice; to the weights: one frame's windows and the weights. Measured on convolutions alone, on two
    threads. layers: see `convolutions`; first_input: number of the first one with a gradient to the input; weights:
    whether they have gradients too.
    """
    threads, total = os.cpu_count(), 0
    threads = threads if frames % threads == 0 else 1
    for number, (level, channels_in, channels_out) in enumerate(layers):
        patches, matrix = 9 * channels_in * (height >> level) * (width >> level), 9 * channels_in * channels_out
        total += (number >= first_input) * (threads * patches + 2 * matrix) + weights * (patches + matrix)
    return WIDE_BYTES * total


def scratch_bytes(unet, config, height, width, window=None):
    """Bytes besides a Plan that a CPU needs, all the time: see gradient_scratch. height, width: of the latents."""
    moves, clips = Moves.of(config), config.loop.batch_size
    first = 1 if moves.spatial else 3  # nothing moves before the first block
    total = gradient_scratch(convolutions(unet), clips * config.frames, height, width, first, moves.spatial)
    if window is None:
        return total
    sides = window.sides(height, width)
    return total + gradient_scratch(decoder_convolutions(window.vae), clips * window.frames, *sides, 0, False)
