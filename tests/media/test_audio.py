"""Audio: decoding and its limits, Whisper log-mel against librosa, voice activity, envelope."""

import subprocess
import sys
import wave
from itertools import pairwise

import numpy as np
import pytest

from sonic_ms.errors import AudioError, InputMissingError
from sonic_ms.media import audio
from sonic_ms.media.ffmpeg import MediaHeader, ffmpeg_exe


def write_wav(path, samples, rate=16000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.asarray(samples) * 32767).astype("<i2").tobytes())
    return path


def convert(source, target, *options):
    subprocess.run([ffmpeg_exe(), "-v", "error", "-y", "-i", source, *options, target], check=True)
    return target


def test_import_is_light():
    code = "import sys; from sonic_ms.files import assets; from sonic_ms.media import audio, image, video"
    code += "; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"cv2", "mindspore", "torch", "librosa", "scipy", "PIL"} & set(modules)


def test_wav_is_read_bit_exactly(tmp_path, make_speech):
    speech, _ = make_speech(1.0)
    loaded = audio.load_audio(write_wav(tmp_path / "a.wav", speech))
    assert loaded.dtype == np.float32 and loaded.shape == (16000,)
    np.testing.assert_array_equal(loaded, np.round(speech * 32767).astype(np.int16) / np.float32(32768))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp3", ()),
        ("m4a", ()),
        ("flac", ()),
        ("ogg", ()),
        ("wav", ("-ar", "44100", "-ac", "2")),
        ("wav", ("-ar", "8000")),
    ],
)
def test_formats_keep_length_and_timing(tmp_path, make_speech, suffix, options):
    speech, _ = make_speech(1.5)
    path = convert(write_wav(tmp_path / "source.wav", speech), tmp_path / f"a.{suffix}", *options)
    loaded = audio.load_audio(path)
    assert len(loaded) == len(speech)
    lag = np.correlate(loaded, speech, "full").argmax() - (len(speech) - 1)
    assert lag == 0
    assert np.corrcoef(loaded, speech)[0, 1] > 0.95


def test_audio_track_of_a_video(tmp_path, make_speech):
    speech, _ = make_speech(1.0)
    wav = write_wav(tmp_path / "a.wav", speech)
    options = ("-f", "lavfi", "-i", "color=s=64x64:d=1", "-map", "1:v", "-map", "0:a")
    loaded = audio.load_audio(convert(wav, tmp_path / "a.mp4", *options))
    assert len(loaded) == 16000 and np.corrcoef(loaded, speech)[0, 1] > 0.95


def test_arrays(make_speech):
    speech, _ = make_speech(1.0)
    stereo = np.stack([speech, 0.5 * speech], axis=1)
    np.testing.assert_allclose(audio.load_audio(stereo), 0.75 * speech, atol=1e-6)
    np.testing.assert_allclose(audio.load_audio(stereo.T), 0.75 * speech, atol=1e-6)
    np.testing.assert_allclose(audio.load_audio((speech * 32768).astype(np.int16)), speech, atol=4e-5)
    np.testing.assert_allclose(audio.load_audio((speech * 128 + 128).astype(np.uint8)), speech, atol=8e-3)
    slow = audio.load_audio(speech, sample_rate=8000)
    assert len(slow) == 32000
    assert audio.load_audio(2 * np.ones(16000)).max() == 1


def test_silence_is_valid(tmp_path):
    loaded = audio.load_audio(write_wav(tmp_path / "a.wav", np.zeros(16000)))
    assert len(loaded) == 16000 and not loaded.any()


def test_duration_shortens_only(tmp_path, make_speech):
    path = write_wav(tmp_path / "a.wav", make_speech(2.0)[0])
    assert len(audio.load_audio(path, duration=0.5)) == 8000
    assert len(audio.load_audio(path, duration=9)) == 32000
    assert len(audio.load_audio(path, duration=0.5, max_seconds=1)) == 8000


def bad_file(kind, folder):
    path = folder / f"{kind}.wav"
    rng = np.random.default_rng(0)
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("hello")
    elif kind == "playlist":
        path = path.with_suffix(".ffconcat")
        path.write_text("ffconcat version 1.0\nfile good.wav\n")
    elif kind in ("zero", "short"):
        write_wav(path, np.zeros({"zero": 0, "short": 3200}[kind]))
    elif kind == "mute":
        source = ["-f", "lavfi", "-i", "color=s=64x64:d=1", "-f", "mp4", str(path)]
        subprocess.run([ffmpeg_exe(), "-v", "error", *source], check=True)
    elif kind == "noise":
        path = path.with_suffix(".mp3")
        path.write_bytes(rng.bytes(50000))
    elif kind == "damaged":
        good = convert(write_wav(path, 0.1 * rng.normal(size=64000)), path.with_suffix(".mp3")).read_bytes()
        path = path.with_suffix(".mp3")
        path.write_bytes(good[: len(good) // 4] + rng.bytes(len(good) * 3 // 4))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "0 bytes"),
        ("text", "not a media file"),
        ("playlist", "not a media file"),
        ("zero", "0.00 s of audio, expected at least 0.25"),
        ("short", "0.20 s of audio, expected at least 0.25"),
        ("mute", "no audio track"),
        ("noise", "corrupt|not a media file"),
        ("damaged", "corrupt"),
    ],
)
def test_bad_files(tmp_path, kind, message):
    write_wav(tmp_path / "good.wav", np.zeros(16000))
    with pytest.raises(AudioError, match=message) as error:
        audio.load_audio(bad_file(kind, tmp_path))
    assert "\n" not in str(error.value) and kind in str(error.value)


def test_missing_files(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path, tmp_path / ("a" * 300)):
        with pytest.raises(InputMissingError, match="no such file"):
            audio.load_audio(path)


def test_too_long_is_refused_from_the_header(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "a.wav", np.zeros(32000))
    runs = []
    run = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: runs.append(args) or run(*args, **options))
    with pytest.raises(AudioError, match="2 s of audio or more, expected at most 1 s"):
        audio.load_audio(path, max_seconds=1)
    assert len(runs) == 1  # the header only


def test_a_header_that_lies_is_caught_by_the_bounded_decode(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "a.wav", np.zeros(160000))
    header = MediaHeader("wav", 0.5, "pcm", None, 16000)
    monkeypatch.setattr(audio, "read_header", lambda _: header)
    with pytest.raises(AudioError, match="2 s of audio or more, expected at most 1 s"):  # 2 of 10 s were decoded
        audio.load_audio(path, max_seconds=1)


def test_bad_arrays():
    for array in (np.zeros((2, 2, 2)), np.zeros(0), np.zeros(16000, complex)):
        with pytest.raises(AudioError, match="expected numbers of shape"):
            audio.load_audio(array)
    with pytest.raises(AudioError, match="not finite"):
        audio.load_audio(np.full(16000, np.nan))
    with pytest.raises(AudioError, match="at most 1 s"):
        audio.load_audio(np.zeros(32000), max_seconds=1)


@pytest.mark.parametrize(("n", "frames"), [(0, 0), (320, 0), (321, 1), (640, 1), (960, 2), (1600, 2), (160000, 250)])
def test_frame_count(n, frames):
    assert audio.frame_count(n) == frames == round(25 * n / 16000)


def test_mel_filters_are_librosas():
    from librosa.filters import mel

    np.testing.assert_allclose(audio.mel_filters(), mel(sr=16000, n_fft=400, n_mels=80), atol=1e-7)


@pytest.mark.parametrize("n", [16000, 52801])
def test_log_mel_is_whispers(n):
    import torch

    samples = 0.1 * np.random.default_rng(0).normal(size=n).astype(np.float32)
    samples[n // 3 : n // 2] *= 1e-4  # so that the floor 8 below the maximum matters
    # openai/whisper, audio.py
    spectrum = torch.stft(torch.from_numpy(samples), 400, 160, window=torch.hann_window(400), return_complex=True)
    expected = np.log10(np.maximum(audio.mel_filters() @ (spectrum[:, :-1].abs() ** 2).numpy(), 1e-10))
    expected = (np.maximum(expected, expected.max() - 8) + 4) / 4
    result = audio.log_mel(samples)
    assert result.shape == (80, n // 160) and result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_log_mel_blocks_pad_and_level(monkeypatch, make_speech):
    speech, _ = make_speech(2.0)
    whole = audio.log_mel(speech, pad_to=48000)
    assert whole.shape == (80, 300)
    np.testing.assert_array_equal(audio.log_mel(np.pad(speech, (0, 16000))), whole)
    monkeypatch.setattr(audio, "BLOCK", 7)
    np.testing.assert_allclose(audio.log_mel(speech, pad_to=48000), whole, atol=1e-6)
    quiet = audio.log_mel(np.zeros(16000, np.float32), max_log=2.0)
    np.testing.assert_allclose(quiet, (2 - 8 + 4) / 4)
    assert audio.log_mel(np.zeros(100, np.float32)).shape == (80, 0)


def frames_of(spans, count):
    """bool per video frame whose middle lies in one of the spans (seconds)."""
    middle = (np.arange(count) + 0.5) / 25
    return np.any([(middle > a) & (middle < b) for a, b in spans], axis=0)


@pytest.mark.parametrize(("snr", "hits"), [(60, 0.98), (20, 0.98), (10, 0.95)])
def test_voice_activity_finds_syllables_and_pauses(make_speech, snr, hits):
    speech, spans = make_speech(12.0)
    noise = np.random.default_rng(1).normal(size=len(speech)) * speech.std() * 10 ** (-snr / 20)
    active = audio.voice_activity((speech + noise).astype(np.float32))
    assert active.shape == (300,) and active.dtype == bool
    assert active[frames_of(spans, 300)].mean() >= hits
    pauses = [(a + 0.12, b - 0.08) for (_, a), (b, _) in pairwise(spans) if b - a > 0.3]
    assert len(pauses) >= 5
    assert active[frames_of(pauses, 300)].mean() <= 0.03


@pytest.mark.parametrize("kind", ["zeros", "dither", "white", "loud", "brown", "hum"])
def test_voice_activity_is_false_without_speech(kind):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=96000)
    samples = {
        "zeros": 0 * noise,
        "dither": np.round(noise) / 32768,
        "white": 0.003 * noise,
        "loud": 0.2 * noise,
        "brown": 0.001 * np.cumsum(noise),
        "hum": 0.1 * np.sin(np.arange(96000) * 2 * np.pi * 50 / 16000) + 0.001 * noise,
    }[kind]
    assert not audio.voice_activity(samples.astype(np.float32)).any()


def test_voice_activity_of_short_pieces():
    assert audio.voice_activity(np.zeros(0, np.float32)).shape == (0,)
    assert audio.voice_activity(np.zeros(500, np.float32)).shape == (1,)
    assert audio.voice_activity(np.zeros(16333, np.float32)).shape == (26,)


def test_speech_envelope(make_speech):
    speech, spans = make_speech(10.0)
    envelope = audio.speech_envelope(speech)
    assert envelope.shape == (250,) and envelope.dtype == np.float32
    assert envelope.min() >= 0 and envelope.max() == 1
    np.testing.assert_allclose(audio.speech_envelope(0.1 * speech), envelope, atol=1e-5)
    inside = frames_of(spans, 250)
    assert envelope[inside].mean() > 4 * envelope[~inside].mean()
    impulse = np.zeros(16000, np.float32)
    impulse[10 * 640 + 320] = 1  # the middle of frame 10: frame 10 is loudest, its neighbours share the window's edge
    assert audio.speech_envelope(impulse).argmax() in (10, 11)
    assert not audio.speech_envelope(np.zeros(16000, np.float32)).any()
    assert audio.speech_envelope(np.full(16000, 1e-5, np.float32)).max() < 0.02


def test_delay():
    samples = np.arange(1, 8001, dtype=np.float32)
    later, earlier = audio.delay(samples, 0.1), audio.delay(samples, -0.1)
    assert later.dtype == np.float32 and not later[:1600].any() and np.array_equal(later[1600:], samples[:-1600])
    assert np.array_equal(earlier[:-1600], samples[1600:]) and not earlier[-1600:].any()
    assert np.array_equal(audio.delay(samples, 0.0), samples)
    assert not audio.delay(samples, 0.5).any() and not audio.delay(samples, -2.0).any()
