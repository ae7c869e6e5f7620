import numpy as np
import pytest

from sonic_ms.edge.audio_features import HALO, MEL_PER_FRAME, WINDOW, fit, hear, window_starts
from sonic_ms.media.audio import log_mel


@pytest.mark.parametrize("n_frames", [1, WINDOW, WINDOW + 1, 2 * WINDOW - 2 * HALO, 1000])
def test_every_frame_is_kept_once_with_its_context(n_frames):
    starts = window_starts(n_frames)
    kept = [first for _, first in starts] + [n_frames]
    assert kept[0] == 0 and kept == sorted(kept)
    for (start, first), after in zip(starts, kept[1:]):
        assert start >= 0 and (n_frames <= WINDOW or start + WINDOW <= n_frames)
        assert first == (start + HALO if start else 0)
        assert after - start <= WINDOW - HALO or after == n_frames


def test_windows_are_put_together_in_order(monkeypatch):
    """An encoder that says which mel frame it saw."""
    samples = np.zeros(16000 * 30 + 4321, np.float32)
    seen = []

    def encoder(mel):
        seen.append(mel.shape)
        return mel[:, :2, ::MEL_PER_FRAME]

    number = np.arange(len(samples) // 160, dtype=np.float32)
    monkeypatch.setattr("sonic_ms.edge.audio_features.log_mel", lambda samples: np.tile(number, (80, 1)))
    rows = hear(encoder, samples)
    assert set(seen) == {(1, 80, MEL_PER_FRAME * WINDOW)}
    np.testing.assert_array_equal(rows[:, 0], MEL_PER_FRAME * np.arange(len(rows)))


def test_a_short_recording_is_followed_by_silence():
    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    padded = np.pad(samples, (0, 15 * 16000))
    mel = fit(log_mel(samples), WINDOW)
    assert mel.shape == (80, MEL_PER_FRAME * WINDOW)
    np.testing.assert_allclose(mel[:, 102:], log_mel(padded)[:, 102 : mel.shape[1]], atol=1e-5)


def test_silence_is_heard_without_a_warning():
    assert hear(lambda mel: mel[:, :3, ::MEL_PER_FRAME], np.zeros(16000, np.float32)).shape == (25, 3)
