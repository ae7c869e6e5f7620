"""Speech in: any recording -> 16 kHz mono samples -> Whisper log-mel, voice activity, loudness envelope. NumPy only.

Whisper log-mel: A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022 (the features),
M. Slaney, "Auditory Toolbox", 1998 (the mel scale).
"""

import math
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from sonic_ms.errors import AudioError
from sonic_ms.media import recording
from sonic_ms.media.ffmpeg import read_header

SAMPLE_RATE = 16000  # samples a second
FPS = 25  # video frames a second
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
MAX_SECONDS = 3600.0
MIN_SECONDS = 0.25
N_FFT = 400  # 25 ms
HOP = 160  # 10 ms, 100 mel frames a second
N_MELS = 80
BLOCK = 3000  # spectra held at once: 30 s, so memory does not grow with the length of the recording

VAD_BANDS = slice(2, 70)  # mel bands, about 100 Hz to 5 kHz: above mains hum, below hiss
VAD_SMOOTH = 5  # hops averaged, 50 ms
VAD_QUIET = 1e-7  # band power 14 dB above the noise of 16-bit rounding: below it everything is silence
VAD_FLOOR_HOPS = 1000  # the noise floor is estimated anew every 10 s
VAD_FLOOR_PERCENTILE = 12
VAD_START_DB, VAD_STOP_DB = 4.5, 3.3  # excess over the floor where speech starts and where it has ended
VAD_RANGE_DB = 35  # what is so far below the loudest twentieth is no speech
VAD_GAP, VAD_SHORTEST, VAD_HANGOVER = 4, 2, 1  # video frames


def load_audio(source, max_seconds=None, min_seconds=MIN_SECONDS, sample_rate=SAMPLE_RATE, duration=None, notes=None):
    """Speech as float32, mono, 16 kHz, shape (n_samples,), range [-1, 1].

    Args:
        source: path of anything ffmpeg decodes, or an array of shape (n,), (n, channels) or (channels, n); integers are
            scaled by their type's range, floats are taken as -1..1. Of several audio tracks the default one is used, or
            the first with speech; channels that cancel each other are not mixed, the loudest is used.
        max_seconds: longer recordings are refused while they are decoded; None means 3600.
        min_seconds: shorter ones are refused too.
        sample_rate: of an array, Hz; a file says its own.
        duration: use only the first so many seconds; then a longer recording is no error.
        notes: a list that gets a line for everything the user may want to know (see also `speech_note`).
    Raises:
        InputMissingError: no such file. AudioError: unreadable, no audio, too short, too long, not finite.
        EngineError, ResourceError: ffmpeg is missing or does not run on this machine, or is stuck, or out of memory.
    """
    notes = [] if notes is None else notes
    max_seconds = MAX_SECONDS if max_seconds is None else max_seconds
    limit = max_seconds if duration is None else min(duration, max_seconds)
    if isinstance(source, np.ndarray):
        name = "audio array"
        samples = _from_array(source, sample_rate, limit, max_seconds, duration, notes)
    else:
        name = f"audio {source}"
        samples = _from_file(Path(source), limit, max_seconds, duration, notes)
    if duration is not None:
        samples = samples[: round(duration * SAMPLE_RATE)]
    seconds = len(samples) / SAMPLE_RATE
    if seconds < min_seconds:
        raise AudioError(
            f"{name}: {seconds:.2f} s of audio, expected at least {min_seconds:g} s; give a longer recording"
        )
    if seconds > max_seconds:
        raise _too_long(name, seconds, max_seconds)
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds samples that are not finite numbers (NaN or infinity); export it again")
    return np.clip(samples, -1, 1, out=samples)


def _too_long(name, seconds, max_seconds):
    return AudioError(
        f"{name}: {seconds:.0f} s of audio or more, expected at most {max_seconds:g} s; cut it, use a shorter "
        f"duration, or raise the limit"
    )


def _from_array(array, sample_rate, limit, max_seconds, duration, notes):
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise AudioError(
            f"audio array: shape {array.shape} of {array.dtype}, expected numbers of shape (n,) or (n, channels)"
        )
    if sample_rate < 1000:
        raise AudioError(f"audio array: sample rate {sample_rate} Hz, expected at least 1000; pass sample_rate=")
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T  # (channels, n) -> (n, channels)
    seconds = len(array) / sample_rate
    if duration is None and seconds > max_seconds:
        raise _too_long("audio array", seconds, max_seconds)
    array = array[: math.ceil(limit * sample_rate) + 1]
    if array.dtype.kind == "f":
        samples = array.astype(np.float32)
    else:
        info = np.iinfo(array.dtype)
        middle = (info.max + info.min + 1) // 2  # 0 for signed types, 128 for uint8
        samples = ((array.astype(np.float64) - middle) / (info.max - middle + 1)).astype(np.float32)
    if samples.ndim == 2:
        size = max(sample_rate // recording.BLOCKS_A_SECOND, 2)
        channel = recording.cancelling(samples[start : start + size] for start in range(0, len(samples), size))
        notes += _channel_note(channel, samples.shape[1])
        samples = samples.mean(axis=1) if channel is None else samples[:, channel].copy()
    if sample_rate != SAMPLE_RATE and len(samples):
        import soxr

        samples = soxr.resample(samples, sample_rate, SAMPLE_RATE)
    return samples


def _channel_note(channel, channels):
    if channel is None:
        return []
    return [f"recording: its {channels} channels cancel each other when mixed; channel {channel + 1} is used"]


def _from_file(path, limit, max_seconds, duration, notes):
    recording.require_recording(path)
    header = read_header(path)
    recording.require_sound(path, header)
    exact = header.format in recording.EXACT and header.seconds is not None
    if duration is None and exact and header.seconds > max_seconds:
        raise _too_long(f"audio {path}", header.seconds, max_seconds)
    track, found = speech_track(path, header, limit)
    notes += found
    # One second past the limit is enough to see that it is too long, and endless streams end here.
    limit += 1
    channel = recording.channel_instead(path, track, SAMPLE_RATE, limit)
    notes += _channel_note(channel, track.channels)
    samples, code, remarks = recording.decode_mono(path, track, SAMPLE_RATE, limit, channel)
    notes += recording.judge(path, header, track, code, remarks, len(samples) / SAMPLE_RATE, limit)
    return samples


def speech_track(path, header, seconds):
    """(ffmpeg.Track, notes): the audio track of a file that `load_audio` and the VideoWriter use."""
    return recording.choose_track(path, header, seconds, SAMPLE_RATE, lambda samples: voice_activity(samples).any())


def speech_note(samples):
    """What to tell the user when no speech is found in the samples (n,); None if there is some."""
    if voice_activity(samples).any():
        return None
    level = 20 * np.log10(max(float(np.abs(samples).max(initial=0)), 1e-6))
    return (
        f"no speech found in {len(samples) / SAMPLE_RATE:.1f} s of audio (its peak is at {level:.0f} dBFS): the mouth "
        f"stays shut; check that this is the right recording"
    )


def frame_count(n_samples):
    """Number of video frames for `n_samples` at 16 kHz: round(25 * seconds), halves to even as Python rounds."""
    return round(FPS * n_samples / SAMPLE_RATE)


def delay(samples, seconds):
    """Samples (n,) `seconds` later, of the same length; silence fills the gap. Negative is earlier."""
    steps = round(seconds * SAMPLE_RATE)
    later = np.zeros_like(samples)
    kept = max(len(samples) - abs(steps), 0)
    start = max(steps, 0)
    later[start : start + kept] = samples[max(-steps, 0) :][:kept]
    return later


@lru_cache(maxsize=1)
def mel_filters():
    """Slaney mel filterbank, 0-8 kHz, area normalised: float32, shape (80, 201)."""
    # Slaney's scale: linear below 1 kHz (3 mel per 200 Hz), logarithmic above (27 steps per factor of 6.4).
    log_start, log_step = 15.0, math.log(6.4) / 27
    top = log_start + math.log(SAMPLE_RATE / 2 / 1000) / log_step
    mels = np.linspace(0, top, N_MELS + 2)
    edges = np.where(mels < log_start, mels * 200 / 3, 1000 * np.exp(log_step * (mels - log_start)))  # Hz, (82,)
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)  # Hz, (201,)
    width = np.diff(edges)
    rising = (bins - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins) / width[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))  # (80, 201)
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _power_spectra(samples):
    """Yield blocks of |STFT|^2: float32, shape (<= 3000, 201); 25 ms Hann windows, 10 ms apart, centred."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)  # periodic, as torch.stft
    padded = np.pad(samples, N_FFT // 2, mode="reflect" if len(samples) > 1 else "constant")
    count = len(samples) // HOP
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][:count]  # a view: (count, 400)
    for start in range(0, count, BLOCK):
        spectrum = np.fft.rfft(frames[start : start + BLOCK] * window, axis=1)
        yield (spectrum.real**2 + spectrum.imag**2).astype(np.float32)


def log_mel(samples, max_log=None, pad_to=None):
    """Whisper's log-mel features: float32, shape (80, n // 160), roughly -1..1.5.

    Args:
        samples: float32 mono 16 kHz, shape (n_samples,).
        max_log: log10 level that the floor hangs 8 below; default the maximum of these samples. Pass the maximum of
            the whole recording when it is cut into pieces.
        pad_to: zeros are appended up to this many samples first (480000 for Whisper's 30 s window).
    """
    samples = np.asarray(samples, np.float32)
    if pad_to is not None and len(samples) < pad_to:
        samples = np.pad(samples, (0, pad_to - len(samples)))
    result = np.empty((N_MELS, len(samples) // HOP), np.float32)
    start = 0
    for power in _power_spectra(samples):
        result[:, start : start + len(power)] = np.log10(np.maximum(mel_filters() @ power.T, 1e-10))
        start += len(power)
    if max_log is None:
        max_log = result.max(initial=-10)
    return (np.maximum(result, max_log - 8) + 4) / 4


def speech_envelope(samples):
    """Loudness per video frame: float32, shape (frame_count,), range 0..1.

    RMS over the 80 ms around each frame's own 40 ms, divided by the recording's 95th percentile. Recordings quieter
    than -60 dBFS are not blown up.
    """
    count = frame_count(len(samples))
    energy = np.concatenate([[0], np.cumsum(np.asarray(samples, np.float64) ** 2)])
    centre = np.arange(count) * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2
    start = np.clip(centre - SAMPLES_PER_FRAME, 0, len(samples))
    stop = np.clip(centre + SAMPLES_PER_FRAME, 0, len(samples))
    rms = np.sqrt((energy[stop] - energy[start]) / np.maximum(stop - start, 1))
    loud = np.percentile(rms, 95) if count else 0
    return np.clip(rms / max(loud, 1e-3), 0, 1).astype(np.float32)


def voice_activity(samples):
    """Where speech is: bool, shape (frame_count,). All False for silence, hum-free noise and room tone.

    Each mel band is compared with its own noise floor (a low percentile over about 10 s): speech lifts some bands far
    above it even where the total energy hardly changes. After J. Ramirez et al., "Efficient voice activity detection
    algorithms using long-term speech information", 2004; on stationary noise the score stays below 3 dB.
    """
    count = frame_count(len(samples))
    score, level = _speech_score(np.asarray(samples, np.float32))
    if len(score) < VAD_SMOOTH:
        return np.zeros(count, bool)
    per_frame = SAMPLES_PER_FRAME // HOP  # 4 scores a frame
    index = np.minimum(np.arange(count * per_frame), len(score) - 1)  # the last frame may be cut short
    score = score[index].reshape(count, per_frame).mean(1)
    level = level[index].reshape(count, per_frame).max(1)
    return active_frames(score, level, np.percentile(level, 95))


def active_frames(score, level, loud):
    """The frames of speech, bool (n,), from mean excess over the noise floor and highest level of each frame, in dB.
    loud: level of the loudest twentieth of the recording."""
    count = len(score)
    audible = level > loud - VAD_RANGE_DB
    start = (score > VAD_START_DB) & audible
    go_on = (score > VAD_STOP_DB) & audible
    active = np.zeros(count, bool)
    for first, last in _runs(go_on):  # hysteresis: a run counts when somewhere in it speech is sure
        active[first:last] = start[first:last].any()
    for first, last in _runs(~active):  # closures of stops inside a word
        if first > 0 and last < count and last - first <= VAD_GAP:
            active[first:last] = True
    for first, last in _runs(active):  # clicks
        if last - first < VAD_SHORTEST:
            active[first:last] = False
    hang = active.copy()
    for shift in range(1, VAD_HANGOVER + 1):  # decays that fade into the noise
        hang[shift:] |= active[:-shift]
    return hang


def _speech_score(samples):
    """Mean excess over the noise floor (0..25 dB) and total level (dB), every 10 ms: two arrays (n_samples // 160,)."""
    powers = mel_powers(samples)[:, VAD_BANDS]
    if len(powers) < VAD_SMOOTH:
        return np.zeros(len(powers)), np.zeros(len(powers))
    bands, level = smooth_bands(powers)
    pieces = np.linspace(0, len(bands), max(1, round(len(bands) / VAD_FLOOR_HOPS)) + 1).astype(int)
    floors = [np.percentile(bands[a:b], VAD_FLOOR_PERCENTILE, axis=0) for a, b in pairwise(pieces)]
    middle, now = (pieces[1:] + pieces[:-1]) / 2, np.arange(len(bands))
    score = np.zeros(len(bands))
    for band, floor in zip(bands.T, np.transpose(floors)):
        score += np.clip(band - np.interp(now, middle, floor), 0, 25)
    return score / bands.shape[1], level


def mel_powers(samples):
    """Power in every mel band every 10 ms: float32 (n_samples // 160, 80)."""
    spectra = [power @ mel_filters().T for power in _power_spectra(samples)]
    return np.concatenate(spectra or [np.zeros((0, N_MELS), np.float32)])


def smooth_bands(powers):
    """Powers (t, 68) averaged over 50 ms, in dB, and their sum in dB: (t, 68), (t,)."""
    count = len(powers)
    padded = np.pad(powers, ((VAD_SMOOTH // 2, VAD_SMOOTH // 2), (0, 0)), mode="edge")
    bands = sum(padded[shift : shift + count] for shift in range(VAD_SMOOTH)) / VAD_SMOOTH
    level = 10 * np.log10(np.maximum(bands.sum(1), VAD_QUIET * bands.shape[1]))
    return 10 * np.log10(np.maximum(bands, VAD_QUIET)), level


def _runs(mask):
    """(first, last) of every run of True in a 1-D bool array, `last` exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2], edges[1::2]))
