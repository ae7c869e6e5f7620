import numpy as np
import pytest

from sonic_ms.edge.audio_features import HALO, MEL_PER_FRAME, WINDOW, mel_windows, normalise_mel


@pytest.mark.parametrize("n_frames", [1, 50, 51, 137])
def test_every_frame_lies_in_the_middle_of_one_window(n_frames):
    count = MEL_PER_FRAME * n_frames
    mel = np.broadcast_to(np.arange(1, count + 1, dtype=np.float32), (80, count))
    seen = []
    for start, window in mel_windows(mel, n_frames):
        assert window.shape == (1, 80, 1, MEL_PER_FRAME * WINDOW)
        middle = window[0, 0, 0, MEL_PER_FRAME * HALO : -MEL_PER_FRAME * HALO : MEL_PER_FRAME]
        kept = middle[: n_frames - start]
        np.testing.assert_array_equal(kept, 1 + MEL_PER_FRAME * np.arange(start, start + len(kept)))
        seen += list(kept)
    assert len(seen) == n_frames


def test_level_and_colour_of_the_channel_are_removed():
    mel = np.random.default_rng(0).uniform(-0.4, 0.4, (80, 200))
    coloured = mel + np.linspace(-0.3, 0.3, 80)[:, None] + 0.5
    np.testing.assert_allclose(normalise_mel(coloured), normalise_mel(mel), atol=0.05)
    assert np.all(normalise_mel(np.full((80, 50), -1.0)) == 0)
