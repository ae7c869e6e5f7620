"""Audio augmentation: what separates a clean recording from others. All at 16 kHz, mono float; timing never changes."""

import numpy as np

SAMPLE_RATE = 16000


def shaped_noise(rng, n, slope_db):
    """White noise tilted by `slope_db` per octave, unit rms."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 20.0)
    noise = np.fft.irfft(spectrum * (frequency / 1000) ** (slope_db / 6.02), n)
    return noise / (noise.std() + 1e-9)


def add_noise(rng, samples, snr_db):
    """Stationary noise of random colour (white to brown) at `snr_db` below the speech."""
    level = np.sqrt(np.mean(samples**2) + 1e-12) * 10 ** (-snr_db / 20)
    return samples + level * shaped_noise(rng, len(samples), rng.uniform(-6, 0))


def equalise(rng, samples):
    """Random smooth frequency response, +-8 dB."""
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    octave = np.log2(np.maximum(frequency, 30.0) / 30.0)
    gain_db = np.interp(octave, np.linspace(0, octave.max(), 7), rng.uniform(-8, 8, 7))
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


def telephone(samples, low=300.0, high=3400.0):
    """The band of a telephone, Hz, in the eight bits of mu-law."""
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    gain = 1 / np.sqrt(1 + (low / np.maximum(frequency, 1)) ** 12) / np.sqrt(1 + (frequency / high) ** 40)
    narrow = np.fft.irfft(np.fft.rfft(samples) * gain, len(samples))
    peak = np.abs(narrow).max() + 1e-9
    steps = np.round(np.sign(narrow) * np.log1p(255 * np.abs(narrow) / peak) / np.log(256) * 127) / 127
    return np.sign(steps) * (256 ** np.abs(steps) - 1) / 255 * peak


def light(rng, samples):
    """A good recording: noise of 25 to 60 dB. float32."""
    return add_noise(rng, samples.astype(np.float64), rng.uniform(25, 60)).astype(np.float32)


def heavy(rng, samples):
    """A bad one: a random chain of colour, room, noise of 5 to 40 dB and telephone. float32."""
    samples = samples.astype(np.float64)
    if rng.random() < 0.5:
        samples = equalise(rng, samples)
    if rng.random() < 0.35:
        samples = reverberate(rng, samples)
    samples = add_noise(rng, samples, rng.uniform(5, 40))
    if rng.random() < 0.35:
        samples = telephone(samples, rng.uniform(150, 400), rng.uniform(3000, 3800))
    return samples.astype(np.float32)
