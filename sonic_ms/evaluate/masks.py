"""Where on a face to look: masks in pixels, bool (h, w). points: (468, 2) of face.py's mesh."""

import cv2
import numpy as np

from sonic_ms.face import mesh

LOWER_FACE_DROP = 0.20  # of the face height: how far the chin may come down
LOWER_FACE_MARGIN = 0.12  # around the lower face
NOSE_MARGIN = 0.04  # above the nose base line: skin that follows the upper lip
SSIM_REACH = 5  # pixels: half of the 11-pixel window
EYES = ((mesh.RIGHT_EYE_UPPER, mesh.RIGHT_EYE_LOWER), (mesh.LEFT_EYE_UPPER, mesh.LEFT_EYE_LOWER))


def down_axis(points):
    """Unit vector from the forehead to the chin."""
    axis = points[mesh.CHIN, :2] - points[mesh.FOREHEAD, :2]
    return axis / np.linalg.norm(axis)


def polygon(points, shape):
    """What a polygon (n, 2) covers."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return mask > 0


def dilate(mask, pixels):
    """The mask grown by `pixels` on every side."""
    side = 2 * max(1, round(pixels)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def ssim_masks(points, shape):
    """Two bool masks (h, w) of where speech alone should change nothing.

    The first is everything but the lower face: the face oval below the line NOSE_MARGIN above the nose base, as it is
    and LOWER_FACE_DROP lower, with LOWER_FACE_MARGIN around it; what lies above that line belongs to the mask again.
    The second is the part of the face oval in the first: eyes, brows, nose. Both keep the reach of the SSIM window off.
    """
    height = mesh.face_height(points)
    down = down_axis(points)
    oval = points[list(mesh.FACE_OVAL)]
    nose_line = points[2] @ down - NOSE_MARGIN * height
    lower = np.concatenate([oval[oval @ down > nose_line], points[[2]]])
    lower = np.concatenate([lower, lower + LOWER_FACE_DROP * height * down])
    inside = dilate(polygon(cv2.convexHull(np.float32(lower))[:, 0], shape), LOWER_FACE_MARGIN * height)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside &= columns * down[0] + rows * down[1] > nose_line
    outside = ~dilate(inside, SSIM_REACH)
    return outside, outside & polygon(oval, shape)


def skin_mask(points, shape):
    """Mask of the face without what speech and blinks change: oval shrunk by 5 %, without mouth and eyes."""
    height = mesh.face_height(points)
    oval = points[list(mesh.FACE_OVAL), :2]
    mask = polygon(oval.mean(0) + 0.95 * (oval - oval.mean(0)), shape)
    for upper, lower in ((mesh.OUTER_UPPER_LIP, mesh.OUTER_LOWER_LIP), *EYES):
        mask &= ~dilate(polygon(np.concatenate([points[list(upper), :2], points[list(lower[::-1]), :2]]), shape),
                         0.05 * height)  # fmt: skip
    return mask
