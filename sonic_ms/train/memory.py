"""Bytes that one device needs for a training step of sonic-base, predicted from the shapes before anything runs.

Weights, gradients and optimizer states are counted exactly; activations by what each operator of the UNet keeps. See
docs/training.md for how far these were checked on a CPU (tools/check_memory_plan.py), and on no Ascend at all.
"""

import dataclasses
import os
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from sonic_ms.errors import ResourceError
from sonic_ms.models.unet import MAX_SCORES
from sonic_ms.preflight import COMPILED_BYTES, START_BYTES, available_gigabytes, unet_blocks
from sonic_ms.train.optimizer import parts_of

GB = 1e9
WIDE_BYTES = 4  # of an activation that is float32 whatever the network's precision: norms, SiLU, softmax
NARROW_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}  # of a weight and of any other activation
# Besides what is kept, while the backward pass is inside half a block: tensors of its level, as [wide, narrow], which
# were measured on single blocks; or, inside self-attention, fewer tensors and SCORE_MATRICES of scores, all wide. Three
# of these are alive at once; that the pool takes half the place of a fourth is fitted: see docs/training.md.
RES_WORKING, TRANSFORMER_WORKING = np.array([6, 0]), np.array([18, 5])
ATTENTION_WORKING, SCORE_MATRICES = np.array([4, 0]), 3.6
RESERVE = 2 * GB  # of a device for CANN, communication and fragments: an assumption, not measured
DEVICES = {"910A 32 GB": 32 * GB, "910B 64 GB": 64 * GB}


@dataclass(frozen=True)
class Plan:
    """Bytes on one device. gradients: of one batch. optimizer: totals, moments, masters, average."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self):
        return self.weights + self.gradients + self.optimizer + self.activations


def shapes_of(loss):
    """[(shape, trained)] of all parameters."""
    return [(tuple(parameter.shape), parameter.requires_grad) for parameter in loss.get_parameters()]


def unbuilt_shapes(configs, config):
    """shapes_of the networks that a BaseFinetuneConfig trains, without their memory. configs: {network: dataclass}."""
    return shapes_of(unbuilt_loss(configs, config))


def unbuilt_loss(configs, config):
    """SonicLoss whose parameters have shapes and no values."""
    from mindspore import nn

    from sonic_ms.base_units import CELLS
    from sonic_ms.train.base import TRAINED, build_loss

    with nn.utils.no_init_parameters():
        cells = {name: CELLS[name](configs[name]) for name in TRAINED}
    return build_loss(SimpleNamespace(cells=cells, configs=configs), config)


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
    when the backward pass comes to self-attention with scores worth counting."""

    level: int
    channels: int
    between: np.ndarray
    inside: np.ndarray
    working: np.ndarray
    attention: np.ndarray | None = None


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
            found.append(Half(level, channels, between, inside, TRANSFORMER_WORKING, attention))
            moving = True  # the audio came in
            inside = self_attention(moves, True) + cross_attention(moves, True) + 2 * feed_forward(moves, True)
            between = np.array([0, 1 + moves.temporal + moves.spatial])  # what enters, is blended, and leaves
            found.append(Half(level, channels, between, inside, TRANSFORMER_WORKING))
    return found


def activation_bytes(unet, config, height, width):
    """Bytes of activations at the peak of one batch; height and width of the latents.

    The backward pass takes the halves from the last to the first. In each it needs what all earlier ones keep and this
    one's inside, which with recompute exists only now, and what is at work: in self-attention or elsewhere.
    """
    bytes_of = np.array([WIDE_BYTES, NARROW_BYTES[config.loop.precision]])
    frames, kept, peak = config.loop.batch_size * config.frames, 0.0, 0.0
    for half in halves(unet, Moves.of(config)):
        pixels = (height >> half.level) * (width >> half.level)
        tensor = frames * half.channels * pixels * bytes_of
        kept += tensor @ half.between
        inside = tensor @ half.inside
        peak = max(peak, kept + inside + tensor @ half.working)
        if half.attention is not None:
            scores = min(MAX_SCORES, frames * unet.num_attention_heads[half.level] * pixels**2)
            left = tensor @ (half.attention + ATTENTION_WORKING)
            peak = max(peak, kept + left + SCORE_MATRICES * WIDE_BYTES * scores)
        kept += 0.0 if config.recompute else inside
    return peak


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


def scratch_bytes(unet, config, height, width):
    """Bytes besides a Plan that a CPU needs, all the time: what oneDNN keeps for every gradient of a convolution.

    To the input: on each thread the windows of one frame, or on one thread if the frames cannot be shared out evenly,
    and the weights twice; to the weights: one frame's windows and the weights. Measured on convolutions alone, on two
    threads. height, width: of the latents.
    """
    moves, total = Moves.of(config), 0
    frames, threads = config.loop.batch_size * config.frames, os.cpu_count()
    threads = threads if frames % threads == 0 else 1
    for number, (level, channels_in, channels_out) in enumerate(convolutions(unet)):
        windows, weights = 9 * channels_in * (height >> level) * (width >> level), 9 * channels_in * channels_out
        to_input = number > 0 if moves.spatial else number > 2  # nothing moves before the first block
        total += to_input * (threads * windows + 2 * weights) + moves.spatial * (windows + weights)
    return WIDE_BYTES * total


def plan(unet, shapes, config, height, width, devices=1):
    """Plan of a BaseFinetuneConfig. unet: UNetConfig; shapes: see shapes_of; height, width: of the latents."""
    loop, width_of = config.loop, NARROW_BYTES[config.loop.precision]
    sizes = [(int(np.prod(shape)), parts_of(shape, devices, loop.shard_optimizer), move) for shape, move in shapes]
    states = 3 + (loop.precision != "fp32") + (loop.average > 0)  # totals, two moments, masters, average
    return Plan(
        weights=width_of * sum(size for size, _, _ in sizes),
        gradients=width_of * sum(size for size, _, trained in sizes if trained),
        optimizer=4 * states * sum(size / parts for size, parts, trained in sizes if trained),
        activations=activation_bytes(unet, config, height, width),
    )


def available(unet, config, height, width):
    """Bytes that this machine has for a Plan. height, width: of the latents."""
    import mindspore as ms

    if ms.get_context("device_target") == "Ascend":  # never run on one
        return ms.hal.get_device_properties(ms.get_context("device_id")).total_memory - RESERVE
    compiled = COMPILED_BYTES * len(unet_blocks(unet))
    return available_gigabytes() * GB - START_BYTES - compiled - scratch_bytes(unet, config, height, width)


def check_memory(unet, shapes, config, height, width, devices=1, free=None):
    """ResourceError when a step cannot fit into `free` bytes, by default what there is; returns the Plan. See plan."""
    needed = plan(unet, shapes, config, height, width, devices)
    free = available(unet, config, height, width) if free is None else free
    if needed.total > free:
        smaller = ["batch_size 1"] if config.loop.batch_size > 1 else ["fewer frames"]
        smaller += [] if config.recompute else ["recompute"]
        smaller += [] if config.loop.shard_optimizer or devices == 1 else ["shard_optimizer"]
        raise ResourceError(
            f"batch_size {config.loop.batch_size} of {config.frames} frames needs about {needed.total / GB:.2f} GB on "
            f"a device, {max(free, 0) / GB:.2f} GB are free; try {', '.join(smaller)}, or train less (trainable)"
        )
    return needed


TRAINED_SETS = (("audio",), ("audio", "temporal"), ("lora",), ("all",))


SIDES, SHARDED = (512, 384, 256), 8  # pixels of the pictures, devices, in the table


def table(config, configs=None):
    """What `sonic-ms train CONFIG --plan` prints: this config in parts, then its neighbours.

    configs: {network: config dataclass}, the published sizes by default.
    """
    from sonic_ms.base_check import PUBLISHED
    from sonic_ms.train.base import freeze

    configs = configs or PUBLISHED
    unet, downscale = configs["unet"], configs["vae"].downscale
    shapes, plain = {}, unbuilt_loss(configs, dataclasses.replace(config, trainable=("all",)))
    for chosen in dict.fromkeys((config.trainable, *TRAINED_SETS)):
        if "lora" in chosen:  # has layers of its own
            shapes[chosen] = unbuilt_shapes(configs, dataclasses.replace(config, trainable=chosen))
        else:
            freeze(plain, chosen)
            shapes[chosen] = shapes_of(plain)

    def of(chosen, side, devices=1, **changes):
        loop = dataclasses.replace(config.loop, shard_optimizer=devices > 1)
        variant = dataclasses.replace(config, trainable=chosen, loop=loop, **changes)
        return plan(unet, shapes[chosen], variant, side // downscale, side // downscale, devices)

    def cell(needed):
        return f"{needed.total / GB:>9.1f} {'*' * sum(needed.total <= size - RESERVE for size in DEVICES.values()):2}"

    own = of(config.trainable, SIDES[0])
    lengths = (config.frames, (config.frames + 1) // 2)
    lines = [
        f"predicted GB on a device; {config.loop.precision}, batches of {config.loop.batch_size}",
        f"this config at {SIDES[0]}x{SIDES[0]}, one device: weights {own.weights / GB:.2f}, gradients "
        f"{own.gradients / GB:.2f}, optimizer {own.optimizer / GB:.2f}, activations {own.activations / GB:.2f}, "
        f"together {own.total / GB:.2f}",
        "** fits " + ", * fits ".join(DEVICES) + f"; {RESERVE / GB:.0f} GB of it are left to the device's runtime",
        f"{'':37}" + "".join(f"{f'{frames} frames of':>{12 * len(SIDES)}}" for frames in lengths),
        f"{'trainable':16}{'recompute':11}{'devices':10}" + "".join(f"{side:>9}   " for _ in lengths for side in SIDES),
    ]
    for chosen in shapes:
        for recompute in (True, False):
            for devices in (1, SHARDED):
                plans = [
                    of(chosen, side, devices, recompute=recompute, frames=frames)
                    for frames in lengths
                    for side in SIDES
                ]
                head = f"{'+'.join(chosen):16}{'yes' if recompute else 'no':11}{devices:<10}"
                lines.append(head + "".join(cell(one) for one in plans))
    lines.append(f"{SHARDED} devices: each has a batch of its own, shard_optimizer is on")
    return "\n".join(lines)
