"""The 468 points of MediaPipe's canonical face mesh: which point is what, and what is measured on them. NumPy only.

Y. Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019.

Left and right are the person's own: the RIGHT eye is on the left side of an ordinary photo. Points are pixels of the
image, x to the right, y down, whole numbers at pixel centres; z points away from the camera, in the same unit.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Index tuples into the 468 points of MediaPipe's canonical face mesh. Lips and eyes run from the image's left to its
# right, corner to corner, so that the n-th upper point faces the n-th lower point.
OUTER_UPPER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LOWER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
INNER_UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
RIGHT_EYE_UPPER = (33, 246, 161, 160, 159, 158, 157, 173, 133)
RIGHT_EYE_LOWER = (33, 7, 163, 144, 145, 153, 154, 155, 133)
LEFT_EYE_UPPER = (362, 398, 384, 385, 386, 387, 388, 466, 263)
LEFT_EYE_LOWER = (362, 382, 381, 380, 374, 373, 390, 249, 263)
RIGHT_BROW_UPPER = (70, 63, 105, 66, 107)
RIGHT_BROW_LOWER = (46, 53, 52, 65, 55)
LEFT_BROW_UPPER = (336, 296, 334, 293, 300)
LEFT_BROW_LOWER = (285, 295, 282, 283, 276)
# Clockwise from the middle of the forehead.
FACE_OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)
FACE_OVAL += (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
FOREHEAD = 10
CHIN = 152
NOSE_TIP = 1
UPPER_LIP_MIDDLE = 13  # inner edge
LOWER_LIP_MIDDLE = 14  # inner edge
RIGHT_MOUTH_CORNER = 61
LEFT_MOUTH_CORNER = 291
RIGHT_EYE_OUTER, RIGHT_EYE_INNER = 33, 133
LEFT_EYE_OUTER, LEFT_EYE_INNER = 263, 362
# Points that speech, blinks and brows leave where they are: the head moves when they move.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 234, 454, 127, 356, 162, 389)
AVERAGE_FACE = Path(__file__).parents[1] / "pretrained" / "average_face.npy"  # 468 points in a box of side 1
MESH_DEPTH = 1.3  # the mesh is flatter than life: portraits taken from 15 and 45 degrees come out right with this


@dataclass(frozen=True)
class Face:
    """Where a face is: what a detector found, or a box that the user gave (score and keypoints None)."""

    box: tuple[float, float, float, float]  # (x, y, w, h) in pixels; a detector's spans brows to chin, cheek to cheek
    score: float | None = None  # 0..1
    keypoints: np.ndarray | None = None  # (6, 2) float32: right eye, left eye, nose tip, mouth, right ear, left ear


@dataclass(frozen=True)
class Landmarks:
    """The face mesh on one image."""

    points: np.ndarray  # (468, 3) float32: x, y in image pixels, z away from the camera in the same unit
    score: float  # 0..1, how sure the mesh net is that its crop shows a face


def similarity(source, target):
    """Least-squares scale, rotation and shift between two sets (n, 2): complex (a, b) with target = a * source + b."""
    p, q = source @ [1, 1j], target @ [1, 1j]
    centred = p - p.mean()
    a = np.vdot(centred, q - q.mean()) / np.vdot(centred, centred)
    return a, q.mean() - a * p.mean()


def rigid_motion(source, target):
    """(2, 3) similarity that carries the points of one mesh that speech does not move, (468, 2), onto another's."""
    a, b = similarity(source[list(RIGID)], target[list(RIGID)])
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def mouth_opening(points):
    """Inner lip distance over face height, 0 (closed) to about 0.25 (wide open); points (468, 2 or 3) or more."""
    lips = np.linalg.norm(points[UPPER_LIP_MIDDLE, :2] - points[LOWER_LIP_MIDDLE, :2])
    return float(lips / np.linalg.norm(points[FOREHEAD, :2] - points[CHIN, :2]))


def face_height(points):
    """Pixels from the top of the forehead to the chin."""
    return float(np.linalg.norm(points[FOREHEAD, :2] - points[CHIN, :2]))


def pose(points):
    """(yaw, pitch, roll) of the head in degrees, from the mesh (468, 3); about 5 degrees of error near the front.

    yaw > 0: the nose points to the image's right. pitch > 0: it points up. roll > 0: the head leans clockwise in the
    image.
    """
    points = points * np.array([1, 1, MESH_DEPTH])
    across = points[[263, 454, 356, 361]].mean(0) - points[[33, 234, 127, 132]].mean(0)  # to the person's left
    down = points[[CHIN, 2, 168]].mean(0) - points[[FOREHEAD, 151, 9]].mean(0)
    yaw = np.degrees(np.arctan2(across[2], np.hypot(across[0], across[1])))
    pitch = -np.degrees(np.arctan2(down[2], np.hypot(down[0], down[1])))
    roll = np.degrees(np.arctan2(across[1], across[0]))
    return float(yaw), float(pitch), float(roll)


def keypoints(points):
    """The first four of Face.keypoints as a mesh (468, 2 or more) has them: (4, 2)."""
    groups = (RIGHT_EYE_OUTER, RIGHT_EYE_INNER), (LEFT_EYE_OUTER, LEFT_EYE_INNER), (NOSE_TIP,), (13, 14)
    return np.array([points[list(group), :2].mean(0) for group in groups])


def average_face(box):
    """A frontal adult face with closed lips, symmetric, that fills the box (x, y, w, h): points (468, 3)."""
    x, y, width, height = box
    return np.load(AVERAGE_FACE) * np.float32([width, height, width]) + np.float32([x, y, 0])
