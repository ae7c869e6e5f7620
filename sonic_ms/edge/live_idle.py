"""The motion of idle.py frame by frame, for speech that has no end. The same kinds and sizes of motion, not the same
frames: what idle.py smooths over both directions of time is known here only up to the look-ahead."""

import numpy as np

from sonic_ms.edge.idle import (
    BLINK_MEAN_SECONDS,
    BLINK_SHAPES,
    BREATH,
    BROW_LIFT,
    NOD,
    SWAY,
)
from sonic_ms.edge.rig import POSE
from sonic_ms.media.audio import FPS

ACCENT, MEAN = 0.12, 1.5  # seconds over which loudness is averaged for an accent, and for what it stands out from


class Wander:
    """Slow random motion, roughly in -1..1: white noise under a Gaussian of `seconds`, made as it is needed."""

    def __init__(self, rng, seconds):
        sigma = seconds * FPS
        reach = int(np.ceil(3 * sigma))
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        self._kernel = kernel / kernel.sum() * np.sqrt(2 * np.sqrt(np.pi) * sigma) / 1.8
        self._rng, self._noise = rng, rng.standard_normal(len(kernel))

    def next(self):
        value = self._kernel @ self._noise
        self._noise = np.append(self._noise[1:], self._rng.standard_normal())
        return float(np.clip(value, -1.3, 1.3))


class LiveIdle:
    """Pose of one frame after the other; the same seed and loudness give the same motion. scale: motion_scale."""

    def __init__(self, seed, scale):
        self._rng, self._scale = np.random.default_rng(seed), scale
        self._sway = {name: Wander(self._rng, 0.9) for name in SWAY}
        self._brow = Wander(self._rng, 0.5)
        self._phase = self._rng.uniform(0, 2 * np.pi)
        self._frame, self._accent, self._mean = 0, 0.0, 0.0
        self._blink, self._until_blink = [], int(self._rng.uniform(0.8, 2.5) * FPS)

    def next(self, loudness):
        """float32 (6,) in the order of rig.POSE. loudness: of this frame or a little ahead, 0..1."""
        pose = np.zeros(len(POSE), np.float32)
        if self._scale == 0:
            return pose
        time, self._frame = self._frame / FPS, self._frame + 1
        self._accent += (loudness - self._accent) / (1 + ACCENT * FPS)
        self._mean += (loudness - self._mean) / (1 + MEAN * FPS)
        values = {name: amplitude * self._sway[name].next() for name, amplitude in SWAY.items()}
        values["shift_y"] += NOD * (self._accent - self._mean)
        values["shift_y"] += BREATH[0] * np.sin(2 * np.pi * BREATH[1] * time + self._phase)
        values["brow"] = BROW_LIFT * np.clip(0.5 * self._brow.next() + self._accent - 0.55, 0, 1)
        strength = self._scale * min(time / 0.6, 1)  # starts from the photo
        for name, value in values.items():
            pose[POSE.index(name)] = strength * value
        pose[POSE.index("blink")] = self._lids()
        return pose

    def _lids(self):
        if not self._blink and self._until_blink <= 0:
            self._blink = list(BLINK_SHAPES[self._rng.integers(len(BLINK_SHAPES))])
            pause = np.clip(self._rng.lognormal(np.log(BLINK_MEAN_SECONDS) - 0.125, 0.5), 1.2, 9.0)
            self._until_blink = int(pause * FPS)
        self._until_blink -= 1
        return self._blink.pop(0) if self._blink else 0.0
