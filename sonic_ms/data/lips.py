"""Talking videos -> measured mouths (mouths.py): truth for `sonic-ms train edge_audio` and for bench/lips.py.

The mesh of every frame is laid on the clip's mean by what speech leaves where it is, turned in three dimensions, so
that nodding and coming nearer do not open a mouth. Sound and picture are brought together by the lag at which the
opening follows what sonic-edge hears best: a dubbed voice, music or another speaker follow at none.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from sonic_ms.data.decode import frames_of, open_header, samples_of
from sonic_ms.data.filters import segments
from sonic_ms.data.mouths import MouthClip, save_clip
from sonic_ms.data.sources import find_sources
from sonic_ms.data.tracking import track
from sonic_ms.edge.curves import OPEN
from sonic_ms.errors import InputMissingError, OutputError, UsageError, VideoError
from sonic_ms.face import mesh
from sonic_ms.media.audio import FPS, SAMPLES_PER_FRAME, voice_activity

MIN_SECONDS, MAX_SECONDS = 2.0, 300.0  # of a clip; longer pieces are cut
MAX_LAG = 12  # frames that sound and picture may be apart
LEAST_MATCH = 0.35  # correlation of the opening with what is heard; strangers' sound reaches 0.3
LEAST_ABOVE = 0.05  # by which the best lag must beat those MAX_LAG away
MIN_FACE = 48  # pixels
MAX_TURN = (30, 25)  # degrees of yaw and pitch, median of a clip
LEAST_VOICE = 0.2  # share of frames with voice
LEAST_OPEN = 0.01  # face heights, 90th percentile of the opening
PAIRS = ((82, 87), (13, 14), (312, 317))  # upper and lower inner lip
INNER_CORNERS = (78, 308)


@dataclass(frozen=True)
class Found:
    """A clip, or why there is none: reason "" for a clip. match: correlation with what is heard; face: pixels."""

    name: str
    seconds: float
    reason: str = ""
    offset: int = 0
    match: float = 0.0
    face: float = 0.0


def on_each_other(points, still):
    """Meshes (n, 468, 3) turned, scaled and moved so that their RIGID points lie on those of `still` (468, 3)."""
    chosen = list(mesh.RIGID)
    goal = still[chosen] - still[chosen].mean(0)
    middles = points[:, chosen].mean(1, keepdims=True)
    own = points[:, chosen] - middles
    u, sizes, v = np.linalg.svd(own.transpose(0, 2, 1) @ goal)
    sign = np.sign(np.linalg.det(u @ v))
    u[:, :, 2] *= sign[:, None]
    sizes[:, 2] *= sign
    scale = sizes.sum(1) / (own**2).sum((1, 2))
    return scale[:, None, None] * ((points - middles) @ (u @ v)) + still[chosen].mean(0)


def measure(points):
    """{measure of mouths.MEASURES: (n,)} of meshes (n, 468, 3) of one face, in face heights."""
    points = np.asarray(points, np.float64) * (1, 1, mesh.MESH_DEPTH)
    still = points[len(points) // 2]
    for _ in range(3):
        laid = on_each_other(points, still)
        still = laid.mean(0)
    height = np.linalg.norm(still[mesh.FOREHEAD] - still[mesh.CHIN])
    down = (still[mesh.CHIN] - still[mesh.FOREHEAD]) / height
    upper, lower = np.transpose(PAIRS)

    def apart(one, other):
        return np.linalg.norm(laid[:, one] - laid[:, other], axis=1) / height

    chin = laid[:, mesh.CHIN] @ down / height
    return {
        "opening": np.maximum(((laid[:, lower] - laid[:, upper]) @ down).mean(1) / height, 0),
        "width": apart(mesh.RIGHT_MOUTH_CORNER, mesh.LEFT_MOUTH_CORNER),
        "inner_width": apart(*INNER_CORNERS),
        "jaw": chin - np.percentile(chin, 10),
    }


def find_offset(opening, heard):
    """(offset, correlation, correlation MAX_LAG frames away): picture frame i + offset shows what sound frame i says.
    opening, heard: (n,) of one clip, cut at the same moments."""
    scores = {}
    for lag in range(-MAX_LAG, MAX_LAG + 1):
        seen = opening[max(0, lag) : len(opening) + min(0, lag)]
        sound = heard[max(0, -lag) : len(heard) - max(0, lag)]
        flat = seen.std() < 1e-9 or sound.std() < 1e-9
        scores[lag] = 0.0 if flat else float(np.corrcoef(seen, sound)[0, 1])
    best = max(scores, key=scores.get)
    return best, scores[best], max(scores[-MAX_LAG], scores[MAX_LAG])


def pieces(found):
    """[(first, last)] of at most MAX_SECONDS of a piece."""
    first, last = found
    count = -(-(last - first) // round(MAX_SECONDS * FPS))
    edges = np.linspace(first, last, count + 1).astype(int)
    return list(pairwise(edges.tolist()))


def read_video(source, analyzer, generator, lang=""):
    """Yield (Found, MouthClip or None) of every piece of a video in which one face is seen without a cut."""
    name = source.path.stem
    try:
        header = open_header(source.path)
        samples = None if header.audio is None else samples_of(source.path)
        if samples is None or not len(samples):
            yield Found(name, 0.0, "no sound"), None
            return
        followed = track(frames_of(source.path), analyzer)
    except (InputMissingError, VideoError) as error:
        yield Found(name, 0.0, str(error)), None
        return
    number = 0
    for first, last, state in segments(followed, source.spans):
        if state == "not listed":
            continue
        for start, end in pieces((first, last)):
            label = name if not number else f"{name}_{number}"
            result = _clip(label, name, followed, samples, start, end, state, generator, lang)
            number += 1
            yield result


def _clip(label, speaker, followed, samples, first, last, state, generator, lang):
    """(Found, MouthClip or None) of frames first to last - 1."""
    seconds = (last - first) / FPS

    def rejected(reason):
        return Found(label, seconds, reason), None

    if state:
        return rejected(state)
    if seconds < MIN_SECONDS:
        return rejected(f"{seconds:.1f} s between cuts, expected at least {MIN_SECONDS:g}")
    sound = samples[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME].astype(np.float32)
    if len(sound) < 0.9 * (last - first) * SAMPLES_PER_FRAME:
        return rejected("the sound ends before the picture")
    if np.mean(followed.faces[first:last] > 1) > 0.1:
        return rejected("several faces")
    points = np.concatenate([followed.points[first:last], followed.depth[first:last, :, None]], 2)
    face = float(np.median([mesh.face_height(one) for one in points]))
    if face < MIN_FACE:
        return rejected(f"face {face:.0f} pixels high, expected at least {MIN_FACE}")
    yaw, pitch = np.median(np.abs([mesh.pose(one)[:2] for one in points[:: FPS // 5]]), axis=0)
    if yaw > MAX_TURN[0] or pitch > MAX_TURN[1]:
        return rejected(f"turned by {yaw:.0f} degrees sideways and {pitch:.0f} up or down")
    voiced = voice_activity(sound)
    if voiced.mean() < LEAST_VOICE:
        return rejected(f"voice in {voiced.mean():.0%} of the frames, expected at least {LEAST_VOICE:.0%}")
    measures = measure(points)
    wide = np.percentile(measures["opening"], 90)
    if wide < LEAST_OPEN:
        return rejected(f"the mouth stays shut (90th percentile {wide:.3f} of the face height)")
    heard = generator.articulate(sound)[:, OPEN]
    n = min(len(heard), len(measures["opening"]))
    offset, match, far = find_offset(measures["opening"][:n], np.maximum(heard[:n], 0))
    if match < LEAST_MATCH or match < far + LEAST_ABOVE or abs(offset) == MAX_LAG:
        return rejected(f"the mouth does not follow this sound (best correlation {match:.2f} at {offset:+d} frames)")
    clip = MouthClip(label, sound, measures, offset, speaker, lang)
    return Found(label, seconds, "", offset, match, face), clip


def build(videos, out, lang="", generator=None, note=print):
    """Measure videos into the folder `out`: list of Found, which is also written as out/index.json.

    Raises UsageError where nothing could be used, InputMissingError, OutputError.
    """
    from sonic_ms.edge.generator import open_folder
    from sonic_ms.face.detect import FaceAnalyzer

    sources = find_sources(videos)
    generator, analyzer, out = generator or open_folder(), FaceAnalyzer(), Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {out}: {error.strerror}") from error
    everything = []
    for source in sources:
        for found, clip in read_video(source, analyzer, generator, lang):
            everything.append(found)
            if clip is not None:
                save_clip(clip, out)
                note(f"{found.name}: {found.seconds:.1f} s, offset {found.offset:+d}, follows at {found.match:.2f}")
            else:
                note(f"{found.name}: left out, {found.reason}")
    index = [vars(one) for one in everything]
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    if all(one.reason for one in everything):
        reasons = sorted({one.reason for one in everything})
        raise UsageError(
            f"none of {len(everything)} pieces of {len(sources)} videos can be used: {'; '.join(reasons)[:200]}"
        )
    return everything
