"""The seam: is there an edge where the animated region begins?"""

import cv2
import numpy as np

from sonic_ms.evaluate.masks import dilate, polygon
from sonic_ms.face import mesh

SEAM_DIFFERENCE = 3.0  # grey levels after smoothing: more than the encoder's noise
SEAM_SMOOTH = 2.0  # pixels
SEAM_DEPTH = 20  # pixels from the border inwards
SEAM_ARC = 25  # pixels along the border that are averaged
SEAM_FAINT = 0.5  # grey levels a pixel: fainter edges are not seen


class Seam:
    """Looks for an edge where the animated region begins.

    The region is where any looked-at frame differs from the photo by more than SEAM_DIFFERENCE levels in a channel
    after smoothing: what is pasted, or what moves in it. A step at its border makes the region end exactly there.
    Compared is how steep the picture is across the border, with and without what the video adds to the photo, there and
    20 px further in:

        (border with / border without) / (20 px further in with / without)

    Profiles across the border are averaged over SEAM_ARC pixels along it, so that texture averages out. What is added
    is the median over the frames, as a seam stays where it is, and counts only as far as it is both steep within 4 px
    and a step that goes on further in: the outline of a head that moves is steep but narrow, a soft mask is a step but
    not steep. The mean along the border is geometric: a seam counts more on smooth skin, where it is seen, than along
    an edge of the photo. The lips with a margin are left out, and so is a border on the edge of the picture.

    0.9 to 1.16 without a seam; a hard-edged patch 6 grey levels too bright gives 1.1 to 1.2, one of 10 levels 1.2 to
    1.35. The second number is the step itself, in grey levels of the strongest channel, signed mean along the border.
    """

    def __init__(self, rgb, points, scale):
        self._photo = rgb
        self._depth = SEAM_DEPTH / scale
        self._difference = np.zeros(rgb.shape[:2], np.float32)
        self._frames = []
        lips = points[list(mesh.OUTER_UPPER_LIP + mesh.OUTER_LOWER_LIP[::-1])]
        self._mouth = dilate(polygon(lips, rgb.shape[:2]), 0.06 * mesh.face_height(points))

    def add(self, rgb, keep):
        """Take a frame (h, w, 3) uint8 into account; its edges are measured when `keep`."""
        difference = cv2.GaussianBlur(rgb.astype(np.float32) - self._photo, (0, 0), SEAM_SMOOTH)
        np.maximum(self._difference, np.abs(difference).max(2), out=self._difference)
        if keep:
            self._frames.append(rgb)

    def result(self):
        """(ratio, step in grey levels, note); the numbers are None where there is no border to look at."""
        region = self._region()
        # The picture's edge is no border of the region: it goes on outside.
        pad = int(2 * self._depth) + 4
        depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), pad, mode="edge"), cv2.DIST_L2, 5)
        depth = depth[pad:-pad, pad:-pad]
        if not self._frames or depth.max() < 0.6 * self._depth:
            return None, None, "nothing of size differs from the photo"
        further = min(self._depth, 0.6 * depth.max())
        border, inner = self._lines(depth > 0), self._lines(depth > further)
        if min(sum(keep.sum() for _, _, keep in lines) for lines in (border, inner)) < SEAM_ARC:
            return None, None, "the region that differs from the photo has no border inside the picture"
        at_border, step = self._gain(border)
        at_inner, _ = self._gain(inner)
        note = f"photo's edges times {at_border:.2f} at the border, times {at_inner:.2f} {further:.0f} px further in"
        return at_border / at_inner, step, note

    def _gain(self, lines):
        """How many times steeper than the photo across lines, and the mean step in grey levels."""
        photo = _profiles(self._photo, lines)
        added = np.median([_profiles(frame, lines) - photo for frame in self._frames], axis=0)
        outside, inside = added[:, :5].mean(1), added[:, 9:].mean(1)  # 6 to 2 px outside, 3 to 10 px inside: (n, 3)
        seam = np.minimum(np.abs(inside - outside) / 2, _steepness(added))
        before = _steepness(photo)
        logs = np.log(np.hypot(before, seam).max(1) + SEAM_FAINT) - np.log(before.max(1) + SEAM_FAINT)
        return float(np.exp(logs.mean())), float(np.abs((inside - outside).mean(0)).max())

    def _region(self):
        """Largest connected part of what differs, without holes: bool (h, w)."""
        mask = (self._difference > SEAM_DIFFERENCE).astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        filled = np.zeros_like(mask)
        if contours:
            cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
        return filled > 0

    def _lines(self, mask):
        """Outlines of a mask: list of (x, y, keep): where to sample, float32 (n, 17) across the line; bool (n,)."""
        height, width = mask.shape
        inside = mask.astype(np.uint8)
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
        distance = cv2.GaussianBlur(distance, (0, 0), 3)
        slope = np.stack([cv2.Sobel(distance, cv2.CV_32F, 1, 0), cv2.Sobel(distance, cv2.CV_32F, 0, 1)], 2)
        lines = []
        for contour in cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            if len(contour) < SEAM_ARC:
                continue
            x, y = contour[:, 0].T
            normal = slope[y, x] / np.maximum(np.linalg.norm(slope[y, x], axis=1, keepdims=True), 1e-6)
            keep = (x > 5) & (x < width - 6) & (y > 5) & (y < height - 6) & ~self._mouth[y, x]
            across = np.arange(-6, 11, dtype=np.float32)
            lines.append((
                np.float32(x[:, None] + across * normal[:, :1]), np.float32(y[:, None] + across * normal[:, 1:]), keep
            ))  # fmt: skip
        return lines


def _profiles(image, lines):
    """Values of an image (h, w, 3) across lines (Seam._lines), averaged over SEAM_ARC points along them.

    Shape (n, 17, 3), from 6 pixels outside to 10 inside, of the points to keep.
    """
    profiles = []
    for x, y, keep in lines:
        profile = cv2.remap(np.float32(image), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        arc = np.pad(profile, ((SEAM_ARC // 2, SEAM_ARC // 2), (0, 0), (0, 0)), mode="wrap")  # outlines are closed
        profiles.append(np.lib.stride_tricks.sliding_window_view(arc, SEAM_ARC, axis=0).mean(3)[keep])
    return np.concatenate(profiles)


def _steepness(profiles):
    """Grey levels a pixel of the steepest place within 4 px of the line; (n, 17, 3) -> (n, 3)."""
    near = profiles[:, 2:11]
    return np.abs(near[:, 2:] - near[:, :-2]).max(1) / 2
