"""What a face does besides speaking: blinks, brows, slow head motion. NumPy; the same seed gives the same motion.

What goes with the speech: brows rise towards a stressed word and are highest on it, the head nods after its beginning
(Kim, Cvejic and Davis 2014); people who speak blink in pauses and at ends (Nakano and Kitazawa 2010). It is a tendency,
not a rule: of rapid brow movements 71 % went with a rise of the voice (Cave and others 1996), so chance has its share.
"""

import numpy as np

from sonic_ms.edge.rig import POSE
from sonic_ms.media.audio import FPS

BLINK_MEAN_SECONDS = 3.7  # about 16 a minute, the rate of people who speak
BLINK_SHAPES = (  # closing of the lids, frame by frame; 200 to 280 ms
    (0.35, 0.95, 1.0, 0.7, 0.25),
    (0.5, 1.0, 0.95, 0.65, 0.4, 0.15),
    (0.3, 0.85, 1.0, 1.0, 0.75, 0.45, 0.15),
)
SWAY = {"shift_x": 0.012, "shift_y": 0.007, "roll": 0.018, "zoom": 0.008}  # amplitudes, units of rig.POSE
NOD = 0.010  # face heights a loud syllable lowers the head
BREATH = (0.0025, 0.25)  # face heights, Hz
BROW_LIFT = 0.6
EARLY, LATE = 3, 3  # frames by which brows lead a stressed syllable and the head follows it
QUIET, PAUSE = 0.1, 5  # loudness below which, and frames for which, a speaker pauses
TO_A_PAUSE = 1.0  # seconds by which a blink is early or late to fall into one


def _smooth(values, seconds):
    """Gaussian smoothing over time, (n,); ends are extended."""
    sigma = seconds * FPS
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def _wander(rng, n, seconds):
    """Slow random motion, (n,), roughly in -1..1, without a preferred direction."""
    noise = _smooth(rng.standard_normal(n + 8 * FPS), seconds)[: n + 8 * FPS]
    noise = noise[4 * FPS : 4 * FPS + n]
    # the standard deviation of white noise after this smoothing
    return np.clip(noise * np.sqrt(2 * np.sqrt(np.pi) * seconds * FPS) / 1.8, -1.3, 1.3)


def pause_starts(envelope):
    """Seconds at which pauses begin in a loudness of 0..1, (n,)."""
    quiet = np.pad(np.asarray(envelope) < QUIET, 1)
    begins, ends = np.flatnonzero(np.diff(quiet.astype(int)) == 1), np.flatnonzero(np.diff(quiet.astype(int)) == -1)
    return begins[(ends - begins >= PAUSE) & (begins > 0)] / FPS


def _blinks(rng, n, pauses):
    closing = np.zeros(n)
    time, last = rng.uniform(0.8, 2.5), -2.0
    while (time := max(time, last + 1.2)) * FPS < n:
        shape = BLINK_SHAPES[rng.integers(len(BLINK_SHAPES))]
        near = pauses[(np.abs(pauses - time) <= TO_A_PAUSE) & (pauses > last + 1.2)]
        last = near[np.argmin(np.abs(near - time))] if len(near) else time
        first = int(last * FPS)
        part = shape[: n - first]
        closing[first : first + len(part)] = part
        time += np.clip(rng.lognormal(np.log(BLINK_MEAN_SECONDS) - 0.125, 0.5), 1.2, 9.0)
    return closing


def _shifted(values, frames):
    """The values that many frames later, or earlier when negative; ends are repeated."""
    return values[np.clip(np.arange(len(values)) - frames, 0, len(values) - 1)]


def idle_motion(n_frames, seed, envelope, scale):
    """Pose of every frame, float32 (n_frames, 6) in the order of rig.POSE.

    envelope: (n_frames,) loudness in 0..1, so that the head and the brows follow the speech; scale: motion_scale,
    0 gives all zeros. Lids always close fully: half a blink looks ill.
    """
    pose = np.zeros((n_frames, len(POSE)))
    if scale == 0 or n_frames == 0:
        return pose.astype(np.float32)
    rng = np.random.default_rng(seed)
    column = {name: pose[:, i] for i, name in enumerate(POSE)}
    for name, amplitude in SWAY.items():
        column[name] += amplitude * _wander(rng, n_frames, 0.9)
    phase = rng.uniform(0, 2 * np.pi)
    accent = _smooth(np.asarray(envelope, np.float64), 0.12)
    times = np.arange(n_frames) / FPS
    column["shift_y"] += NOD * _shifted(accent - _smooth(accent, 1.5), LATE) + BREATH[0] * np.sin(
        2 * np.pi * BREATH[1] * times + phase
    )
    column["brow"] += BROW_LIFT * np.clip(_wander(rng, n_frames, 0.5) * 0.5 + _shifted(accent, -EARLY) - 0.55, 0, 1)
    pose *= scale * np.clip(times / 0.6, 0, 1)[:, None]  # starts from the photo
    pose[:, 4] = _blinks(rng, n_frames, pause_starts(envelope))
    return pose.astype(np.float32)
