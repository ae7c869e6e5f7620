"""Host side of the audio encoder: per-clip normalisation, and the windows in which a clip is run. NumPy."""

import numpy as np

MEL_PER_FRAME = 4  # 100 mel frames a second, 25 video frames a second
WINDOW = 100  # video frames the graph sees at once
HALO = 25  # frames at each end of a window that only give context; the middle 50 are kept


def normalise_mel(mel):
    """Remove level and channel colour: subtract each band's mean over the loud frames.

    mel: (80, n) Whisper log-mel (1 unit = 40 dB). Frames within 1 unit of the loudest band-mean count as loud.
    Returns (80, n) float32; on digital silence all zeros.
    """
    level = mel.mean(axis=0)
    loud = level >= level.max() - 1.0
    return (mel - mel[:, loud].mean(axis=1, keepdims=True)).astype(np.float32)


def mel_windows(mel, n_frames):
    """Yield (first frame, window (1, 80, 1, 4*WINDOW)) so that every frame lies in the middle of one window.

    mel: (80, about 4*n_frames), normalised; the ends are padded with the quietest frame's values.
    """
    hop = WINDOW - 2 * HALO
    quiet = mel[:, mel.mean(axis=0).argmin()][:, None]
    starts = range(0, n_frames, hop)
    total = MEL_PER_FRAME * (starts[-1] + WINDOW)
    before = MEL_PER_FRAME * HALO
    mel = mel[:, : MEL_PER_FRAME * n_frames]
    after = total - before - mel.shape[1]
    padded = np.concatenate([np.repeat(quiet, before, 1), mel, np.repeat(quiet, after, 1)], axis=1)
    for start in starts:
        yield start, padded[None, :, None, MEL_PER_FRAME * start : MEL_PER_FRAME * (start + WINDOW)]
