"""From the curves a model predicts to the curves that are shown. NumPy, float32 (n_frames, 8) in and out.

Order in the pipeline: silence, lag, loudness, user's offset, smoothing, strength.
"""

import numpy as np

from sonic_ms.edge.curves import JAW, OPEN
from sonic_ms.media.audio import FPS
from sonic_ms.media.lag import is_off, measure_lag

LOUDNESS_FLOOR = 0.05  # share of the opening left in the quietest speech
LOUDNESS_GAIN = 1.8  # and added on the loudest syllables
WIDEST = 1.1  # `open` of a shout; louder opens no further
CLOSED = 0.0  # an `open` at or below this is a closure


def rest_in_silence(curves, voiced):
    """Close the mouth where nobody speaks.

    voiced: bool (n_frames,). The mouth may open two frames ahead of the voice, as people do, and closes within three
    frames after it; a frame in the middle of silence is exactly the closed mouth of the photo.
    """
    gain = np.zeros(len(curves))
    # shift < 0: the mouth opens before the voice; shift > 0: it closes after it
    for shift, value in ((-2, 0.35), (-1, 0.7), (0, 1.0), (1, 0.7), (2, 0.35), (3, 0.15)):
        moved = np.zeros(len(curves))
        if shift < 0:
            moved[:shift] = voiced[-shift:]
        elif shift > 0:
            moved[shift:] = voiced[:-shift]
        else:
            moved[:] = voiced
        gain = np.maximum(gain, value * moved)
    return (curves * gain[:, None]).astype(np.float32)


def shift_curves(curves, frames):
    """Move the curves `frames` later (earlier when negative), whole and fractional; the ends hold their values."""
    position = np.arange(len(curves)) - frames
    return np.stack([np.interp(position, np.arange(len(curves)), curve) for curve in curves.T], 1).astype(np.float32)


def correct_lag(curves, envelope):
    """Remove the measured lag between mouth and speech; returns (curves, frames moved)."""
    lag, correlation = measure_lag(np.maximum(curves[:, OPEN], 0) + 0.5 * curves[:, JAW], envelope)
    if not is_off(lag, correlation):
        return curves, 0.0
    return shift_curves(curves, -lag), -lag


def follow_loudness(curves, envelope):
    """Open wider on loud syllables and less on quiet ones, as speakers do; closures stay.

    The audio encoder is blind to level (it must be: recordings differ), so stress has to come from here. On the real
    recordings this lifts the correlation of opening and loudness from 0.16-0.62 to 0.62-0.87:
    docs/decisions/2026-11-22-articulation-follows-loudness.md.
    """
    curves = curves.copy()
    opened = curves[:, OPEN] > CLOSED
    wider = curves[:, OPEN] * (LOUDNESS_FLOOR + LOUDNESS_GAIN * envelope)
    curves[opened, OPEN] = WIDEST * np.tanh(wider[opened] / WIDEST)
    curves[:, JAW] *= 0.6 + 0.4 * envelope
    return curves


def smooth_curves(curves):
    """Temporal smoothing (1, 2, 1) / 4 that leaves closures as they are: pressed lips last only a frame or two."""
    padded = np.pad(curves, ((1, 1), (0, 0)), mode="edge")
    smooth = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    closed = curves[:, OPEN] <= CLOSED
    smooth[closed, OPEN] = curves[closed, OPEN]
    return smooth.astype(np.float32)


def scale_mouth(curves, dynamic_scale):
    """Stronger or weaker articulation; a closure stays a closure."""
    scaled = curves * dynamic_scale
    closed = curves[:, OPEN] <= CLOSED
    scaled[closed, OPEN] = curves[closed, OPEN]
    return scaled.astype(np.float32)


def post_process(curves, voiced, envelope, options):
    """All of the above as the options ask: (curves, notes for a verbose user)."""
    notes = []
    curves = rest_in_silence(curves, voiced)
    if options.lip_sync_correction:
        curves, moved = correct_lag(curves, envelope)
        if moved:
            notes.append(f"lip-sync correction moved the mouth by {moved:+.2f} frames")
    curves = follow_loudness(curves, envelope)
    if options.align_offset:
        curves = shift_curves(curves, options.align_offset * FPS)
    if options.smooth_motion:
        curves = smooth_curves(curves)
    return scale_mouth(curves, options.dynamic_scale), notes
