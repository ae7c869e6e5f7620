"""Lip-sync correction of sonic-base: the mouth is measured on the first decoded seconds, the whole stream shifted."""

import itertools

import numpy as np

from sonic_ms.media.audio import FPS, speech_envelope
from sonic_ms.media.lag import is_off, measure_lag

SECONDS = 4  # measured, and held in memory


def in_step(pictures, samples, fps, note):
    """Yield as many pictures as come in, moved by the lag that their first seconds show; note(text) says by how much.

    pictures: uint8 (h, w, 3), `fps` a second; samples: float32 mono, 16 kHz. The first or the last picture is repeated
    where the shift leaves a gap.
    """
    pictures = iter(pictures)
    first = list(itertools.islice(pictures, round(SECONDS * fps)))
    shift = measure_shift(first, samples, fps)
    if shift:
        note(f"lip-sync correction moved the mouth by {shift:+d} frames")
    stream = itertools.chain(first, pictures)
    if shift > 0:
        yield from itertools.repeat(first[0], shift)
        yield from _without_last(stream, shift)
        return
    last = None
    for last in itertools.islice(stream, -shift, None):
        yield last
    yield from itertools.repeat(last, -shift)


def measure_shift(pictures, samples, fps):
    """Frames by which these pictures should come later; 0 where their mouth is in step, or cannot be measured."""
    from sonic_ms.face.detect import FaceAnalyzer
    from sonic_ms.face.mesh import mouth_opening

    found = [mesh and mouth_opening(mesh.points) for mesh in FaceAnalyzer().track(pictures)]
    if sum(one is not None for one in found) < 0.9 * len(found):
        return 0
    seen = [i for i, one in enumerate(found) if one is not None]
    opening = np.interp(np.arange(len(found)), seen, [found[i] for i in seen])
    envelope = speech_envelope(samples)[:: round(FPS / fps)][: len(opening)]
    lag, correlation = measure_lag(opening[: len(envelope)], envelope)
    return -round(lag) if is_off(lag, correlation) else 0


def _without_last(stream, count):
    held = []
    for one in stream:
        held.append(one)
        if len(held) > count:
            yield held.pop(0)
