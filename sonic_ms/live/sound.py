"""Chunks of sound of any size and rate -> a bounded queue of 16 kHz mono samples, taken out in frames of 40 ms."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from sonic_ms.errors import AudioError, ResourceError, short
from sonic_ms.media.audio import SAMPLE_RATE, SAMPLES_PER_FRAME

RATES = (8000, 192000)  # Hz, lowest and highest that are taken
Chunk = np.ndarray | bytes | bytearray | memoryview


class SoundQueue:
    """What was pushed and not yet taken. most: seconds it holds. Not for several threads at once."""

    def __init__(self, most: float) -> None:
        self.most = most
        self.pushed = 0  # samples at 16 kHz so far, taken or thrown away
        self._parts: deque[tuple[np.ndarray, float]] = deque()  # samples and when they came
        self._resampler: Any = None
        self._rate = SAMPLE_RATE
        self._half = b""  # of a 16-bit sample whose other half comes with the next chunk
        self.length = 0  # samples that wait

    @property
    def seconds(self) -> float:
        return self.length / SAMPLE_RATE

    def push(self, chunk: Chunk, rate: int, now: float) -> None:
        """One chunk: float samples of -1..1 or integers of their type's range, (n,) or (n, channels); or bytes, which
        are 16-bit little-endian mono. Of a chunk that is refused nothing is kept. Raises AudioError, ResourceError."""
        if type(rate) is not int or not RATES[0] <= rate <= RATES[1]:
            raise AudioError(f"sound of {short(rate)} Hz; expected a whole number from {RATES[0]} to {RATES[1]}")
        if isinstance(chunk, np.ndarray):
            samples, half = _mono(chunk), b""
        else:
            data = self._half + bytes(chunk)
            samples, half = np.frombuffer(data[: len(data) // 2 * 2], "<i2") / np.float32(32768), data[-1:]
            half = half if len(data) % 2 else b""
        seconds = len(samples) / rate
        if self.seconds + seconds > self.most:
            raise ResourceError(
                f"{self.seconds:.1f} s of sound wait and {seconds:.1f} s more were pushed, of at most {self.most:g} s; "
                "push no faster than it is spoken, or interrupt first"
            )
        self._half = half
        self._append(self._resampled(samples, rate), now)

    def _append(self, samples: np.ndarray, now: float) -> None:
        if len(samples):
            self._parts.append((samples, now))
            self.length += len(samples)
            self.pushed += len(samples)

    def _resampled(self, samples: np.ndarray, rate: int) -> np.ndarray:
        if rate != self._rate:
            import soxr

            self._rate = rate
            self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, "float32")
        return samples if self._resampler is None else self._resampler.resample_chunk(np.ascontiguousarray(samples))

    def flush(self, now: float) -> None:
        """What the resampler still holds belongs to what was pushed; the next chunk begins anew."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            self._resampler, self._rate, self._half = None, SAMPLE_RATE, b""
            self._append(samples, now)

    def take(self, samples: int = SAMPLES_PER_FRAME) -> tuple[np.ndarray, float]:
        """The next samples with silence behind them where there are fewer, and when the last of them came."""
        taken, missing, came = [], samples, 0.0
        while missing and self._parts:
            part, came = self._parts.popleft()
            if len(part) > missing:
                self._parts.appendleft((part[missing:], came))
                part = part[:missing]
            taken.append(part)
            missing -= len(part)
            self.length -= len(part)
        return np.concatenate([*taken, np.zeros(missing, np.float32)]), came

    def clear(self) -> None:
        self._parts.clear()
        self.length, self._half, self._resampler, self._rate = 0, b"", None, SAMPLE_RATE


def _mono(array: np.ndarray) -> np.ndarray:
    """float32 (n,). Raises AudioError for what is no sound."""
    if array.ndim not in (1, 2) or array.dtype.kind not in "fi":
        raise AudioError(f"chunk of shape {array.shape} of {array.dtype}; expected samples (n,) or (n, channels)")
    samples = array.astype(np.float32)
    if array.dtype.kind == "i":
        samples /= -float(np.iinfo(array.dtype).min)
    if not np.isfinite(samples).all():
        raise AudioError("chunk holds samples that are not finite numbers (NaN or infinity); it is left out")
    samples = np.clip(samples, -1, 1)
    return samples if samples.ndim == 1 else samples.mean(1)
