"""sonic-edge while the speech comes in: frames of sound in, moving squares out, each with a bounded look-ahead.

The causal form of generator.frames. What the whole recording says there is said here by what was heard so far: the
floor of the log-mel by a maximum that fades, rest by a pause that has lasted, noise and loudness by the last ten
seconds.
"""

from typing import NamedTuple

import numpy as np

from sonic_ms.edge.audio_features import RANGE
from sonic_ms.edge.curves import CURVES
from sonic_ms.edge.heard import curves_of
from sonic_ms.edge.live_idle import LiveIdle
from sonic_ms.edge.live_voice import LiveVoice
from sonic_ms.edge.postprocess import EASE, REST, scale_mouth, smooth_curves
from sonic_ms.edge.squares import SquareRenderer

FADING = 0.002  # log10 units a frame that the loudest mel value heard so far loses: 80 dB in 160 s
CLOSING = (0.45, 0.15, 0.0)  # share of the opening in the frames after an interruption
HOP_FRAMES = 3  # frames that one run of the encoder serves
PAUSE = 10  # known frames of silence after which a mouth rests


class LiveUnits(NamedTuple):
    """Graphs that make single frames. window: frames that the encoder sees; batch: frames that the renderer draws."""

    encoder: str
    window: int
    renderer: str
    batch: int


class LiveEdge:
    """One portrait that speaks.

    `append` gives it sound in frames of 40 ms, `next` makes the picture of the oldest that has none yet; `interrupt`
    takes back what was appended and not shown, and closes the mouth.
    """

    def __init__(self, engine, config, units, scene, options):
        self._engine, self._config, self._units, self._options = engine, config, units, options
        self._renderer = SquareRenderer(engine, scene, units.renderer, units.batch) if scene is not None else None
        self._idle = LiveIdle(options.seed, options.motion_scale)
        self._voice = LiveVoice()
        self.ahead = 0  # frames that were appended and not shown
        self._rows, self._loudest, self._gain, self._closing, self._silent = [], -10.0, 0.0, None, 0

    def append(self, samples):
        """One more frame of sound, float32 (SAMPLES_PER_FRAME,), of -1..1."""
        self._voice.append(samples)
        self.ahead += 1

    def interrupt(self):
        """Forget what was appended and not shown; the mouth closes over the next three frames."""
        self._voice.drop(self.ahead)
        self.ahead, self._rows = 0, []
        self._closing = list(CLOSING) if self._gain > 0 else None

    def skip(self):
        """Pass over the oldest frame that was not shown: its picture would come too late."""
        self.ahead -= 1
        self._rows = self._rows[1:]
        self._idle.next(0.0)

    def next(self):
        """The square of the oldest frame that was not shown, uint8 (side, side, 3)."""
        curves = self.next_curves()
        pose = self._idle.next(self._voice.loudness(self.ahead))
        return next(iter(self._renderer.render(curves[None], pose[None])))

    def next_curves(self):
        """Curves of the oldest frame that was not shown, float32 (8,)."""
        self.ahead -= 1
        gain = self._rest()
        if gain == 0:
            self._rows = []
            return np.zeros(len(CURVES), np.float32)
        if not self._rows:
            self._rows = self._hear()
        return gain * self._rows.pop(0)

    def _rest(self):
        """Share of the motion that is left: 1 in speech and short pauses, 0 in long ones, with easy ways between."""
        if self._closing is not None:
            if self._closing:
                self._gain = min(self._gain, self._closing.pop(0))
                return self._gain
            self._closing, self._gain = None, 0.0
        active = self._voice.active()
        now = len(active) - 1 - self.ahead
        if now < 0:
            return self._gain
        near = np.flatnonzero(active[now : now + len(EASE) + 1])
        if active[now]:
            target = 1.0
        else:
            before = np.flatnonzero(active[:now])
            silent_since = before[-1] + 1 if len(before) else 0
            coming = np.flatnonzero(active[now:])
            until = now + coming[0] if len(coming) else len(active)
            resting = until - silent_since >= (REST if len(coming) else PAUSE) or not len(before)
            target = 0.0 if resting or self._gain == 0 else 1.0
            if target == 0 and len(near):
                target = EASE[len(EASE) - near[0]]
        if target < self._gain:  # never shut at once
            steps = [share for share in (*EASE[::-1], 0.0) if share < self._gain]
            target = max(target, steps[0])
        self._gain = target
        return self._gain

    def _hear(self):
        """Curves as they are shown of the next HOP_FRAMES frames, or of those there are."""
        window = self._units.window
        mel = self._voice.mel(window)
        self._loudest = max(float(mel.max()), self._loudest - FADING * HOP_FRAMES)
        mel = np.maximum(mel, self._loudest - RANGE)[None]
        rows = self._engine.run(self._units.encoder, {"mel": np.ascontiguousarray(mel, np.float32)})["heard"][0].T
        curves = curves_of(rows, self._config)
        if self._options.smooth_motion:
            curves = smooth_curves(curves)
        curves = scale_mouth(curves, self._options.dynamic_scale)
        first = window - 1 - self.ahead
        return list(curves[first : first + min(HOP_FRAMES, self.ahead + 1)])
