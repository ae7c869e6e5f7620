"""Build the networks of sonic-base at their published size with random weights, compile and run them, and measure.

`sonic-ms check --model base --full-size` answers the question whether a machine can run the model before its weights
are there.
"""

import resource
import time

import mindspore as ms
import numpy as np
from mindspore import nn

from sonic_ms.base_units import NETWORKS
from sonic_ms.models.configs import (
    AdapterConfig,
    CLIPConfig,
    RIFEConfig,
    UNetConfig,
    VAEConfig,
    WhisperConfig,
    YOLOFaceConfig,
)
from sonic_ms.models.host import frame_sinusoids, mask_tokens, time_sinusoids
from sonic_ms.weights import set_precision

PUBLISHED = {
    "unet": UNetConfig((320, 640, 1280, 1280), (5, 10, 20, 20), 1024, 256, 768),
    "vae": VAEConfig((128, 256, 512, 512)),
    "clip": CLIPConfig(1280, 5120, 32, 16, 224, 14, 1024),
    "whisper": WhisperConfig(384, 4, 6, 1536),
    "audio2token": AdapterConfig(10, 5, 384, 1024, 1024, 32),
    "audio2bucket": AdapterConfig(50, 1, 384, 1024, 1, 2, 1024),
    "rife": RIFEConfig(),
    "yoloface": YOLOFaceConfig(
        48, 2, 6, ((4, 5, 8, 10, 13, 16), (23, 29, 43, 55, 73, 105), (146, 217, 231, 300, 335, 433))
    ),
}
WHOLE = tuple(name for name in PUBLISHED if name not in ("unet", "vae"))
UNITS = ("unet", "unet_context", "vae_encoder", "vae_decoder", *WHOLE)


def unet_inputs(config, rng, branches, frames, height, width):
    """Random inputs of one denoising step, float32, in the order the UNet takes them; latents of height x width."""

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    total, tokens = sum(config.attention_channels), config.audio_context_tokens
    ids = np.tile(np.float32([12.5, 20, 30]), (branches, 1))
    context = [normal(branches * frames, length, total) for length in (tokens, tokens, 1)]
    temporal = [normal(branches, length, total) for length in (tokens, tokens, 1)]
    masks = mask_tokens(config, np.ones((8 * height, 8 * width), np.float32), height, width)
    sample = normal(branches, frames, config.in_channels, height, width)
    positions = normal(frames, total)
    return (sample, *time_sinusoids(config, 1.0, ids), masks, *context, *temporal, positions)


def inputs_of(unit, config, rng, size, frames):
    """Random inputs of a unit for frames of size x size pixels."""

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    if unit == "unet":
        return unet_inputs(config, rng, 1, frames, size // 8, size // 8)
    if unit == "unet_context":
        width, tokens = config.cross_attention_dim, config.audio_context_tokens
        return normal(frames, 1, width), normal(frames, tokens, width), frame_sinusoids(config, frames)
    if unit == "whisper":
        return (normal(1, config.num_mel_bins, 2 * config.max_source_positions),)
    if unit in ("audio2token", "audio2bucket"):
        states = normal(frames, config.seq_len, config.blocks, config.channels)
        return (states, normal(frames, config.clip_channels)) if config.clip_channels else (states,)
    if unit == "vae_decoder":
        return (normal(frames, config.latent_channels, size // config.downscale, size // config.downscale),)
    side = config.image_size if unit == "clip" else size
    return (normal(1, 3, side, side),) * (2 if unit == "rife" else 1)


def build(unit, config, size):
    """The Cell of a unit."""
    network = unit.split("_")[0]
    cell = NETWORKS[network][1](config, *((size, size) if unit == "rife" else ()))
    part = {"unet": "denoiser", "unet_context": "context", "vae_encoder": "encoder", "vae_decoder": "decoder"}.get(unit)
    return (getattr(cell, part) if part else cell).set_train(False)


def randomise(cell, rng, scale=0.02):
    """Fill every matrix of a Cell with small random numbers; vectors keep their start values."""
    for parameter in cell.get_parameters():
        if len(parameter.shape) > 1:
            values = rng.standard_normal(parameter.shape, np.float32) * np.float32(scale)
            parameter.set_data(ms.Tensor(values).astype(parameter.dtype))
    return cell


def peak_gigabytes():
    """Most memory this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def check_unit(unit, size=256, frames=4, precision="fp32", config=None):
    """Build, compile and run one unit: dict of parameters, compile_s, run_s, peak_gb (of the whole process), finite."""
    rng = np.random.default_rng(0)
    config = config or PUBLISHED[unit.split("_")[0]]
    with nn.utils.no_init_parameters():
        cell = build(unit, config, size)
    for parameter in cell.get_parameters():
        parameter.init_data()
    cell = randomise(set_precision(cell, precision), rng)
    dtype = np.float16 if precision == "fp16" else np.float32
    inputs = [ms.Tensor(values.astype(dtype)) for values in inputs_of(unit, config, rng, size, frames)]
    started = time.perf_counter()
    outputs = cell(*inputs)
    first = time.perf_counter() - started
    started = time.perf_counter()
    outputs = cell(*inputs)
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    finite = all(bool(np.isfinite(part.asnumpy()).all()) for part in parts)
    run = time.perf_counter() - started
    return {
        "unit": unit,
        "parameters": sum(int(np.prod(parameter.shape)) for parameter in cell.get_parameters()),
        "compile_s": round(first - run, 1),
        "run_s": round(run, 2),
        "peak_gb": round(peak_gigabytes(), 2),
        "finite": finite,
    }
