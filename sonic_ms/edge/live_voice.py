"""Where speech is and how loud it is, while it comes in: the measures of media/audio.py over the last ten seconds.

A frame is 40 ms; frames are appended as they become known, at most the look-ahead before they are shown, and can be
taken back until then.
"""

import numpy as np

from sonic_ms.media.audio import (
    HOP,
    N_MELS,
    SAMPLES_PER_FRAME,
    VAD_BANDS,
    VAD_FLOOR_PERCENTILE,
    active_frames,
    mel_powers,
    smooth_bands,
)

KEPT = 250  # frames of which floor and loudness are known: the ten seconds over which media/audio.py has a floor
SEEN = 75  # last frames that are decided on anew
REFRESH = 10  # frames after which the floor is measured again
HOPS = SAMPLES_PER_FRAME // HOP
QUIETEST = 1e-3  # RMS of -60 dBFS: quieter speech is not blown up
NOTHING = 1e-10  # power in a mel band, below which log_mel sees none


class LiveVoice:
    """Last KEPT frames of sound and what they say."""

    def __init__(self):
        self._samples = np.zeros(0, np.float32)
        self._powers = np.zeros((0, N_MELS), np.float32)
        self._energy = []  # mean square of each frame
        self._floor, self._loud, self._loudest, self._fresh = None, 0.0, 0.0, 0

    def append(self, samples):
        """One more frame, float32 (SAMPLES_PER_FRAME,)."""
        powers = mel_powers(np.concatenate([self._samples[-2 * SAMPLES_PER_FRAME :], samples]))
        # the last spectra of the frame before reached into this one
        kept = self._powers[: max(len(self._powers) - HOPS, 0)]
        self._powers = np.concatenate([kept, powers[-2 * HOPS :]])[-KEPT * HOPS :]
        self._samples = np.concatenate([self._samples, samples])[-KEPT * SAMPLES_PER_FRAME :]
        self._energy = [*self._energy, float(np.mean(samples.astype(np.float64) ** 2))][-KEPT:]

    def drop(self, frames):
        """Take the last frames back."""
        if frames:
            self._samples = self._samples[: max(len(self._samples) - frames * SAMPLES_PER_FRAME, 0)]
            self._powers = self._powers[: max(len(self._powers) - frames * HOPS, 0)]
            self._energy = self._energy[: max(len(self._energy) - frames, 0)]

    def mel(self, frames):
        """log_mel without its floor of the last so many frames, silence before the first: (80, frames * HOPS)."""
        powers = np.full((frames * HOPS, N_MELS), NOTHING, np.float32)
        known = self._powers[-frames * HOPS :]
        powers[len(powers) - len(known) :] = known
        return (np.log10(np.maximum(powers, NOTHING)).T + 4) / 4

    def active(self):
        """bool (n,), n at most SEEN: where speech is in the last frames."""
        bands, level = smooth_bands(self._powers[-(SEEN * HOPS + 2) :, VAD_BANDS])
        count = min(len(level) // HOPS, SEEN)
        bands, level = bands[-count * HOPS :], level[-count * HOPS :]
        if self._floor is None or self._fresh <= 0:
            every, levels = smooth_bands(self._powers[:, VAD_BANDS])
            self._floor = np.percentile(every, VAD_FLOOR_PERCENTILE, axis=0)
            self._loud = np.percentile(levels[: len(levels) // HOPS * HOPS].reshape(-1, HOPS).max(1), 95)
            self._loudest = np.sqrt(np.percentile(self._energy, 95))
            self._fresh = REFRESH
        self._fresh -= 1
        score = np.clip(bands - self._floor, 0, 25).mean(1)
        return active_frames(score.reshape(count, HOPS).mean(1), level.reshape(count, HOPS).max(1), self._loud)

    def loudness(self, back):
        """RMS of the 80 ms around a frame, `back` before the last one, in that of the loudest twentieth: 0..1."""
        at = len(self._energy) - 1 - back
        if at < 0:
            return 0.0
        before, now, after = self._energy[max(at - 1, 0)], self._energy[at], self._energy[min(at + 1, at + back)]
        rms = np.sqrt(0.25 * before + 0.5 * now + 0.25 * after)
        return float(min(rms / max(self._loudest, QUIETEST), 1))
