"""What is measured on pictures: the photo once, then every decoded frame, about forty numbers each."""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from sonic_ms.errors import FaceError, UsageError
from sonic_ms.evaluate.masks import EYES, SSIM_REACH, down_axis, skin_mask, ssim_masks
from sonic_ms.evaluate.seam import Seam
from sonic_ms.face import mesh
from sonic_ms.media.audio import FPS
from sonic_ms.media.image import resize_short_side, to_even
from sonic_ms.media.video import read_video

SHORT_SIDE = 512  # pixels; distances in figures are scaled to a video of this short side
OPENING_PAIRS = ((82, 87), (13, 14), (312, 317))  # upper and lower inner lip, the middle third of the mouth
SEAM_EVERY = 5  # frames
SEAM_FRAMES = 16  # whose edges are measured, spread over the clip
EYE_SIZE = (64, 32)  # pixels of an upright eye, corner to corner and as high as half of that
DRIFT_FROM, DRIFT_TO = 1.0, 60.0  # seconds, middles of the two seconds compared


def lip_gap(points):
    """Distance of the inner lips along the face's down axis over the face height, mean of three pairs; points (468, 2).

    About 0.01 for closed lips (see the module's header), 0.05 to 0.1 in open vowels; below 0 where contours cross.
    """
    upper, lower = np.transpose(OPENING_PAIRS)
    return float(((points[lower, :2] - points[upper, :2]) @ down_axis(points)).mean() / mesh.face_height(points))


def correlation(a, b):
    """Pearson correlation of two arrays of one size; 0 where one of them is flat."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 1e-9 else 0.0


class Ssim:
    """Structural similarity to one grey image (h, w) uint8, as a mean over masks.

    Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004: Gaussian window of
    11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03.
    """

    def __init__(self, grey, masks):
        self.masks = masks
        self._grey = grey.astype(np.float32)
        self._mean = self._blur(self._grey)
        self._variance = self._blur(self._grey**2) - self._mean**2

    @staticmethod
    def _blur(image):
        side = 2 * SSIM_REACH + 1
        return cv2.GaussianBlur(image, (side, side), 1.5, borderType=cv2.BORDER_REFLECT)

    def compare(self, grey):
        """One number per mask for another image of the same size; NaN for an empty mask."""
        grey = grey.astype(np.float32)
        mean = self._blur(grey)
        variance = self._blur(grey * grey) - mean**2
        covariance = self._blur(grey * self._grey) - mean * self._mean
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        similarity = (2 * mean * self._mean + c1) * (2 * covariance + c2)
        similarity /= (mean**2 + self._mean**2 + c1) * (variance + self._variance + c2)
        return [float(similarity[mask].mean()) if mask.any() else float("nan") for mask in self.masks]


class Photo:
    """Everything that is measured once, on the photo: uint8 (h, w, 3) at the video's size."""

    def __init__(self, rgb, analyzer):
        landmarks = next(analyzer.track([rgb]))
        if landmarks is None:
            raise FaceError("no face found in the source photo; expected the portrait that the video was made from")
        self.rgb = rgb
        self.points = landmarks.points[:, :2].astype(np.float64)
        self.scale = SHORT_SIDE / min(rgb.shape[:2])  # pixels -> pixels of a video with a short side of 512
        self.grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        self.opening = lip_gap(self.points)
        self.mouth_sharpness = _mouth_sharpness(self.grey, self.points)
        self.eyes = [_eye_view(self.points, eye) for eye in EYES]
        self.open_eyes = [_view(self.grey, view) for view in self.eyes]
        outside, upper_face = ssim_masks(self.points, rgb.shape[:2])
        self.ssim = Ssim(self.grey, (outside, upper_face))
        self.upper_face = _bounds(upper_face)
        self.upper_grey = self.grey[self.upper_face].astype(np.float32)
        self.window = cv2.createHanningWindow(self.upper_grey.shape[::-1], cv2.CV_32F)
        self.seam = Seam(rgb, self.points, self.scale)

    def head_shift(self, grey):
        """Pixels, at a short side of 512, by which eyes, brows and nose of a frame (h, w) are off their place here.

        By phase correlation: the mesh moves its points of the upper face by half a pixel when only the mouth opens.
        """
        shift, _ = cv2.phaseCorrelate(self.upper_grey, grey[self.upper_face].astype(np.float32), self.window)
        return float(np.hypot(*shift)) * self.scale


def fit_photo(photo, size):
    """The photo as the video shows it, (h, w, 3) for size (w, h)."""
    width, height = size
    for fitted in (resize_short_side(photo, min(size)), to_even(photo)):
        if fitted.shape[:2] == (height, width):
            return fitted
    if abs(photo.shape[1] / photo.shape[0] * height / width - 1) > 0.02:
        raise UsageError(
            f"source is {photo.shape[1]}x{photo.shape[0]} pixels, the video {width}x{height}: not the same "
            f"proportions; give the photo that the video was made from"
        )
    shrink = width < photo.shape[1]
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LANCZOS4)


def _bounds(mask):
    """Slices (rows, columns) of the smallest box that holds a mask."""
    return tuple(slice(line.min(), line.max() + 1) for line in np.nonzero(mask))


@dataclass
class Measured:
    """One row a frame; frames without a face are filled in from their neighbours. px: at a short side of 512."""

    missing: int  # frames without a face
    opening: np.ndarray  # (n,) lip_gap
    eye_corners: np.ndarray  # (n, 4, 2) px
    head: np.ndarray  # (n,) px that the upper face is off its place in the photo
    eyes: np.ndarray  # (n,) correlation with the photo's eyes, mean of both
    mouth_sharpness: np.ndarray  # (n,)
    ssim: np.ndarray  # (n, 2) to the photo, per mask of ssim_masks
    early: np.ndarray  # (m, 4) sharpness, L, a, b of the skin around DRIFT_FROM
    late: np.ndarray  # (m, 4) the same around DRIFT_TO or in the last second


def measure_frames(video, n_frames, photo, analyzer):
    """Stream the video once: Measured."""
    rows, ssim, early, late, missing = [], [], [], [], 0
    first = range(round((DRIFT_FROM - 0.5) * FPS), round((DRIFT_FROM + 0.5) * FPS))
    start = min(round((DRIFT_TO - 0.5) * FPS), n_frames - FPS)
    last = range(max(start, 0), max(start, 0) + FPS)
    spread = SEAM_EVERY * max(1, -(-n_frames // (SEAM_EVERY * SEAM_FRAMES)))
    frames, again = itertools.tee(read_video(video))
    for i, (rgb, found) in enumerate(zip(frames, analyzer.track(again))):
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        ssim.append(photo.ssim.compare(grey))
        if i % SEAM_EVERY == 0:
            photo.seam.add(rgb, keep=i % spread == 0)
        if found is None:
            missing += 1
            rows.append(None)
            continue
        points = found.points[:, :2].astype(np.float64)
        rows.append(_measure_face(grey, points, photo))
        for window, values in ((first, early), (last, late)):
            if i in window:
                values.append(_measure_skin(rgb, grey, points))
    seen = [i for i, row in enumerate(rows) if row is not None]
    if not seen:
        raise FaceError(f"video {video}: no face in any of {len(rows)} frames; expected a talking portrait")
    table = np.array([rows[i] for i in seen])
    table = np.stack([np.interp(np.arange(len(rows)), seen, column) for column in table.T], 1)
    corners = table[:, 4:].reshape(-1, 4, 2)
    return Measured(missing, table[:, 0], corners, *table[:, 1:4].T, np.array(ssim), np.array(early), np.array(late))


def _measure_face(grey, points, photo):
    """Opening, head, eyes, mouth sharpness, then the eye corners x, y: see Measured."""
    motion = mesh.rigid_motion(photo.points, points)
    eyes = []
    for view, still in zip(photo.eyes, photo.open_eyes):
        matrix = motion @ np.vstack([view, [0, 0, 1]])
        eyes.append(correlation(_view(grey, matrix), still))
    corners = points[[33, 133, 362, 263]] * photo.scale
    return [lip_gap(points), photo.head_shift(grey), np.mean(eyes), _mouth_sharpness(grey, points), *corners.ravel()]


def _measure_skin(rgb, grey, points):
    """Laplacian variance and mean L, a, b of the face's skin."""
    mask = skin_mask(points, grey.shape)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return [_laplacian_variance(grey, mask), *lab[mask].mean(0)]


def _laplacian_variance(grey, mask=None):
    return float(cv2.Laplacian(grey, cv2.CV_32F)[slice(None) if mask is None else mask].var())


def _mouth_sharpness(grey, points):
    """Variance of the Laplacian in the upright box around the lips with a fifth of the mouth's width on every side."""
    lips = points[list(mesh.OUTER_UPPER_LIP + mesh.OUTER_LOWER_LIP), :2]
    margin = 0.2 * np.ptp(lips[:, 0])
    left, top = np.maximum(np.floor(lips.min(0) - margin), 0).astype(int)
    right, bottom = np.ceil(lips.max(0) + margin).astype(int) + 1
    box = grey[top:bottom, left:right]
    return _laplacian_variance(box) if min(box.shape) > 2 else 0.0


def _eye_view(points, eye):
    """(2, 3) matrix: pixels of an upright picture of one eye, EYE_SIZE large -> pixels of the photo."""
    inner, outer = points[eye[0][0]], points[eye[0][-1]]
    axis = (outer - inner) / EYE_SIZE[0]
    turn = np.array([[axis[0], -axis[1]], [axis[1], axis[0]]])
    return np.column_stack([turn, (inner + outer) / 2 - turn @ ((np.array(EYE_SIZE) - 1) / 2)])


def _view(grey, matrix):
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(grey, matrix, EYE_SIZE, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
