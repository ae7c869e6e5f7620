"""What of sonic-base is trained: parts by name, frozen and recomputed Cells, and the loss over them."""

import re

import mindspore as ms
import numpy as np

from sonic_ms.base.resnet import SpatialResBlock, TemporalResBlock
from sonic_ms.base.unet import SpatialBlock, TemporalBlock
from sonic_ms.base.vae import MidAttention
from sonic_ms.errors import UsageError
from sonic_ms.files.weights import set_precision
from sonic_ms.train.base.diffusion import SonicLoss
from sonic_ms.train.base.lora import add_lora
from sonic_ms.train.loop.trainer import NO_BF16, has_bf16
from sonic_ms.train.syncnet.loss import SyncedLoss

TRAINED = ("unet", "audio2token", "audio2bucket")
PARTS = {  # what `trainable` may name -> parameters of SonicLoss
    "audio": r"audio2(token|bucket)\..*|unet\.context\..*\.audio_(key|value)\..*",
    "temporal": r"unet\.denoiser\..*\.(temporal|temporal_res_block)\..*|unet\.denoiser\..*\.temporal_weight"
    r"|unet\.context\.layers\.\d+\.(time_pos_embed\..*|temporal\.clip_value\..*)",
    "lora": r".*\.lora_(up|down)",
    "all": r"(unet|audio2token|audio2bucket)\..*",
}


def set_training_precision(cell, precision):
    """Width of a fresh Cell's parameters: set_precision, and bf16 where the device has it."""
    if precision != "bf16":
        return set_precision(cell, precision)
    if not has_bf16():
        raise UsageError(NO_BF16.format(ms.get_context("device_target")))
    for parameter in cell.get_parameters():
        parameter.set_dtype(ms.bfloat16)
    return cell


def freeze(loss, trainable):
    """Train only the parameters of the named parts; returns their number of elements."""
    pattern = re.compile("|".join(f"(?:{PARTS[name]})" for name in trainable))
    count = 0
    for name, parameter in loss.parameters_and_names():
        parameter.name = name  # LoRA has moved layers: checkpoints name them by where they are
        parameter.requires_grad = bool(pattern.fullmatch(name))
        count += int(np.prod(parameter.shape)) * parameter.requires_grad
    if not count:
        raise UsageError(f"nothing is trained: trainable {list(trainable)} names no parameter of this model")
    return count


def recompute_blocks(cell):
    """Keep no activations inside the blocks of the UNet or the VAE's decoder: only what goes from one to the next.

    None with attention may be left out: MindSpore names the nodes of all attentions alike, and computes nothing again
    that comes after a node which has the name of a backward pass outside of a block (see `recompute`).
    """
    for _, inner in cell.cells_and_names():
        if isinstance(inner, (SpatialResBlock, TemporalResBlock, SpatialBlock, TemporalBlock, MidAttention)):
            recompute(inner)


def recompute(cell):
    """Keep nothing of what a Cell computes for the backward pass, compute it again there."""
    cell.recompute()
    for _, inner in cell.cells_and_names():
        if inner.has_bprop:
            # MindSpore computes again what nodes called Gradients/... take, and calls those of a bprop what the Cell is
            # called: all that such a Cell takes would be kept. Its forward pass is called recompute_Gradients/... then.
            inner._scope = f"Gradients/{type(inner).__name__}"


def build_loss(networks, config, sync=None):
    """SonicLoss of loaded networks, with a SyncTerm if given; all that is not trained is frozen."""
    unet = networks.cells["unet"]
    if "lora" in config.trainable:
        add_lora(unet, config.lora, config.loop.seed)
    arguments = (networks.configs["unet"], *networks.cells.values(), config.frames, config.bucket_weight)
    loss = SyncedLoss(sync, config.sync.weight, *arguments) if sync else SonicLoss(*arguments)
    freeze(loss, config.trainable)
    if config.recompute:
        recompute_blocks(unet.denoiser)
        if sync:
            recompute_blocks(sync.decoder)
    return loss
