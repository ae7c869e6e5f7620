"""The photo as sonic-edge needs it: resized frame, the square that moves, the rig."""

from dataclasses import dataclass

import numpy as np

from sonic_ms.edge.rig import ROI_SPAN, Rig, build_rig, with_light
from sonic_ms.edge.texture import PATCH_WIDTH
from sonic_ms.edge.tone import Tone, find_tone
from sonic_ms.edge.units import EDGE_SIDES
from sonic_ms.errors import FaceError
from sonic_ms.face import mesh
from sonic_ms.media.image import resize_short_side, to_even

HEAD_SPAN = 2.0  # face heights that the head needs around the face, before expand_ratio


@dataclass(frozen=True)
class Portrait:
    """frame: the whole photo at output size, uint8 (h, w, 3); crop: the moving square, uint8 (side, side, 3);
    box: (x, y, length) of the square in frame pixels, may reach outside; rig: the face in crop units; tone: of a photo
    of one colour, None for one in colour."""

    frame: np.ndarray
    crop: np.ndarray
    box: tuple[int, int, int]
    rig: Rig
    tone: Tone | None = None
    exact: bool = True  # nothing moves at the square's border: see media/paste.py


def moving_square(points, expand_ratio, sides=EDGE_SIDES):
    """(x, y, length) in frame pixels of the square that holds the head.

    The length is rounded up to one of `sides` (5 % less will do); larger heads keep theirs and are rendered at the
    largest side. A mouth that is wide for its face makes the square larger: it has to fit the renderer's patch."""
    height = mesh.face_height(points)
    length = height * (HEAD_SPAN + 2 * expand_ratio)
    corners = points[[mesh.RIGHT_MOUTH_CORNER, mesh.LEFT_MOUTH_CORNER], :2]
    painted = ROI_SPAN[0] / 2 * np.linalg.norm(corners[1] - corners[0])
    least = painted / (0.98 * PATCH_WIDTH)  # a patch begins at a whole pixel
    length = next((side for side in sides if side >= max(0.95 * length, least)), round(max(length, least)))
    middle = (points[mesh.FOREHEAD, :2] + points[mesh.CHIN, :2]) / 2
    x, y = np.round(middle - length / 2).astype(int)
    return int(x), int(y), int(length)


def prepare_portrait(photo, landmarks, options, sides=EDGE_SIDES):
    """Resize, cut out the moving square and measure the face: Portrait.

    photo: uint8 (h, w, 3); landmarks: mesh.Landmarks of it; sides: of the squares that can be rendered, in pixels,
    rising. Raises FaceError when the landmarks make no face.
    """
    import cv2

    frame = to_even(photo) if options.keep_resolution else resize_short_side(photo, options.min_resolution)
    scale = np.array([frame.shape[1] / photo.shape[1], frame.shape[0] / photo.shape[0]])
    # pixel centres, not corners, are what landmarks count
    points = (landmarks.points[:, :2] + 0.5) * scale - 0.5
    x, y, length = moving_square(points, options.expand_ratio, sides)
    side = min(length, sides[-1])
    before = (max(0, -x), max(0, -y))
    after = (max(0, x + length - frame.shape[1]), max(0, y + length - frame.shape[0]))
    padded = cv2.copyMakeBorder(frame, before[1], after[1], before[0], after[0], cv2.BORDER_REFLECT_101)
    crop = padded[y + before[1] : y + before[1] + length, x + before[0] : x + before[0] + length]
    if side != length:
        crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    rig = build_rig((points + 0.5 - np.array([x, y])) / length)
    if not np.isfinite(rig.source).all() or rig.mouth[4] < 0.01:
        raise FaceError("the face's landmarks are not usable; give a sharper, more frontal photo or another --face-box")
    crop = np.ascontiguousarray(crop)
    return Portrait(frame, crop, (x, y, length), with_light(rig, crop), find_tone(frame, points))
