"""The networks of sonic-base as Cells: which class belongs to each folder the converter writes, and how one is made."""

from sonic_ms.base.audio_adapters import Audio2Bucket, Audio2Token
from sonic_ms.base.clip import CLIPVision
from sonic_ms.base.rife import RIFE
from sonic_ms.base.unet import FeatureUNet, ShallowUNet, SonicUNet
from sonic_ms.base.vae import VAE
from sonic_ms.base.yoloface import YOLOFace
from sonic_ms.files.weights import load_weights, set_precision
from sonic_ms.nn.whisper import WhisperEncoder

CELLS = {
    "unet": SonicUNet,
    "vae": VAE,
    "clip": CLIPVision,
    "whisper": WhisperEncoder,
    "audio2token": Audio2Token,
    "audio2bucket": Audio2Bucket,
    "rife": RIFE,  # is built for one (height, width), given after the config
    "yoloface": YOLOFace,
}
WAYS = {"features": FeatureUNet, "shallow": ShallowUNet}


def empty(config, network, part=None, *size, precision="fp32"):
    """The Cell of a network, or its part, whose parameters have shapes and no values; in inference mode."""
    from mindspore import nn

    with nn.utils.no_init_parameters():
        cell = CELLS[network](config, *size).set_train(False)
    return set_precision(part_of(cell, part), precision)


def part_of(cell, part):
    """A part of a network's Cell by name: an attribute, or a way through the denoiser with its weights (`features0`);
    None is the whole."""
    if part and part[:-1] in WAYS:
        return WAYS[part[:-1]](cell.denoiser, int(part[-1])).set_train(False)
    return getattr(cell, part) if part else cell


def load(folder, config, network, *size, precision="fp32"):
    """The Cell of a network with the weights of folder/network. Raises WeightsError, see files.weights.load_weights."""
    cell = set_precision(CELLS[network](config, *size).set_train(False), precision)
    return load_weights(cell, folder / network)
