"""Recipe of sonic-base: fine-tune a converted model on shards, some of its parts or all of them.

The networks are the Cells that inference runs. What is trained is set by name: `audio` (both audio networks and the
audio keys and values of every attention), `temporal` (everything that mixes frames), `lora` (low-rank changes of the
named layers), `all`. The result is a complete converted folder, with LoRA merged, ready for `generate` and export.
"""

import dataclasses
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np

from sonic_ms.base.cells import CELLS
from sonic_ms.base.resnet import SpatialResBlock, TemporalResBlock
from sonic_ms.base.unet import SpatialBlock, TemporalBlock
from sonic_ms.base.units import CONFIGS
from sonic_ms.base.vae import Decoder, MidAttention
from sonic_ms.errors import OutputError, UsageError, WeightsError
from sonic_ms.files.digest import weights_digest
from sonic_ms.files.weights import load_config, load_weights, save_model, set_precision
from sonic_ms.train.base.activations import DecodedWindow
from sonic_ms.train.base.clips import Batches
from sonic_ms.train.base.diffusion import NoiseConfig, SonicLoss
from sonic_ms.train.base.lora import LoRAConfig, add_lora, merge_lora
from sonic_ms.train.base.memory import check_memory, shapes_of
from sonic_ms.train.base.validation import Validation, ValidationConfig
from sonic_ms.train.loop.distributed import Group, join
from sonic_ms.train.loop.trainer import NO_BF16, LoopConfig, has_bf16, identity_of, train
from sonic_ms.train.syncnet.loss import SyncConfig, SyncedLoss, SyncTerm, SyncWindows, load_expert

TRAINED = ("unet", "audio2token", "audio2bucket")
PARTS = {  # what `trainable` may name -> parameters of SonicLoss
    "audio": r"audio2(token|bucket)\..*|unet\.context\..*\.audio_(key|value)\..*",
    "temporal": r"unet\.denoiser\..*\.(temporal|temporal_res_block)\..*|unet\.denoiser\..*\.temporal_weight"
    r"|unet\.context\.layers\.\d+\.(time_pos_embed\..*|temporal\.clip_value\..*)",
    "lora": r".*\.lora_(up|down)",
    "all": r"(unet|audio2token|audio2bucket)\..*",
}


@dataclass(frozen=True)
class BaseFinetuneConfig:
    """model: folder of a converted sonic-base. shards: folder of `sonic-ms data build`. trainable: names of PARTS.

    frames: length of the training clips at 12.5 a second. bucket_weight: of audio2bucket's loss. recompute: keep no
    activations inside blocks, compute them twice. validation: a video every loop.validate_every steps, none by default.
    sync: the lip-sync expert as a term of the loss, none by default.
    """

    model: str
    shards: str
    loop: LoopConfig
    trainable: tuple[str, ...] = ("audio", "temporal")
    frames: int = 25
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    bucket_weight: float = 0.1
    recompute: bool = True
    validation: ValidationConfig | None = None
    sync: SyncConfig | None = None

    def __post_init__(self):
        unknown = sorted(set(self.trainable) - set(PARTS))
        if unknown or not self.trainable:
            raise UsageError(f"trainable is {list(self.trainable)}; expected some of {', '.join(PARTS)}")
        if self.frames < 1:
            raise UsageError(f"frames is {self.frames}; expected at least 1")
        if self.bucket_weight < 0:
            raise UsageError(f"bucket_weight is {self.bucket_weight}; expected 0 or more")
        if self.validation and self.loop.precision == "bf16":
            raise UsageError("validation videos are made in fp32 or fp16; train in one of them, or without validation")


class Networks:
    """The networks of a converted folder that training needs, loaded in one precision."""

    def __init__(self, folder, precision):
        folder = Path(folder)
        missing = [name for name in (*TRAINED, "vae") if not (folder / name).is_dir()]
        if missing:
            raise WeightsError(f"{folder} lacks {', '.join(missing)}; convert it with sonic-ms convert")
        self.folder = folder
        self.configs = {name: load_config(CONFIGS[name], folder / name) for name in (*TRAINED, "vae")}
        self.cells = {}
        for name in TRAINED:
            cell = set_training_precision(CELLS[name](self.configs[name]), precision)
            self.cells[name] = load_weights(cell, folder / name)
        self.precision = precision

    def decoder(self):
        """The VAE's decoder, frozen."""
        cell = set_training_precision(Decoder(self.configs["vae"]), self.precision)
        return load_weights(cell, self.folder / "vae", prefix="decoder.")

    def save(self, folder):
        """Write a complete converted folder: what was trained from memory, everything else linked or copied."""
        folder = Path(folder)
        for name in TRAINED:
            save_model(merge_lora(self.cells[name]), self.configs[name], folder / name)
        try:
            for place in self.folder.iterdir():
                if place.is_dir() and place.name not in TRAINED:
                    shutil.copytree(place, folder / place.name, copy_function=_link_or_copy, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            raise OutputError(f"cannot write {folder}: {error}") from error


def sync_digest(config):
    """Of the weights that the lip-sync term brings: those of the expert and of the VAE."""
    expert = Path(config.sync.expert)
    return weights_digest(expert.parent, [expert.name]) + weights_digest(config.model, ["vae"])


def _link_or_copy(source, target):
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


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


def build_sync(networks, config):
    """(SyncTerm, SyncWindows) of a config with `sync`."""
    expert_config, expert = load_expert(config.sync.expert)
    frames, vae = expert_config.frames, networks.configs["vae"]
    if config.frames < frames:
        raise UsageError(f"frames is {config.frames}; the expert {config.sync.expert} needs at least {frames}")
    term = SyncTerm(networks.decoder(), vae.scaling_factor, expert, frames)
    return term, SyncWindows(frames, vae.downscale, config.sync.max_sigma)


def run(config, folder, resume=False):
    """The recipe base_finetune of `sonic-ms train`: on a folder of `sonic-ms data build --model`."""
    from sonic_ms.data.shards import Shards

    return finetune(config, Shards(config.shards), folder, resume, join())


def finetune(config, samples, folder, resume=False, group=None):
    """Train on `samples` (see clips.py) and write folder/model; returns the last row of the log."""
    group = group or Group()
    networks = Networks(config.model, config.loop.precision)
    ms.set_seed(config.loop.seed)
    sync, windows = build_sync(networks, config) if config.sync else (None, None)
    loss = build_loss(networks, config, sync)
    height, width = np.shape(samples[0]["latents"])[-2:] if len(samples) else (1, 1)  # Batches refuses an empty set
    window = DecodedWindow(networks.configs["vae"], windows.frames) if windows else None
    check_memory(networks.configs["unet"], shapes_of(loss), config, height, width, group.size, window=window)
    scaling = networks.configs["vae"].scaling_factor
    batches = Batches(samples, config.frames, networks.configs, scaling, config.noise, windows)
    validate = Validation(config.validation, networks, folder) if config.validation and group.rank == 0 else None
    config = dataclasses.replace(config, validation=None)  # it changes no weight, so a resumed run may change it
    weights = {"base": weights_digest(config.model, TRAINED)}  # other weights are another training
    if config.sync:
        weights["sync_base"] = sync_digest(config)
    identity = identity_of(config, **weights)
    last = train(loss, batches, config.loop, folder, validate, resume, identity, group)
    if group.rank == 0:
        networks.save(Path(folder) / "model")
    return last
