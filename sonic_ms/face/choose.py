"""Which face of a photo is animated: the largest, one by its index, or what a box says; and whether it can be."""

from typing import Protocol

import numpy as np

from sonic_ms.errors import FaceError
from sonic_ms.face.mesh import (
    LEFT_MOUTH_CORNER,
    RIGHT_MOUTH_CORNER,
    Face,
    Landmarks,
    average_face,
    face_height,
    pose,
)

MIN_HEIGHT = 48  # pixels forehead to chin; less gives no usable mouth
SMALL_HEIGHT = 96  # pixels; less is worth a note
MIN_SCORE = 0.5  # of the mesh net
YAW_NOTE, YAW_LIMIT = 30, 60  # degrees


class Detector(Protocol):
    """What finds faces for a model."""

    def detect(self, rgb: np.ndarray) -> list[Face]:
        """All faces of an image (h, w, 3) uint8, largest first."""


def choose_face(rgb, detector, face="largest", face_box=None):
    """The face to animate, and notes for the user: (Face, list of str).

    Args:
        rgb: photo, uint8 (h, w, 3).
        detector: a Detector; not asked when there is a box.
        face: "largest", or an index into the faces sorted by size, 0 = largest, as number or text.
        face_box: (x, y, w, h) in pixels, for drawings, animals, and what the detector misses.
    Raises:
        FaceError: none found, no such index, box outside the photo.
    """
    height, width = rgb.shape[:2]
    if face_box is not None:
        x, y, w, h = map(float, face_box)
        if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
            raise FaceError(
                f"face box {x:g},{y:g},{w:g},{h:g} lies outside the photo of {width}x{height} pixels; "
                "expected x,y,width,height inside it"
            )
        return Face((x, y, w, h)), []
    faces = detector.detect(rgb)
    if not faces:
        raise FaceError(
            "no face found in the photo; give one with a visible face, or mark it yourself with --face-box x,y,w,h "
            "(drawings and animals need that)"
        )
    if face != "largest" and not str(face).isdecimal():
        raise FaceError(f"face {face!r} is not known; expected 'largest' or an index from 0")
    index = 0 if face == "largest" else int(face)
    if index >= len(faces):
        there = "only face 0" if len(faces) == 1 else f"faces 0 to {len(faces) - 1}"
        raise FaceError(f"face {index} does not exist: the photo has {there}, 0 is the largest")
    if len(faces) > 1 and face == "largest":
        others = "1" if len(faces) == 2 else f"1 to {len(faces) - 1}"
        return faces[0], [f"{len(faces)} faces found, the largest is used; choose another with --face {others}"]
    return faces[index], []


def upright(rgb, face):
    """The photo turned by 180 degrees where the chosen face stands on its head: (photo, face, notes). A face that lies
    on its side is left, and so is what a box marks or a detector without keypoints finds."""
    if face.keypoints is None:
        return rgb, face, []
    eyes = face.keypoints[1] - face.keypoints[0]  # to the person's left, which is the image's right
    if eyes[0] > -abs(eyes[1]):
        return rgb, face, []
    height, width = rgb.shape[:2]
    x, y, w, h = face.box
    turned = Face(
        (width - 1 - x - w, height - 1 - y - h, w, h), face.score, np.float32([width - 1, height - 1]) - face.keypoints
    )
    return np.ascontiguousarray(rgb[::-1, ::-1]), turned, ["the photo is upside down: it was turned by 180 degrees"]


def place_mesh(rgb, face, analyzer):
    """The mesh on a chosen face, checked: (Landmarks, notes for the user).

    rgb: photo, uint8 (h, w, 3). analyzer: face.detect.FaceAnalyzer. Raises FaceError: not clear enough, too small or
    turned away too far. In a box that shows no human face the mesh is an average one.
    """
    found, notes = _mesh_in_box(rgb, face, analyzer) if face.score is None else (_clear_mesh(rgb, face, analyzer), [])
    height = face_height(found.points)
    if height < MIN_HEIGHT:
        raise FaceError(
            f"face is {height:.0f} pixels high, expected at least {MIN_HEIGHT}; give a photo with a larger face"
        )
    if height < SMALL_HEIGHT:
        notes.append(f"face is only {height:.0f} pixels high: the mouth will be soft, {SMALL_HEIGHT} is better")
    yaw = abs(pose(found.points)[0])
    if yaw > YAW_LIMIT and face.score is not None:
        raise FaceError(
            f"face is turned {yaw:.0f} degrees to the side, expected at most {YAW_LIMIT}; give a more frontal photo"
        )
    if yaw > YAW_NOTE:
        notes.append(f"face is turned {yaw:.0f} degrees to the side: beyond {YAW_NOTE} the far side may look wrong")
    return found, notes


def find_mesh(rgb, analyzer, face="largest", face_box=None):
    """choose_face and place_mesh in one: (Landmarks, notes), of the photo as it is."""
    chosen, notes = choose_face(rgb, analyzer, face, face_box)
    found, more = place_mesh(rgb, chosen, analyzer)
    return found, notes + more


def _clear_mesh(rgb, face, analyzer):
    found = analyzer.landmarks(rgb, face)
    if found.score < MIN_SCORE:
        raise FaceError(
            f"the face found is not clear enough to place its features (score {found.score:.2f}, expected at least "
            f"{MIN_SCORE}); give a sharper, unobstructed photo, or use --face-box x,y,w,h"
        )
    return found


def _mesh_in_box(rgb, face, analyzer):
    x, y, width, height = face.box
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, rgb.shape[1]), min(y + height, rgb.shape[0])
    box = (left, top, right - left, bottom - top)
    found = analyzer.landmarks(rgb, box)
    mouth = found.points[[RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER], :2].mean(0)
    if found.score >= MIN_SCORE and left < mouth[0] < right and top < mouth[1] < bottom:
        return found, []
    note = "what is in the face box does not look like a human face: the mouth goes where a face filling it has one"
    return Landmarks(average_face(box), found.score), [note]
