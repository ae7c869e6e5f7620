"""Recordings whose stamps, headers or channels mislead: what is heard is what is muxed, and what is odd is said."""

import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.errors import AudioError, EngineError, ResourceError
from sonic_ms.media import audio, video

CASES = Path(__file__).parents[1] / "cases"


def run(*arguments):
    import imageio_ffmpeg

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


def write_wav(path, samples, rate=16000):
    """Samples (n,) or (n, channels) in -1..1 as 16 bit."""
    samples = np.asarray(samples)
    with wave.open(str(path), "wb") as file:
        file.setparams((1 if samples.ndim == 1 else samples.shape[1], 2, rate, 0, "NONE", ""))
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def speech(make_speech):
    return make_speech(3.0)[0]


def muxed(path, samples, folder):
    """The sound of a video of `samples` whose source is the file `path`."""
    count = audio.frame_count(len(samples))
    frames = np.zeros((64, 64, 3), np.uint8)
    lazy = video.Video(lambda: iter([frames] * count), (64, 64), count, samples, path)
    out = video.write_video(lazy, folder / "out.mp4", overwrite=True, progress=False)
    assert video.probe(out).frames == count
    return audio.load_audio(out)


def assert_in_step(heard, expected, tolerance=16):
    """The same length, and no lag at the beginning nor at the end."""
    assert abs(len(heard) - len(expected)) <= 1024
    n = min(len(heard), len(expected))
    for part in (slice(0, min(n, 16000)), slice(max(n - 16000, 0), n)):
        a, b = heard[part] - heard[part].mean(), expected[part] - expected[part].mean()
        if b.std() > 1e-3:
            assert abs(np.correlate(a, b, "full").argmax() - (len(b) - 1)) <= tolerance


class TestStamps:
    @pytest.mark.parametrize("duration, seconds", [(None, 2.0), (1.8, 1.8)])
    def test_a_pause_in_the_stamps_takes_no_sound_away(self, tmp_path, duration, seconds):
        samples = audio.load_audio(CASES / "gap.webm", duration=duration)
        assert len(samples) / 16000 == pytest.approx(seconds, abs=0.01)
        assert_in_step(muxed(CASES / "gap.webm", samples, tmp_path), samples)

    @pytest.mark.parametrize(
        "name, options",
        [
            ("gap.mkv", ["-af", "asetpts=PTS+gte(T\\,1)*4/TB", "-c:a", "aac"]),
            ("gap.m4a", ["-af", "asetpts=PTS+gte(T\\,1)*4/TB", "-c:a", "aac"]),
            ("hours.mkv", ["-af", "asetpts=PTS+gte(T\\,1)*9000/TB", "-c:a", "flac"]),
            ("twice.mkv", ["-af", "asetpts=PTS+gte(T\\,1)*2/TB+gte(T\\,2)*3/TB", "-c:a", "aac"]),
            ("late.mkv", ["-af", "asetpts=PTS+7/TB", "-c:a", "aac"]),
        ],
    )
    @pytest.mark.parametrize("duration", [None, 2.5])
    def test_whatever_the_stamps_say(self, tmp_path, speech, name, options, duration):
        run("-i", write_wav(tmp_path / "a.wav", speech), *options, tmp_path / name)
        samples = audio.load_audio(tmp_path / name, duration=duration)
        assert len(samples) / 16000 == pytest.approx(duration or 3.0, abs=0.08)
        assert_in_step(muxed(tmp_path / name, samples, tmp_path), samples)


class TestHeaders:
    def test_a_guessed_length_is_no_reason_to_refuse(self):
        notes = []
        samples = audio.load_audio(CASES / "vbr_noxing.mp3", max_seconds=20, notes=notes)
        assert len(samples) / 16000 == pytest.approx(12.41, abs=0.01) and notes == []
        with pytest.raises(AudioError, match="at most 10 s"):  # but the samples are
            audio.load_audio(CASES / "vbr_noxing.mp3", max_seconds=10)

    def test_one_damaged_spot_is_noted(self, tmp_path):
        notes = []
        samples = audio.load_audio(CASES / "vbr_noxing_glitch.mp3", notes=notes)
        assert len(samples) / 16000 == pytest.approx(12.28, abs=0.05)
        assert len(notes) == 1 and "damaged or joined in places" in notes[0] and "\n" not in notes[0]
        assert_in_step(muxed(CASES / "vbr_noxing_glitch.mp3", samples, tmp_path), samples)

    @pytest.mark.parametrize(
        "first, second", [((22050, 1), (44100, 1)), ((22050, 1), (44100, 2)), ((44100, 1), (16000, 1))]
    )
    def test_joined_files_of_two_rates(self, tmp_path, speech, first, second):
        wav, joined = write_wav(tmp_path / "a.wav", speech), b""
        for rate, channels in (first, second):
            run("-i", wav, "-ar", rate, "-ac", channels, "-write_xing", 0, "-id3v2_version", 0, tmp_path / "a.mp3")
            joined += (tmp_path / "a.mp3").read_bytes()
        path = tmp_path / "joined.mp3"
        path.write_bytes(joined)
        notes = []
        samples = audio.load_audio(path, notes=notes)
        assert len(samples) / 16000 == pytest.approx(6.1, abs=0.15)
        assert_in_step(muxed(path, samples, tmp_path), samples, tolerance=48)

    @pytest.mark.parametrize("kind", ["random", "zeros"])
    @pytest.mark.parametrize("suffix", ["mp3", "aac"])
    def test_what_is_lost_for_the_most_part_is_refused(self, tmp_path, speech, kind, suffix):
        run("-i", write_wav(tmp_path / "a.wav", speech), "-write_xing", 0, tmp_path / f"a.{suffix}")
        data = (tmp_path / f"a.{suffix}").read_bytes()
        keep = len(data) // 3
        rest = np.random.default_rng(0).bytes(2 * keep) if kind == "random" else bytes(2 * keep)
        (tmp_path / f"a.{suffix}").write_bytes(data[:keep] + rest)
        with pytest.raises(AudioError, match="corrupt, only") as error:
            audio.load_audio(tmp_path / f"a.{suffix}")
        assert "\n" not in str(error.value)


class TestChannels:
    def test_antiphase_is_heard(self, tmp_path):
        with wave.open(str(CASES / "antiphase.wav")) as file:
            both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2) / np.float32(32768)
        notes = []
        samples = audio.load_audio(CASES / "antiphase.wav", notes=notes)
        assert np.array_equal(samples, both[:, 0]) or np.array_equal(samples, both[:, 1])
        assert len(notes) == 1 and "cancel each other" in notes[0] and audio.speech_note(samples) is None
        assert np.array_equal(audio.load_audio(both), samples)

    @pytest.mark.parametrize(
        "left, right",
        [(1.0, -0.8), (0.8, -1.0), ("half", None)],
    )
    def test_nearly_antiphase_and_in_parts(self, tmp_path, speech, left, right):
        both = np.stack([speech, speech], 1)
        if left == "half":
            both[len(both) // 2 :, 1] *= -1
        else:
            both *= [left, right]
        both += (
            1e-4 * np.random.default_rng(0).normal(size=both.shape) + 0.1 * np.sin(np.arange(len(both)) * 0.02)[:, None]
        )
        samples = audio.load_audio(write_wav(tmp_path / "a.wav", both))
        assert np.abs(samples[:, None] - both).max(0).min() < 1e-3  # one of the channels

    def test_ordinary_stereo_is_mixed_as_ever(self, tmp_path, speech):
        rng = np.random.default_rng(0)
        for other in (speech, 0 * speech, 0.03 * rng.normal(size=len(speech)), np.roll(speech, 3)):
            notes = []
            both = np.stack([speech, other], 1)
            samples = audio.load_audio(write_wav(tmp_path / "a.wav", both), notes=notes)
            np.testing.assert_allclose(samples, both.sum(1) * 0.5**0.5, atol=1e-4)  # ffmpeg's mix keeps the power
            assert notes == []

    @pytest.mark.parametrize("default", [0, 1])
    def test_a_silent_track_beside_the_speech(self, tmp_path, speech, default):
        path = tmp_path / "tracks.mkv"
        run(
            "-f", "lavfi", "-t", 3, "-i", "anullsrc=r=16000:cl=mono", "-i", write_wav(tmp_path / "a.wav", speech),
            "-map", "0:a", "-map", "1:a", f"-disposition:a:{default}", "default", f"-disposition:a:{1 - default}", 0,
            "-c:a", "flac", path,
        )  # fmt: skip
        notes = []
        samples = audio.load_audio(path, notes=notes)
        assert np.corrcoef(samples, speech)[0, 1] > 0.999 and "track 2 of 2 is used" in notes[0]
        assert_in_step(muxed(path, samples, tmp_path), speech)

    def test_no_speech_is_said(self, speech):
        rng = np.random.default_rng(0)
        assert audio.speech_note(speech) is None
        for silence in (np.zeros(32000, np.float32), (0.003 * rng.normal(size=32000)).astype(np.float32)):
            assert "no speech found in 2.0 s" in audio.speech_note(silence)


class TestHost:
    """What is not the recording's fault does not blame the recording."""

    @pytest.mark.parametrize(
        "script, kind, words",
        [
            (None, EngineError, "cannot be started"),
            ("#!/bin/sh\necho 'error while loading shared libraries: libx.so' >&2; exit 127\n", EngineError, "libx.so"),
            ("#!/bin/sh\nexit 1\n", EngineError, "ends with code 1"),
            ("#!/bin/sh\nkill -9 $$\n", ResourceError, "out of memory"),
            ("not a program", EngineError, "cannot be started"),
        ],
    )
    def test_ffmpeg_that_does_not_run(self, tmp_path, monkeypatch, speech, script, kind, words):
        import imageio_ffmpeg

        path = write_wav(tmp_path / "a.wav", speech)
        fake = tmp_path / "ffmpeg"
        if script:
            fake.write_text(script)
            fake.chmod(0o755)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
        for call in (
            lambda: audio.load_audio(path),
            lambda: video.probe(path),
            lambda: video.write_video(
                video.Video(lambda: iter([np.zeros((64, 64, 3), np.uint8)] * 75), (64, 64), 75, speech),
                tmp_path / "o.mp4",
                progress=False,
            ),
        ):
            with pytest.raises(kind, match=words) as error:
                call()
            assert "corrupt" not in str(error.value) and "\n" not in str(error.value)

    def test_no_ffmpeg_at_all(self, tmp_path, monkeypatch, speech):
        import imageio_ffmpeg

        def missing():
            raise RuntimeError("No ffmpeg exe could be found.")

        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
        with pytest.raises(EngineError, match="IMAGEIO_FFMPEG_EXE"):
            audio.load_audio(write_wav(tmp_path / "a.wav", speech))

    def test_no_folder_for_temporary_files(self, tmp_path, monkeypatch, speech):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
        path = write_wav(tmp_path / "a.wav", speech)
        samples = audio.load_audio(path)
        assert len(samples) == len(speech)
        assert_in_step(muxed(path, samples, tmp_path), samples)
        assert_in_step(muxed(None, samples, tmp_path), samples)
