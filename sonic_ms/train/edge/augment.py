"""Audio augmentation: what separates clean synthetic speech from a recording in a room. All at 16 kHz, mono float32."""

import numpy as np

SAMPLE_RATE = 16000


def _shaped_noise(rng, n, slope_db):
    """White noise tilted by `slope_db` per octave, unit rms."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 20.0)
    noise = np.fft.irfft(spectrum * (frequency / 1000) ** (slope_db / 6.02), n)
    return noise / (noise.std() + 1e-9)


def add_noise(rng, samples, snr_db):
    """Stationary noise of random colour (white to brown) at `snr_db` below the speech."""
    level = np.sqrt(np.mean(samples**2) + 1e-12) * 10 ** (-snr_db / 20)
    return samples + level * _shaped_noise(rng, len(samples), rng.uniform(-6, 0))


def equalise(rng, samples):
    """Random smooth frequency response, +-8 dB, and sometimes a telephone or cheap-codec band limit."""
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    octave = np.log2(np.maximum(frequency, 30.0) / 30.0)
    anchors = np.linspace(0, octave.max(), 7)
    gain_db = np.interp(octave, anchors, rng.uniform(-8, 8, 7))
    if rng.random() < 0.25:
        gain_db -= 12 * np.maximum(octave - np.log2(rng.uniform(3000, 6500) / 30), 0) * 4
    if rng.random() < 0.25:
        gain_db -= 12 * np.maximum(np.log2(rng.uniform(100, 350) / 30) - octave, 0)
    return np.fft.irfft(np.fft.rfft(samples) * 10 ** (gain_db / 20), len(samples))


def reverberate(rng, samples):
    """Exponentially decaying noise tail: RT60 0.1-0.5 s, direct-to-reverberant ratio 0-15 dB."""
    rt60 = rng.uniform(0.1, 0.5)
    n = int(rt60 * SAMPLE_RATE)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    size = len(samples) + n
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples)]


def augment(rng, samples):
    """A random chain of the above on (n,) samples; timing is never changed. Returns float32."""
    samples = samples.astype(np.float64)
    if rng.random() < 0.7:
        samples = equalise(rng, samples)
    if rng.random() < 0.5:
        samples = reverberate(rng, samples)
    if rng.random() < 0.8:
        samples = add_noise(rng, samples, rng.uniform(8, 45))
    if rng.random() < 0.2:  # compression, as in broadcast and voice notes
        peak = np.abs(samples).max() + 1e-9
        samples = peak * np.sign(samples) * (np.abs(samples) / peak) ** rng.uniform(0.6, 0.9)
    return (samples / (np.abs(samples).max() + 1e-9) * rng.uniform(0.05, 0.95)).astype(np.float32)
