"""From the curves of a mouth to the curves that are shown. NumPy, float32 (n_frames, 8) in and out.

Order in the pipeline: rest, lag, user's offset, smoothing, strength. How far the mouth opens is not touched by how loud
the speech is: real mouths hardly follow loudness (docs/measured/lips.md).
"""

import numpy as np

from sonic_ms.edge.curves import JAW, OPEN
from sonic_ms.media.audio import FPS
from sonic_ms.media.lag import is_off, lag_scores, measure_lag

CLOSED = 0.0  # an `open` at or below this is a closure
REST = 20  # frames of silence, 0.8 s, from which on a mouth rests: speakers keep it open in shorter pauses
SURE, CLEARLY = 0.6, 0.3  # correlation with loudness, and by how much it beats that within a frame, that show a lag
EASE = (0.15, 0.35, 0.7)  # share of the motion left 3, 2 and 1 frames from speech, on both sides


def rest_in_silence(curves, voiced):
    """Close the mouth where nobody speaks for REST frames or longer.

    voiced: bool (n_frames,). The mouth may open three frames ahead of the voice, as people do, and closes within three
    frames after it; a frame in the middle of silence is exactly the closed mouth of the photo.
    """
    active = np.asarray(voiced, bool).copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[True], active, [True]]).astype(np.int8)))
    for first, last in zip(edges[::2], edges[1::2]):
        if last - first < REST:
            active[first:last] = True
    gain = active.astype(float)
    for distance, value in zip(range(len(EASE), 0, -1), EASE):
        near = np.zeros(len(gain), bool)
        near[:-distance] |= active[distance:]
        near[distance:] |= active[:-distance]
        gain = np.maximum(gain, value * near)
    return (curves * gain[:, None]).astype(np.float32)


def shift_curves(curves, frames):
    """Move the curves `frames` later (earlier when negative), whole and fractional; the ends hold their values."""
    position = np.arange(len(curves)) - frames
    return np.stack([np.interp(position, np.arange(len(curves)), curve) for curve in curves.T], 1).astype(np.float32)


def correct_lag(curves, envelope):
    """Remove the measured lag between mouth and speech; returns (curves, frames moved).

    Of real mouths in step with their sound, half seem to be off by more than a frame if loudness alone is asked: only
    what loudness says surely and clearly is believed (docs/measured/lips.md).
    """
    opening = np.maximum(curves[:, OPEN], 0) + 0.5 * curves[:, JAW]
    lag, correlation = measure_lag(opening, envelope)
    if not is_off(lag, correlation) or correlation < SURE:
        return curves, 0.0
    scores = lag_scores(opening, envelope, most=1)
    if correlation < max(scores.values()) + CLEARLY:
        return curves, 0.0
    return shift_curves(curves, -lag), -lag


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
    if options.align_offset:
        curves = shift_curves(curves, options.align_offset * FPS)
    if options.smooth_motion:
        curves = smooth_curves(curves)
    return scale_mouth(curves, options.dynamic_scale), notes
