"""Bytes that one device needs for a training step of sonic-base, predicted from the shapes before anything runs.

Weights, gradients and optimizer states are counted exactly; for activations see activations.py.
"""

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from sonic_ms.base.preflight import COMPILED_BYTES, START_BYTES, available_gigabytes, unet_blocks
from sonic_ms.errors import ResourceError
from sonic_ms.train.base.activations import (
    NARROW_BYTES,
    DecodedWindow,
    activation_bytes,
    decoder_blocks,
    scratch_bytes,
)
from sonic_ms.train.loop.optimizer import parts_of

GB = 1e9
RESERVE = 2 * GB  # of a device for CANN, communication and fragments: an assumption, not measured
DEVICES = {"910A 32 GB": 32 * GB, "910B 64 GB": 64 * GB}


@dataclass(frozen=True)
class MemoryPlan:
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
    """SonicLoss whose parameters have shapes and no values; with `sync`, an expert of the recipe's size."""
    from mindspore import nn

    from sonic_ms.base.cells import CELLS
    from sonic_ms.base.vae import Decoder
    from sonic_ms.train.base.trained import TRAINED, build_loss
    from sonic_ms.train.syncnet.loss import SyncTerm
    from sonic_ms.train.syncnet.network import SyncNet, SyncNetConfig

    sync, expert = None, SyncNetConfig()
    with nn.utils.no_init_parameters():
        cells = {name: CELLS[name](configs[name]) for name in TRAINED}
        if config.sync:
            decoder = Decoder(configs["vae"])
            sync = SyncTerm(decoder, configs["vae"].scaling_factor, SyncNet(expert), expert.frames)
    return build_loss(SimpleNamespace(cells=cells, configs=configs), config, sync)


def plan(unet, shapes, config, height, width, devices=1, window=None):
    """Plan of a BaseFinetuneConfig. unet: UNetConfig; shapes: see shapes_of; height, width: of the latents;
    window: DecodedWindow of the lip-sync term."""
    loop, width_of = config.loop, NARROW_BYTES[config.loop.precision]
    sizes = [(int(np.prod(shape)), parts_of(shape, devices, loop.shard_optimizer), move) for shape, move in shapes]
    states = 3 + (loop.precision != "fp32") + (loop.average > 0)  # totals, two moments, masters, average
    return MemoryPlan(
        weights=width_of * sum(size for size, _, _ in sizes),
        gradients=width_of * sum(size for size, _, trained in sizes if trained),
        optimizer=4 * states * sum(size / parts for size, parts, trained in sizes if trained),
        activations=activation_bytes(unet, config, height, width, window),
    )


def available(unet, config, height, width, window=None):
    """Bytes that this machine has for a MemoryPlan. See plan."""
    import mindspore as ms

    if ms.get_context("device_target") == "Ascend":  # never run on one
        return ms.hal.get_device_properties(ms.get_context("device_id")).total_memory - RESERVE
    blocks = len(unet_blocks(unet)) + (len(decoder_blocks(window.vae)) if window else 0)
    scratch = scratch_bytes(unet, config, height, width, window)
    return available_gigabytes() * GB - START_BYTES - COMPILED_BYTES * blocks - scratch


def check_memory(unet, shapes, config, height, width, devices=1, free=None, window=None):
    """ResourceError when a step cannot fit into `free` bytes, by default what there is; returns the MemoryPlan."""
    needed = plan(unet, shapes, config, height, width, devices, window)
    free = available(unet, config, height, width, window) if free is None else free
    if needed.total > free:
        smaller = ["batch_size 1"] if config.loop.batch_size > 1 else ["fewer frames"]
        smaller += [] if config.recompute else ["recompute"]
        smaller += [] if config.loop.shard_optimizer or devices == 1 else ["shard_optimizer"]
        smaller += ["no sync"] if window else []
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
    from sonic_ms.base.check import PUBLISHED
    from sonic_ms.train.base.trained import freeze
    from sonic_ms.train.syncnet.network import SyncNetConfig

    configs = configs or PUBLISHED
    unet, downscale = configs["unet"], configs["vae"].downscale
    window = DecodedWindow(configs["vae"], SyncNetConfig().frames) if config.sync else None
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
        return plan(unet, shapes[chosen], variant, side // downscale, side // downscale, devices, window)

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
    if window:
        lines.append(f"with the lip-sync term on windows of {window.frames} frames")
    return "\n".join(lines)
