"""Bytes that one device needs for a training step of sonic-base, predicted from the shapes before anything runs.

Weights, gradients and optimizer states are counted exactly; activations are tensors a block times constants, see
docs/training.md for how far these were checked on a CPU (tools/check_memory_plan.py), and on no Ascend at all.
"""

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from sonic_ms.errors import ResourceError
from sonic_ms.preflight import COMPILED_BYTES, START_BYTES, available_gigabytes, unet_blocks
from sonic_ms.train.optimizer import parts_of

GB = 1e9
# Activations in tensors (clips * frames, channels, h, w) of a block's level. Kept until the backward pass: of a
# residual block, of a transformer with its three feed-forwards, and attention scores of every head in matrices.
RES_TENSORS, ATTENTION_TENSORS, SCORE_MATRICES = 20.0, 300.0, 3.0
# With recompute: kept between blocks, and how many times the largest block is alive while it is computed again.
KEPT_RES_TENSORS, KEPT_ATTENTION_TENSORS, RECOMPUTED_SHARE = 4.0, 10.0, 1.6
ACTIVATION_BYTES = {"fp32": 4.0, "fp16": 3.0, "bf16": 3.0}  # an element; norms and softmax stay float32
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
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


def activation_elements(unet, batch, frames, height, width, recompute):
    """Elements of activations at the peak of one batch; height and width of the latents."""
    kept = largest = 0.0
    for level, _, channels, attends in unet_blocks(unet):
        pixels = (height >> level) * (width >> level)
        tensor = batch * frames * pixels * channels
        block = RES_TENSORS * tensor
        kept += (KEPT_RES_TENSORS if recompute else RES_TENSORS) * tensor
        if attends:
            scores = batch * frames * unet.num_attention_heads[level] * pixels**2
            attention = ATTENTION_TENSORS * tensor + SCORE_MATRICES * scores
            block = max(block, attention)
            kept += KEPT_ATTENTION_TENSORS * tensor if recompute else attention
        largest = max(largest, block)
    return kept + (RECOMPUTED_SHARE * largest if recompute else 0.0)


def plan(unet, shapes, config, height, width, devices=1):
    """Plan of a BaseFinetuneConfig. unet: UNetConfig; shapes: see shapes_of; height, width: of the latents."""
    loop, width_of = config.loop, WEIGHT_BYTES[config.loop.precision]
    sizes = [(int(np.prod(shape)), parts_of(shape, devices, loop.shard_optimizer), move) for shape, move in shapes]
    states = 3 + (loop.precision != "fp32") + (loop.average > 0)  # totals, two moments, masters, average
    return Plan(
        weights=width_of * sum(size for size, _, _ in sizes),
        gradients=width_of * sum(size for size, _, trained in sizes if trained),
        optimizer=4 * states * sum(size / parts for size, parts, trained in sizes if trained),
        activations=ACTIVATION_BYTES[loop.precision]
        * activation_elements(unet, loop.batch_size, config.frames, height, width, config.recompute),
    )


def available(unet):
    """Bytes that this machine has for a Plan."""
    import mindspore as ms

    if ms.get_context("device_target") == "Ascend":  # never run on one
        return ms.hal.get_device_properties(ms.get_context("device_id")).total_memory - RESERVE
    return available_gigabytes() * GB - START_BYTES - COMPILED_BYTES * len(unet_blocks(unet))


def check_memory(unet, shapes, config, height, width, devices=1, free=None):
    """ResourceError when a step cannot fit into `free` bytes, by default what there is; returns the Plan. See plan."""
    needed = plan(unet, shapes, config, height, width, devices)
    free = available(unet) if free is None else free
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


def table(config, sides=(512, 512), configs=None):
    """What `sonic-ms train CONFIG --plan` prints: this config in parts, then its neighbours. sides: picture in pixels.

    configs: {network: config dataclass}, the published sizes by default.
    """
    from sonic_ms.base_check import PUBLISHED
    from sonic_ms.train.base import freeze

    configs = configs or PUBLISHED
    unet, downscale = configs["unet"], configs["vae"].downscale
    height, width = sides[0] // downscale, sides[1] // downscale
    shapes, plain = {}, unbuilt_loss(configs, dataclasses.replace(config, trainable=("all",)))
    for chosen in dict.fromkeys((config.trainable, *TRAINED_SETS)):
        if "lora" in chosen:  # has layers of its own
            shapes[chosen] = unbuilt_shapes(configs, dataclasses.replace(config, trainable=chosen))
        else:
            freeze(plain, chosen)
            shapes[chosen] = shapes_of(plain)

    def bytes_of(chosen, recompute, batch, devices):
        loop = dataclasses.replace(config.loop, batch_size=batch, shard_optimizer=devices > 1)
        variant = dataclasses.replace(config, trainable=chosen, recompute=recompute, loop=loop)
        return plan(unet, shapes[chosen], variant, height, width, devices)

    own = plan(unet, shapes[config.trainable], config, height, width)
    lines = [
        f"predicted bytes on a device, {config.loop.precision}, {config.frames} frames of {sides[1]}x{sides[0]} (GB)",
        f"this config, one device: weights {own.weights / GB:.2f}, gradients {own.gradients / GB:.2f}, optimizer "
        f"{own.optimizer / GB:.2f}, activations {own.activations / GB:.2f}, together {own.total / GB:.2f}",
        f"{'trainable':16}{'recompute':11}{'devices':9}{'trained':>9}{'batch 1':>9}{'batch 2':>9}{'batch 4':>9}"
        + "".join(f"  {name:>18}" for name in DEVICES),
    ]
    for chosen in shapes:
        trained = sum(int(np.prod(shape)) for shape, move in shapes[chosen] if move)
        for recompute in (True, False):
            for devices in (1, 8):
                totals = [bytes_of(chosen, recompute, batch, devices).total for batch in (1, 2, 4)]
                largest = [
                    next((b for b in range(64, 0, -1) if bytes_of(chosen, recompute, b, devices).total <= room), 0)
                    for room in (size - RESERVE for size in DEVICES.values())
                ]
                lines.append(
                    f"{'+'.join(chosen):16}{'yes' if recompute else 'no':11}{devices:<9}{trained / 1e6:>7.0f} M"
                    + "".join(f"{total / GB:>9.1f}" for total in totals)
                    + "".join(f"  {f'batch {one}' if one else 'does not fit':>18}" for one in largest)
                )
    lines.append(f"kept free for a device's runtime: {RESERVE / GB:.0f} GB; 8 devices: shard_optimizer is on")
    return "\n".join(lines)
