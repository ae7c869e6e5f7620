"""Recipe of sonic-base: fine-tune a converted model on shards, some of its parts or all of them.

The networks are the Cells that inference runs. What is trained is set by name: `audio` (both audio networks and the
audio keys and values of every attention), `temporal` (everything that mixes frames), `lora` (low-rank changes of the
named layers), `all`. The result is a complete converted folder, with LoRA merged, ready for `generate` and export.
"""

import dataclasses
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np

from sonic_ms.base.cells import CELLS
from sonic_ms.base.units import CONFIGS, NAME
from sonic_ms.base.vae import Decoder
from sonic_ms.errors import OutputError, UsageError, WeightsError
from sonic_ms.files.digest import weights_digest
from sonic_ms.files.model import write_model_file
from sonic_ms.files.weights import load_config, load_weights, save_model
from sonic_ms.train.base.activations import DecodedWindow
from sonic_ms.train.base.clips import ClipBatches
from sonic_ms.train.base.diffusion import NoiseConfig
from sonic_ms.train.base.lora import LoRAConfig, merge_lora
from sonic_ms.train.base.memory import check_memory, shapes_of
from sonic_ms.train.base.trained import PARTS, TRAINED, build_loss, set_training_precision
from sonic_ms.train.base.validation import Validation, ValidationConfig
from sonic_ms.train.loop.distributed import Group, join
from sonic_ms.train.loop.trainer import LoopConfig, identity_of, train
from sonic_ms.train.syncnet.loss import SyncConfig, SyncTerm, SyncWindows, load_expert


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
        write_model_file(folder, NAME)


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
    from sonic_ms.data.samples import Shards

    return finetune(config, Shards(config.shards), folder, resume, join())


def finetune(config, samples, folder, resume=False, group=None, pruner=None, known=None):
    """Train on `samples` (see clips.py) and write folder/model; returns the last row of the log. pruner: see
    `trainer.train`; known: {name: value} of it that must not change when a training is resumed."""
    group = group or Group()
    networks = Networks(config.model, config.loop.precision)
    ms.set_seed(config.loop.seed)
    sync, windows = build_sync(networks, config) if config.sync else (None, None)
    loss = build_loss(networks, config, sync)
    height, width = np.shape(samples[0]["latents"])[-2:] if len(samples) else (1, 1)  # ClipBatches refuses an empty set
    window = DecodedWindow(networks.configs["vae"], windows.frames) if windows else None
    check_memory(networks.configs["unet"], shapes_of(loss), config, height, width, group.size, window=window)
    scaling = networks.configs["vae"].scaling_factor
    batches = ClipBatches(samples, config.frames, networks.configs, scaling, config.noise, windows)
    validate = Validation(config.validation, networks, folder) if config.validation and group.rank == 0 else None
    config = dataclasses.replace(config, validation=None)  # it changes no weight, so a resumed run may change it
    weights = {"base": weights_digest(config.model, TRAINED)}  # other weights are another training
    if config.sync:
        weights["sync_base"] = sync_digest(config)
    identity = identity_of(config, **weights, **(known or {}))
    last = train(loss, batches, config.loop, folder, validate, resume, identity, group, pruner)
    if group.rank == 0:
        networks.save(Path(folder) / "model")
    return last
