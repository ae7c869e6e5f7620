"""Which pieces of a tracked video are clips, and why the others are not."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sonic_ms.base.prepare import process_bbox
from sonic_ms.evaluate import best_lag, lip_gap
from sonic_ms.face import mesh
from sonic_ms.media.audio import FPS, SAMPLES_PER_FRAME, speech_envelope, voice_activity

OVERHANG = 0.08  # of the face's height that may lie outside the picture
JUMP = 0.5  # face sizes that a face may move from one frame to the next; more is another face
GROWTH = 1.4  # times that it may grow or shrink meanwhile
MAX_BUCKET = 128  # clips that move more are left out, as in Sonic's training (its repository, issue 9)
# Standard deviation that makes a bucket of 128. Sonic publishes what the buckets measure, not their scale: these give
# talking heads the 8 to 40 that its audio2bucket predicts (16 y + 16).
TRANSLATION_FULL = 0.5  # of the box's centre and size, in face sizes
EXPRESSION_FULL = 0.1  # of the landmarks, in sizes of their box


@dataclass(frozen=True)
class Clip:
    """Frames first to last - 1 of a video, and what was measured: figures {name: number}; crop (x1, y1, x2, y2) square
    and box, the union face box, in source pixels."""

    first: int
    last: int
    figures: dict
    crop: tuple
    box: tuple


@dataclass(frozen=True)
class Rejected:
    """Frames first to last - 1, and why they are not used."""

    first: int
    last: int
    reason: str


def segments(track, spans):
    """Pieces with one scene and one unbroken face: list of (first, last, what ended it)."""
    boxes = track.boxes()
    seen = np.isfinite(boxes[:, 0])
    wanted = np.ones(len(track), bool)
    if spans:
        times = np.arange(len(track)) / FPS
        wanted = np.any([(times >= start) & (times < end) for start, end in spans], axis=0)
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 3] - boxes[:, 1], 1)
    found, first = [], 0
    for i in range(1, len(track) + 1):
        if i < len(track):
            steady = seen[i] == seen[i - 1] and wanted[i] == wanted[i - 1] and not track.cut[i]
            if steady and seen[i]:
                steady = np.linalg.norm(centres[i] - centres[i - 1]) < JUMP * sizes[i]
                steady &= 1 / GROWTH < sizes[i] / sizes[i - 1] < GROWTH
            if steady:
                continue
        state = "not listed" if not wanted[first] else "" if seen[first] else "no face"
        found.append((first, i, state))
        first = i
    return found


def cut_clips(track, samples, config, spans=()):
    """(list of Clip, list of Rejected) of a tracked video; samples: 16 kHz (n,) or None for a video without sound."""
    clips, rejected = [], []
    for first, last, state in segments(track, spans):
        if state == "not listed":
            continue
        if state:
            rejected.append(Rejected(first, last, state))
            continue
        if last - first < config.min_seconds * FPS:
            seconds = (last - first) / FPS
            rejected.append(
                Rejected(first, last, f"{seconds:.1f} s between cuts, expected at least {config.min_seconds:g} s")
            )
            continue
        pieces = -(-(last - first) // round(config.max_seconds * FPS))
        for start, end in pairwise(np.linspace(first, last, pieces + 1).astype(int).tolist()):
            result = judge(track, samples, start, end, config)
            (clips if isinstance(result, Clip) else rejected).append(result)
    return clips, rejected


def judge(track, samples, first, last, config):
    """Clip, or Rejected with the first reason that holds."""
    points, boxes = track.points[first:last], track.boxes()[first:last]

    def no(reason):
        return Rejected(first, last, reason)

    if track.faces[first:last].max() > 1:
        return no(f"{track.faces[first:last].max()} faces, expected one")
    height = float(np.median([mesh.face_height(one) for one in points]))
    if height < config.min_face:
        return no(f"face {height:.0f} pixels high, expected at least {config.min_face}")
    sharpness = float(np.median(track.sharpness[first:last]))
    if sharpness < config.min_sharpness:
        return no(f"sharpness {sharpness:.1f}, expected at least {config.min_sharpness:g}")
    width, tall = track.size
    box = np.array([*boxes[:, :2].min(0), *boxes[:, 2:].max(0)])
    inside = np.clip(box, 0, [width, tall, width, tall])
    if np.abs(box - inside).max() > OVERHANG * height:
        return no("face reaches out of the picture")
    box = inside
    crop = process_bbox(box, config.expand_ratio, tall, width)
    if crop[0] > box[0] or crop[1] > box[1] or crop[2] < box[2] or crop[3] < box[3]:
        return no("no square around the face fits into the picture")
    if samples is None:
        return no("no sound")
    sound = clip_samples(samples, first, last)
    speech = float(voice_activity(sound).mean())
    if speech < config.min_speech:
        return no(f"speech in {100 * speech:.0f} % of it, expected at least {100 * config.min_speech:.0f} %")
    lag, correlation = sync(points, sound)
    if abs(lag) > config.max_lag or correlation < config.min_sync:
        expected = f"at most {config.max_lag} and at least {config.min_sync:g}"
        return no(f"mouth {lag:+d} frames off the sound, correlation {correlation:.2f}; expected {expected}")
    translation, expression = buckets(points)
    for name, value in (("translation", translation), ("expression", expression)):
        if value > MAX_BUCKET:
            return no(f"{name} bucket {value:.0f}, expected at most {MAX_BUCKET}")
    figures = {"face_height": height, "sharpness": sharpness, "speech": speech, "lag": lag, "sync": correlation}
    figures |= {"translation": translation, "expression": expression}
    return Clip(first, last, figures, crop, tuple(float(value) for value in box))


def clip_samples(samples, first, last):
    """The sound of frames first to last - 1, exactly as long as they are; silence where the track has ended."""
    part = samples[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]
    return np.pad(part, (0, (last - first) * SAMPLES_PER_FRAME - len(part)))


def sync(points, samples):
    """(frames by which the mouth comes late, correlation there) of the mouth's opening and the loudness.

    points: (n, 468, 2). Both curves are smoothed over three frames: syllables count, not the noise of landmarks.
    """
    opening = _smooth(np.array([lip_gap(one) for one in points.astype(np.float64)]))
    lag, correlation, _ = best_lag(opening, _smooth(speech_envelope(samples)))
    return int(lag), float(correlation)


def _smooth(values):
    padded = np.pad(values, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def buckets(points):
    """(translation, expression) of a clip's landmarks (n, 468, 2); 0 and more, MAX_BUCKET is the most to train on.

    Translation: how much the face's box moves and changes its size. Expression: how much the landmarks move within
    their box. Both as standard deviations, so that a bucket twice as large is a motion twice as large.
    """
    points = points.astype(np.float64)
    low, high = points.min(1), points.max(1)
    size = high - low
    middle = np.concatenate([(low + high) / 2, size], axis=1) / size.mean()
    translation = np.sqrt(middle.var(0).sum())
    within = (points - low[:, None]) / size[:, None]
    expression = np.sqrt(within.var(0).sum(1).mean())
    return float(MAX_BUCKET * translation / TRANSLATION_FULL), float(MAX_BUCKET * expression / EXPRESSION_FULL)
