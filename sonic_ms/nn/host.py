"""What the networks of sonic-base get from the host: constant matrices, masks, sinusoids. NumPy, no MindSpore."""

import math

import numpy as np

_CUBIC = -0.75  # Keys' parameter


def resize_matrix(size_in, size_out, mode="bilinear", scale=None):
    """Matrix (size_out, size_in) float32 of a 1-D resize with half-pixel centres and repeated borders, no antialias.

    mode: bilinear, or bicubic with Keys' a = -0.75, as torch.nn.functional.interpolate(align_corners=False) does both.
    `scale` is the zoom that fixes the sample positions; by default size_out / size_in.
    """
    centre = (np.arange(size_out) + 0.5) / (scale or size_out / size_in) - 0.5  # source coordinate of each output
    if mode == "bilinear":
        centre = np.maximum(centre, 0.0)
    first = np.floor(centre).astype(int)
    t = centre - first
    if mode == "bilinear":
        taps = [(0, 1 - t), (1, t)]
    elif mode == "bicubic":
        near = lambda d: ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1  # noqa: E731 - |d| <= 1
        far = lambda d: ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC  # noqa: E731 - 1 < |d| < 2
        taps = [(-1, far(t + 1)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))]
    else:
        raise ValueError(f"resize mode {mode!r}: use bilinear or bicubic")
    matrix = np.zeros((size_out, size_in))
    for offset, weight in taps:
        np.add.at(matrix, (np.arange(size_out), np.clip(first + offset, 0, size_in - 1)), weight)
    return matrix.astype(np.float32)


def pixel_grid(height, width):
    """Coordinates of every pixel, (1, 2, height, width) float32, x first."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([columns, rows])[None].astype(np.float32)


def timestep_embedding(values, width):
    """Sinusoidal embedding on the host: values (n,) -> (n, width) float32, cosines first, wavelengths 2 pi to 2 pi 1e4.

    The frequencies are rounded to float32 before use, since the published networks were trained with them so.
    """
    half = width // 2
    frequency = np.exp(np.float32(-math.log(10000.0)) * np.arange(half, dtype=np.float32) / np.float32(half))
    angle = np.asarray(values, np.float32).reshape(-1, 1) * frequency.astype(np.float32)
    embedding = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return np.pad(embedding, ((0, 0), (0, width % 2))).astype(np.float32)


def mask_tokens(config, mask, height, width):
    """Face mask (H, W) in 0..1 -> its value at every token of every scale, (1, tokens, 1), largest scale first.

    height, width: size of the latents. Bicubic without antialias, as upstream samples it.
    """
    parts = []
    for level in range(config.levels):
        rows = resize_matrix(mask.shape[0], height >> level, "bicubic")
        columns = resize_matrix(mask.shape[1], width >> level, "bicubic")
        parts.append((rows @ np.asarray(mask, np.float32) @ columns.T).reshape(-1))
    return np.concatenate(parts)[None, :, None]


def frame_sinusoids(config, frames):
    """Sinusoids of the positions 0..frames-1 for every transformer, side by side: (frames, sum of channels)."""
    return np.concatenate([timestep_embedding(np.arange(frames), c) for c in config.attention_channels], axis=1)


def time_sinusoids(config, timestep, added_time_ids):
    """Scheduler time and (b, 3) added ids -> the two sinusoid inputs of the UNet, (b, c) and (b, 3 * width)."""
    added_time_ids = np.asarray(added_time_ids, np.float32)
    b = len(added_time_ids)
    time = timestep_embedding(np.full(b, timestep), config.block_out_channels[0])
    return time, timestep_embedding(added_time_ids, config.addition_time_embed_dim).reshape(b, -1)
