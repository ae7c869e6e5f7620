"""Host side of the audio encoder: the windows in which a recording is run. NumPy."""

import numpy as np

from sonic_ms.media.audio import frame_count, log_mel

MEL_PER_FRAME = 4  # 100 mel frames a second, 25 video frames a second
WINDOW = 200  # video frames the graph sees at once
HALO = 25  # frames at each end of a window that only give context, but at the recording's own ends
RANGE = 2.0  # Whisper's log-mel reaches from the recording's maximum this far down


def fit(mel, n_frames):
    """Log-mel (80, about 4 * n_frames) cut, or extended by the silence that its floor is, to exactly that many."""
    length = MEL_PER_FRAME * n_frames
    floor = mel.max(initial=-1.5 + RANGE) - RANGE
    return np.pad(mel[:, :length], ((0, 0), (0, max(0, length - mel.shape[1]))), constant_values=floor)


def window_starts(n_frames):
    """[(first frame of a window, first frame that is kept from it on)]; the last window ends with the recording."""
    starts = [*range(0, max(n_frames - WINDOW, 0), WINDOW - 2 * HALO), max(n_frames - WINDOW, 0)]
    return [(start, start + HALO if start else 0) for start in dict.fromkeys(starts)]


def hear(encoder, samples):
    """float32 samples at 16 kHz -> rows of the encoder (frame_count, c).

    encoder: function of a window of log-mel (1, 80, 4 * WINDOW) -> (1, c, WINDOW). The floor of the log-mel hangs
    below the maximum of the whole recording.
    """
    n_frames = frame_count(len(samples))
    mel = fit(log_mel(samples), max(n_frames, WINDOW))
    rows = None
    for start, kept in window_starts(n_frames):
        part = encoder(np.ascontiguousarray(mel[None, :, MEL_PER_FRAME * start : MEL_PER_FRAME * (start + WINDOW)]))[0]
        rows = np.zeros((n_frames, len(part)), np.float32) if rows is None else rows
        rows[kept : start + WINDOW] = part.T[kept - start : n_frames - start]
    return rows
