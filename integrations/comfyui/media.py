"""IMAGE and AUDIO of ComfyUI to files that sonic_ms reads, and its frames back. Nothing is lost on the way, so a photo
and a recording that came from files make the video that they make on the command line."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from .process import NodeError

FLOATS = 3  # format of a WAV
MOST_BYTES = 0xFFFFFF00  # that a WAV can hold
BYTES_A_VALUE = 4  # of an IMAGE


def write_image(image: Any, path: Path) -> None:
    """IMAGE (1, height, width, 1, 3 or 4 channels), 0 to 1, as PNG. Raises NodeError."""
    import torch
    from PIL import Image

    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise NodeError(f"image has shape {tuple(image.shape)}; expected one picture (1, height, width, 3)")
    if image.shape[0] != 1:
        raise NodeError(f"image holds {image.shape[0]} pictures; expected one: pick it with the node Image From Batch")
    if not bool(torch.isfinite(image).all()):
        raise NodeError("image holds values that are not finite numbers; expected 0 to 1")
    pixels = (image[0].float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path, compress_level=1)


def write_sound(audio: Any, path: Path) -> None:
    """AUDIO {"waveform": (1, channels, samples), "sample_rate": Hz} as WAV of float32. Raises NodeError."""
    wave, rate = audio["waveform"], int(audio["sample_rate"])
    if wave.ndim != 3 or wave.shape[0] != 1 or 0 in wave.shape:
        raise NodeError(f"audio has shape {tuple(wave.shape)}; expected one recording (1, channels, samples)")
    samples = wave[0].T.contiguous().float().cpu().numpy().astype("<f4")  # (samples, channels)
    channels, size = samples.shape[1], samples.nbytes
    if size > MOST_BYTES:
        raise NodeError(f"audio holds {size >> 30} GB of samples; expected at most 4: cut it, or use a lower rate")
    form = struct.pack("<HHIIHH", FLOATS, channels, rate, rate * channels * 4, channels * 4, 32)
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    with open(path, "wb") as file:
        file.write(b"RIFF" + struct.pack("<I", len(head) + size) + head)
        file.write(samples.data)


def cut(audio: Any, seconds: float) -> dict[str, Any]:
    """AUDIO, only the first so many seconds."""
    rate = int(audio["sample_rate"])
    return {"waveform": audio["waveform"][..., : round(seconds * rate)], "sample_rate": rate}


def read_frames(path: Path, count: int, size: tuple[int, int]) -> Any:
    """IMAGE (count, height, width, 3) of a file of raw frames; one frame at a time is there twice."""
    import torch

    width, height = size
    images = torch.empty((count, height, width, 3), dtype=torch.float32)
    with open(path, "rb") as file:
        for image in images:
            data = bytearray(file.read(width * height * 3))
            image.copy_(torch.frombuffer(data, dtype=torch.uint8).view(height, width, 3))
            image.div_(255)
    return images


def image_bytes(count: int, size: tuple[int, int]) -> int:
    """What an IMAGE of so many frames takes."""
    return count * size[0] * size[1] * 3 * BYTES_A_VALUE
