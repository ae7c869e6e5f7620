"""One pass over a video: what the filters need to know of every frame, about 4 kB each."""

from dataclasses import dataclass

import cv2
import numpy as np

from sonic_ms.media.audio import FPS

SMALL = (64, 36)  # pixels: the picture that scene cuts are seen on
CUT = 14.0  # grey levels that neighbouring small pictures of a cut differ by, at least
CUT_OVER_USUAL = 4.0  # and times the difference usual around it: a waving hand is no cut
CUT_WINDOW = 12  # frames each way
COUNT_EVERY = FPS // 2  # frames between two counts of the faces, or two searches for one
SIDE_FACE = 0.4  # of the largest face's height: smaller faces in the background do not matter
SHARPNESS_EVERY = 5  # frames
SHARPNESS_HEIGHT = 128  # pixels the face is scaled to, so that sharpness does not depend on its size


@dataclass(frozen=True)
class Track:
    """Rows are frames at 25 a second. points: (n, 468, 2) pixels, NaN where no face is; faces: (n,) number of large
    faces, the last count; sharpness: (n,), the last measurement; cut: (n,) bool, a new scene begins here; size:
    (width, height); depth: (n, 468) of the points, in pixels."""

    points: np.ndarray
    faces: np.ndarray
    sharpness: np.ndarray
    cut: np.ndarray
    size: tuple
    depth: np.ndarray | None = None

    def __len__(self):
        return len(self.cut)

    def boxes(self):
        """(n, 4): x1, y1, x2, y2 of the landmarks."""
        return np.concatenate([self.points.min(1), self.points.max(1)], axis=1)


def follow(frames, analyzer):
    """Yield (frame, its face.Landmarks or None) for an iterator of frames."""
    current, seen = [None], True

    def at_hand():
        while True:
            yield current[0]

    following = analyzer.track(at_hand())
    for i, rgb in enumerate(frames):
        current[0] = rgb
        # a search costs 50 times what following costs: where no face was, look again only now and then
        found = next(following) if seen or i % COUNT_EVERY == 0 else None
        seen = found is not None
        yield rgb, found


def track(frames, analyzer):
    """Track of an iterator of frames."""
    points, depth, faces, sharpness, differences = [], [], [], [], []
    before, count, sharp, size = None, 0, 0.0, (0, 0)
    for i, (rgb, found) in enumerate(follow(frames, analyzer)):
        size = rgb.shape[1::-1]
        small = cv2.resize(rgb, SMALL, interpolation=cv2.INTER_AREA).astype(np.float32)
        differences.append(0.0 if before is None else float(np.abs(small - before).mean()))
        before = small
        if i % COUNT_EVERY == 0:
            count = large_faces(analyzer.detect(rgb))
        points.append(np.full((468, 2), np.nan, np.float32) if found is None else found.points[:, :2])
        depth.append(np.full(468, np.nan, np.float32) if found is None else found.points[:, 2])
        if found is not None and i % SHARPNESS_EVERY == 0:
            sharp = face_sharpness(rgb, points[-1])
        faces.append(count)
        sharpness.append(sharp)
    cuts = find_cuts(np.array(differences))
    return Track(np.array(points), np.array(faces), np.array(sharpness), cuts, size, np.array(depth))


def large_faces(found):
    """Number of faces of at least SIDE_FACE of the largest one's height; they come largest first."""
    return sum(one.box[3] >= SIDE_FACE * found[0].box[3] for one in found)


def face_sharpness(rgb, points):
    """Variance of the Laplacian of the face's box, scaled to SHARPNESS_HEIGHT."""
    low = np.maximum(np.floor(points.min(0)).astype(int), 0)
    high = np.ceil(points.max(0)).astype(int)
    part = rgb[low[1] : high[1], low[0] : high[0]]
    if min(part.shape[:2]) < 8:
        return 0.0
    width = max(8, round(SHARPNESS_HEIGHT * part.shape[1] / part.shape[0]))
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    mode = cv2.INTER_AREA if len(grey) > SHARPNESS_HEIGHT else cv2.INTER_LINEAR
    return float(cv2.Laplacian(cv2.resize(grey, (width, SHARPNESS_HEIGHT), interpolation=mode), cv2.CV_32F).var())


def find_cuts(differences):
    """Where scenes begin: (n,) bool from the differences of neighbouring small pictures (n,)."""
    cuts = np.zeros(len(differences), bool)
    for i in np.flatnonzero(differences > CUT):
        around = np.delete(differences[max(1, i - CUT_WINDOW) : i + CUT_WINDOW + 1], min(i - 1, CUT_WINDOW))
        cuts[i] = differences[i] > CUT_OVER_USUAL * (np.median(around) if len(around) else 0)
    return cuts
