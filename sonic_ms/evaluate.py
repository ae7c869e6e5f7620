"""What a viewer would check, measured on a finished video: length, sync, lip closures, seams, sharpness, blinks, drift.

Everything is found on the decoded frames, the recording and the photo; nothing comes from inside a generator. The video
is read as a stream: what is kept of a frame is about forty numbers.

Landmarks are MediaPipe's mesh (face.py), and its limits are the limits of these figures:
- Closed lips do not measure 0. The inner lip contours of closed mouths lie -0.3 to 2.1 % of the face height apart,
  different for every person, so each clip's opening is counted from a zero of its own: what the photo measures when
  its mouth is closed (at most CLOSED_AT_MOST), otherwise the clip's 2nd percentile, but never more than CLOSED_AT_MOST.
  A mouth from an open photo that always stays open further than CLOSED_AT_MOST is therefore still seen to do so, a
  smaller gap is not. The zero and the reading of the photo are among the figures.
- The mesh hardly sees closed eyes: its eye aspect ratio falls by 3 to 7 % when the lids meet. Blinks are measured on
  the pixels instead: how little each eye, turned upright and scaled, correlates with the same eye of the photo.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sonic_ms import face
from sonic_ms.audio import FPS, SAMPLE_RATE, frame_count, load_audio, read_header, speech_envelope, voice_activity
from sonic_ms.errors import FaceError, InputMissingError, UsageError
from sonic_ms.image import load_image, resize_short_side, to_even
from sonic_ms.train.articulation import BILABIALS, OPEN_VOWELS
from sonic_ms.video import probe, read_video

SHORT_SIDE = 512  # pixels; distances in figures are scaled to a video of this short side
AAC_FRAME = 1024  # samples

CLOSED_AT_MOST = 0.022  # of the face height: the widest reading seen on closed lips
LEAST_WIDE = 0.01  # 90th percentile below which the mouth does not open, and being closed is no merit
OPENING_PAIRS = ((82, 87), (13, 14), (312, 317))  # upper and lower inner lip, the middle third of the mouth

MAX_LAG = 8  # frames searched each way
NEAR_LAG = 2  # frames within which the correlation has to be found
CLOSURE_SHARE, VOWEL_SHARE, PAUSE_SHARE = 0.35, 0.50, 0.15  # of the clip's 90th percentile
MIN_VOWEL, MIN_PAUSE, PAUSE_EDGE = 0.06, 0.3, 0.08  # seconds

LOWER_FACE_DROP = 0.20  # of the face height: how far the chin may come down
LOWER_FACE_MARGIN = 0.12  # around the lower face
NOSE_MARGIN = 0.04  # above the nose base line: skin that follows the upper lip

SEAM_EVERY = 5  # frames
SEAM_DIFFERENCE = 3.0  # grey levels after smoothing: more than the encoder's noise
SEAM_SMOOTH = 2.0  # pixels
SEAM_DEPTH = 20  # pixels from the border inwards
SEAM_ARC = 25  # pixels along the border that are averaged
SEAM_FAINT = 0.5  # grey levels a pixel: fainter edges are not seen
SEAM_FRAMES = 16  # whose edges are measured, spread over the clip

EYE_SIZE = (64, 32)  # pixels of an upright eye, corner to corner and as high as half of that
BLINK_WINDOW = 1.5  # seconds: running median that the eye is compared with
BLINK_DROP = 0.12  # of correlation; still eyes stay within 0.06 while the head sways
BLINK_NOISE = 6.0  # times the clip's own noise (median absolute deviation)
BLINK_EDGE = 0.2  # of a blink's depth: between these two moments it lasts
MIN_BLINK_CLIP = 20.0  # seconds; in less a rate says nothing

STILL_HEAD = 0.3  # pixels the head is off its place in the photo, median, below which it counts as held still
DRIFT_FROM, DRIFT_TO = 1.0, 60.0  # seconds, middles of the two seconds compared
MIN_DRIFT_CLIP = 5.0  # seconds


def evaluate(video, audio, source, phonemes=None, still_head=None, analyzer=None):
    """Measure a talking video.

    Args:
        video: path of the mp4.
        audio: the recording it was made from; path or array as for audio.load_audio.
        source: the photo it was made from; path or array as for image.load_image.
        phonemes: path of a JSON list of {"ipa": str, "start": seconds, "end": seconds}, or that list; "" is silence.
        still_head: whether motion_scale was 0, which some bars are for; None finds out by measuring.
        analyzer: a face.FaceAnalyzer to use again.
    Returns:
        {name: figure}; a figure is a dict with `label`, `value` (number or None), `bar` (text), `passed` (True, False,
        or None where the bar does not apply), `note`, and for figures that are shares of something `items`: the list of
        single values, so that several clips can be put together.
    Raises:
        InputMissingError, AudioError, ImageError: unreadable inputs. UsageError: phonemes malformed, or a photo of
        other proportions than the video. FaceError: no face in the photo or in any frame.
    """
    samples = load_audio(audio)
    phones = None if phonemes is None else read_phonemes(phonemes)
    info = probe(video)
    analyzer = analyzer or face.FaceAnalyzer()
    photo = _Photo(_fit_photo(load_image(source), (info.width, info.height)), analyzer)
    clip = _measure_frames(video, info.frames, photo, analyzer)
    voiced = voice_activity(samples)
    if still_head is None:
        still_head = bool(np.median(clip.head) < STILL_HEAD)
    figures = {}
    figures |= _length_figures(video, info, samples)
    figures |= _face_figures(clip)
    figures |= _mouth_figures(clip.opening, photo.opening, speech_envelope(samples), voiced, phones)
    figures |= _picture_figures(clip, photo, voiced, still_head)
    figures |= _eye_figures(clip, info.frames / FPS, still_head)
    return figures


def format_table(figures):
    """Figures as a Markdown table with aligned columns."""
    verdicts = {True: "pass", False: "FAIL", None: "-"}
    rows = [("figure", "value", "bar", "verdict", "note")]
    for figure in figures.values():
        rows.append(
            (figure["label"], _number(figure["value"]), figure["bar"], verdicts[figure["passed"]], figure["note"])
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def read_phonemes(source):
    """Path of a JSON file, or its content: checked list of {"ipa", "start", "end"}, in the order of time."""
    where = "phonemes"
    if not isinstance(source, list):
        where = f"phonemes {source}"
        if not Path(source).is_file():
            raise InputMissingError(f"{where}: no such file; check the path")
        try:
            source = json.loads(Path(source).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{where}: not JSON ({error}); expected a list of phonemes with times") from error
    expected = 'expected a list of {"ipa": text, "start": seconds, "end": seconds}'
    if not isinstance(source, list):
        raise UsageError(f"{where}: holds a {type(source).__name__}; {expected}")
    for i, phone in enumerate(source):
        good = isinstance(phone, dict) and isinstance(phone.get("ipa"), str)
        good = good and all(type(phone.get(key)) in (int, float) for key in ("start", "end"))
        if not good or not 0 <= phone["start"] <= phone["end"]:
            raise UsageError(f"{where}: entry {i} is {phone!r}; {expected}, with 0 <= start <= end")
    return sorted(source, key=lambda phone: phone["start"])


def _number(value):
    if value is None:
        return "n/a"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _figure(label, value, bar="", passed=None, note="", items=None):
    figure = {
        "label": label,
        "value": value if value is None or isinstance(value, int) else float(value),
        "bar": bar,
        "passed": None if passed is None or value is None else bool(passed),
        "note": note,
    }
    if items is not None:
        figure["items"] = items
    return figure


# ---------------------------------------------------------------------------------------------------------- the photo


def _fit_photo(photo, size):
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


class _Photo:
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
        self.eyes = [_eye_view(self.points, eye) for eye in _EYES]
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


def ssim_masks(points, shape):
    """Two bool masks (h, w) of where speech alone should change nothing.

    The first is everything but the lower face: the face oval below the line NOSE_MARGIN above the nose base, as it is
    and LOWER_FACE_DROP lower, with LOWER_FACE_MARGIN around it; what lies above that line belongs to the mask again.
    The second is the part of the face oval in the first: eyes, brows, nose. Both keep the reach of the SSIM window off.
    """
    height = face.face_height(points)
    down = _down(points)
    oval = points[list(face.FACE_OVAL)]
    nose_line = points[2] @ down - NOSE_MARGIN * height
    lower = np.concatenate([oval[oval @ down > nose_line], points[[2]]])
    lower = np.concatenate([lower, lower + LOWER_FACE_DROP * height * down])
    inside = _dilate(_polygon(cv2.convexHull(np.float32(lower))[:, 0], shape), LOWER_FACE_MARGIN * height)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside &= columns * down[0] + rows * down[1] > nose_line
    outside = ~_dilate(inside, SSIM_REACH)
    return outside, outside & _polygon(oval, shape)


def _bounds(mask):
    """Slices (rows, columns) of the smallest box that holds a mask."""
    return tuple(slice(line.min(), line.max() + 1) for line in np.nonzero(mask))


def _down(points):
    """Unit vector from the forehead to the chin."""
    axis = points[face.CHIN, :2] - points[face.FOREHEAD, :2]
    return axis / np.linalg.norm(axis)


def _polygon(points, shape):
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return mask > 0


def _dilate(mask, pixels):
    side = 2 * max(1, round(pixels)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


# ---------------------------------------------------------------------------------------------------------- each frame


def lip_gap(points):
    """Distance of the inner lips along the face's down axis over the face height, mean of three pairs; points (468, 2).

    About 0.01 for closed lips (see the module's header), 0.05 to 0.1 in open vowels; below 0 where contours cross.
    """
    upper, lower = np.transpose(OPENING_PAIRS)
    return float(((points[lower, :2] - points[upper, :2]) @ _down(points)).mean() / face.face_height(points))


def _laplacian_variance(grey, mask=None):
    return float(cv2.Laplacian(grey, cv2.CV_32F)[slice(None) if mask is None else mask].var())


def _mouth_sharpness(grey, points):
    """Variance of the Laplacian in the upright box around the lips with a fifth of the mouth's width on every side."""
    lips = points[list(face.OUTER_UPPER_LIP + face.OUTER_LOWER_LIP), :2]
    margin = 0.2 * np.ptp(lips[:, 0])
    left, top = np.maximum(np.floor(lips.min(0) - margin), 0).astype(int)
    right, bottom = np.ceil(lips.max(0) + margin).astype(int) + 1
    box = grey[top:bottom, left:right]
    return _laplacian_variance(box) if min(box.shape) > 2 else 0.0


def _skin(points, shape):
    """Mask of the face without what speech and blinks change: oval shrunk by 5 %, without mouth and eyes."""
    height = face.face_height(points)
    oval = points[list(face.FACE_OVAL), :2]
    mask = _polygon(oval.mean(0) + 0.95 * (oval - oval.mean(0)), shape)
    for upper, lower in ((face.OUTER_UPPER_LIP, face.OUTER_LOWER_LIP), *_EYES):
        mask &= ~_dilate(_polygon(np.concatenate([points[list(upper), :2], points[list(lower[::-1]), :2]]), shape),
                         0.05 * height)  # fmt: skip
    return mask


_EYES = ((face.RIGHT_EYE_UPPER, face.RIGHT_EYE_LOWER), (face.LEFT_EYE_UPPER, face.LEFT_EYE_LOWER))


def _eye_view(points, eye):
    """(2, 3) matrix: pixels of an upright picture of one eye, EYE_SIZE large -> pixels of the photo."""
    inner, outer = points[eye[0][0]], points[eye[0][-1]]
    axis = (outer - inner) / EYE_SIZE[0]
    turn = np.array([[axis[0], -axis[1]], [axis[1], axis[0]]])
    return np.column_stack([turn, (inner + outer) / 2 - turn @ ((np.array(EYE_SIZE) - 1) / 2)])


def _view(grey, matrix):
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(grey, matrix, EYE_SIZE, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def _head_motion(source, target):
    """(2, 3) similarity that carries the rigid points of one mesh (468, 2) onto another's, least squares."""
    rigid = list(face.RIGID)
    p, q = source[rigid] @ [1, 1j], target[rigid] @ [1, 1j]
    a = np.vdot(p - p.mean(), q - q.mean()) / np.vdot(p - p.mean(), p - p.mean())
    b = q.mean() - a * p.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _correlation(a, b):
    """Pearson correlation of two arrays of one size; 0 where one of them is flat."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 1e-9 else 0.0


SSIM_REACH = 5  # pixels: half of the 11-pixel window


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
        lips = points[list(face.OUTER_UPPER_LIP + face.OUTER_LOWER_LIP[::-1])]
        self._mouth = _dilate(_polygon(lips, rgb.shape[:2]), 0.06 * face.face_height(points))

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


@dataclass
class _Clip:
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


def _measure_frames(video, n_frames, photo, analyzer):
    """Stream the video once: _Clip."""
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
    return _Clip(missing, table[:, 0], corners, *table[:, 1:4].T, np.array(ssim), np.array(early), np.array(late))


def _measure_face(grey, points, photo):
    """Opening, head, eyes, mouth sharpness, then the eye corners x, y: see _Clip."""
    motion = _head_motion(photo.points, points)
    eyes = []
    for view, still in zip(photo.eyes, photo.open_eyes):
        matrix = motion @ np.vstack([view, [0, 0, 1]])
        eyes.append(_correlation(_view(grey, matrix), still))
    corners = points[[33, 133, 362, 263]] * photo.scale
    return [lip_gap(points), photo.head_shift(grey), np.mean(eyes), _mouth_sharpness(grey, points), *corners.ravel()]


def _measure_skin(rgb, grey, points):
    """Laplacian variance and mean L, a, b of the face's skin."""
    mask = _skin(points, grey.shape)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return [_laplacian_variance(grey, mask), *lab[mask].mean(0)]


# ---------------------------------------------------------------------------------------------------------- the figures


def _length_figures(video, info, samples):
    seconds = len(samples) / SAMPLE_RATE
    expected = frame_count(len(samples))
    off = abs(info.audio_seconds - seconds)
    header = read_header(video)
    tolerance = AAC_FRAME / ((header and header.sample_rate) or SAMPLE_RATE)
    rate = f"{seconds:.3f} s of audio, {info.fps:g} frames a second"
    return {
        "frames": _figure(
            "frames", info.frames, f"= {expected}", info.frames == expected and abs(info.fps - FPS) < 0.01, rate
        ),
        "audio_length": _figure(
            "audio stream, seconds off", off, f"<= {tolerance:.3f}", off <= tolerance + 1e-6, "one AAC frame"
        ),
    }


def _face_figures(clip):
    n = len(clip.opening)
    return {
        "face_found": _figure("frames with a face", n - clip.missing, f"= {n}", clip.missing == 0),
        "head_motion": _figure("head off its place, px", np.median(clip.head), note="median, at a short side of 512"),
    }


def best_lag(opening, envelope):
    """Correlation of the mouth with the sound for each lag: (best lag, r there, r of the best lag within NEAR_LAG).

    Lags are frames by which the mouth comes later, searched up to MAX_LAG each way; inputs (n,) of one length.
    """
    scores = {}
    for lag in range(-MAX_LAG, MAX_LAG + 1):
        mouth = opening[max(0, lag) : len(opening) + min(0, lag)]
        sound = envelope[max(0, -lag) : len(envelope) + min(0, -lag)]
        scores[lag] = _correlation(mouth, sound)
    best = max(scores, key=scores.get)
    return best, scores[best], max(scores[lag] for lag in range(-NEAR_LAG, NEAR_LAG + 1))


def _spans_of(phones, vowel):
    """(start, end) of every bilabial, or of every open vowel of at least MIN_VOWEL seconds."""
    wanted = OPEN_VOWELS if vowel else BILABIALS
    shortest = MIN_VOWEL if vowel else 0.0
    return [
        (phone["start"], phone["end"])
        for phone in phones
        if phone["ipa"][:1] in wanted and phone["end"] - phone["start"] >= shortest - 1e-9
    ]


def pauses_of(phones, voiced):
    """(start, end) in seconds of every silence of at least MIN_PAUSE: from the phonemes, or where none are known, from
    the voice activity, bool (n,)."""
    spans = []
    if phones is None:
        edges = np.flatnonzero(np.diff(np.concatenate([[True], voiced, [True]]).astype(np.int8))) / FPS
        spans = list(zip(edges[::2], edges[1::2]))
    else:
        end = 0.0
        for phone in [*phones, {"ipa": "end", "start": len(voiced) / FPS, "end": len(voiced) / FPS}]:
            if phone["ipa"]:
                spans.append((end, phone["start"]))
                end = phone["end"]
    return [(float(start), float(stop)) for start, stop in spans if stop - start >= MIN_PAUSE - 1e-9]


def _within(values, start, end, slack=0.5):
    """Values (n,) of the frames whose middle is in [start, end] seconds, give or take `slack` frames."""
    middles = np.arange(len(values)) + 0.5
    return values[(middles >= start * FPS - slack) & (middles <= end * FPS + slack)]


def opening_zero(opening, photo_opening):
    """What this face's closed lips measure; see the module's header. opening: (n,) lip_gap of a clip."""
    if photo_opening <= CLOSED_AT_MOST:
        return photo_opening
    return min(float(np.percentile(opening, 2)), CLOSED_AT_MOST)


def _mouth_figures(raw, photo_opening, envelope, voiced, phones):
    """raw: (n,) lip_gap."""
    n = min(len(raw), len(envelope))
    zero = opening_zero(raw, photo_opening)
    opening = np.maximum(raw - zero, 0)
    wide = float(np.percentile(opening, 90))
    figures = {
        "opening_zero": _figure(
            "mouth zero, of the face height", zero, note=f"photo {photo_opening:.3f}, least of the clip {raw.min():.3f}"
        ),
        "opening_mean": _figure("mouth opening, mean, of the face height", opening.mean()),
        "opening_p90": _figure("mouth opening, 90th percentile", wide),
    }
    moving = voiced.any() and n > 4 * MAX_LAG and envelope[:n].std() > 1e-4
    lag, r, near = best_lag(opening[:n], envelope[:n]) if moving else (None, None, None)
    note = f"best of +-{MAX_LAG} frames: {r:.2f}" if moving else "no speech"
    figures["envelope_r"] = _figure(
        f"mouth against loudness, r within +-{NEAR_LAG} frames", near, ">= 0.5", moving and near >= 0.5, note
    )
    figures["envelope_lag"] = _figure(
        "lag of the mouth, frames", lag, "-1 to 1", moving and abs(lag) <= 1, "positive: mouth late" if moving else note
    )
    if phones is not None:
        closures = [_within(opening, *span).min(initial=np.inf) for span in _spans_of(phones, vowel=False)]
        vowels = [_within(opening, *span).max(initial=0) for span in _spans_of(phones, vowel=True)]
        figures["bilabials"] = _share("p, b, m that close", closures, wide, at_most=CLOSURE_SHARE)
        figures["open_vowels"] = _share("open vowels that open", vowels, wide, at_least=VOWEL_SHARE)
    rests = []
    for start, end in pauses_of(phones, voiced):
        part = _within(opening, start + PAUSE_EDGE, end - PAUSE_EDGE, slack=0)
        rests += [float(np.median(part)) / max(wide, LEAST_WIDE)] if len(part) else []
    source = "voice activity" if phones is None else "phonemes"
    worst = max(rests, default=None)
    figures["pauses"] = _figure(
        "opening in the widest pause, of the 90th percentile", worst, f"<= {PAUSE_SHARE:g}",
        worst is not None and worst <= PAUSE_SHARE, f"{len(rests)} pauses by {source}", rests,
    )  # fmt: skip
    for name in ("bilabials", "pauses"):
        if name in figures and not (wide >= LEAST_WIDE and voiced.any()):
            figures[name] |= {"value": None, "passed": None, "items": [], "note": "the mouth stays shut"}
    return figures


def _share(label, values, wide, at_most=None, at_least=None):
    """Share of `values` within `at_most` or beyond `at_least` of the clip's 90th percentile; bar 85 %."""
    ratios = [float(value) / max(wide, LEAST_WIDE) for value in values]
    good = [ratio <= at_most if at_least is None else ratio >= at_least for ratio in ratios]
    limit = f"<= {at_most:g}" if at_least is None else f">= {at_least:g}"
    value = float(np.mean(good)) if good else None
    note = f"{sum(good)} of {len(good)} have {limit} of the 90th percentile"
    return _figure(label, value, ">= 0.85", good and value >= 0.85, note, ratios)


def _picture_figures(clip, photo, voiced, still_head):
    figures = {}
    only_still = "" if still_head else "for motion_scale 0; here the head moves"
    outside, upper = clip.ssim.T
    at = int(np.argmin(outside))
    figures["ssim_min"] = _figure(
        "outside the lower face, SSIM, worst frame", outside.min(), ">= 0.98",
        outside.min() >= 0.98 if still_head else None, only_still or f"frame {at}",
    )  # fmt: skip
    figures["ssim_mean"] = _figure("outside the lower face, SSIM, mean", outside.mean())
    figures["ssim_upper_face"] = _figure(
        "eyes, brows and nose, SSIM, worst frame", upper.min(), note=f"mean {upper.mean():.3f}"
    )
    ratio, step, note = photo.seam.result()
    figures["seam"] = _figure("paste border against 20 px further in", ratio, "<= 1.2", ratio and ratio <= 1.2, note)
    figures["seam_step"] = _figure("step across the paste border, grey levels", step)
    n = min(len(voiced), len(clip.mouth_sharpness))
    speaking = clip.mouth_sharpness[:n][voiced[:n]]
    speaking = speaking if len(speaking) else clip.mouth_sharpness
    value = speaking.mean() / max(photo.mouth_sharpness, 1e-6)
    figures["mouth_sharpness"] = _figure(
        "sharpness of the mouth, of the photo's", value, ">= 0.7", value >= 0.7, f"{len(speaking)} frames of speech"
    )
    figures |= _drift_figures(clip, still_head)
    return figures


def _drift_figures(clip, still_head):
    """A head between two pixels is softer than one on them, so that sway alone changes the sharpness by 6 %: its bar is
    for a head held still."""
    seconds = len(clip.opening) / FPS
    if seconds < MIN_DRIFT_CLIP or not len(clip.early) or not len(clip.late):
        sharp = delta = None
        note = f"needs {MIN_DRIFT_CLIP:g} s"
    else:
        early, late = clip.early.mean(0), clip.late.mean(0)
        sharp, delta = late[0] / max(early[0], 1e-6), float(np.linalg.norm(late[1:] - early[1:]))
        note = f"at {min(DRIFT_TO, seconds - 0.5):.1f} s against {DRIFT_FROM:g} s, skin"
    lasting = sharp is not None and sharp >= 0.97 if still_head else None
    only_still = "" if still_head else ", bar for motion_scale 0"
    return {
        "drift_sharpness": _figure("drift: sharpness", sharp, ">= 0.97", lasting, note + only_still),
        "drift_colour": _figure("drift: colour, delta E", delta, "<= 1", delta is not None and delta <= 1, note),
    }


def find_blinks(eyes):
    """(start, end) in frames, fractional, of every blink in a series of eye correlations (n,), 1 = as in the photo.

    A blink is a dip below the running median of BLINK_WINDOW seconds by more than BLINK_DROP and BLINK_NOISE times the
    clip's noise; it lasts while the dip is deeper than BLINK_EDGE of its depth. Dips cut off by an end do not count,
    and neither do longer ones than half of the window, as the median follows them. Half-closed eyes still correlate
    well, so the first and the last 20 to 40 ms of a blink are not seen.
    """
    half = round(BLINK_WINDOW * FPS / 2)
    if len(eyes) < 2 * half:
        return []
    padded = np.pad(eyes, half, mode="reflect")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
    dip = usual - eyes
    noise = 1.4826 * np.median(np.abs(dip - np.median(dip)))
    limit = max(BLINK_DROP, BLINK_NOISE * noise)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], dip > limit, [False]]).astype(np.int8)))
    blinks = []
    for first, last in zip(edges[::2], edges[1::2]):
        depth = BLINK_EDGE * dip[first:last].max()
        start, end = first, last - 1
        while start > 0 and dip[start] > depth:
            start -= 1
        while end < len(dip) - 1 and dip[end] > depth:
            end += 1
        if dip[start] > depth or dip[end] > depth or (blinks and start < blinks[-1][1]):
            continue
        start += (depth - dip[start]) / (dip[start + 1] - dip[start])
        end -= (depth - dip[end]) / (dip[end - 1] - dip[end])
        blinks.append((float(start), float(end)))
    return blinks


def _eye_figures(clip, seconds, still_head):
    jitter = steady = None
    if len(clip.eye_corners) > 2:
        jitter = np.linalg.norm(np.diff(clip.eye_corners, n=2, axis=0), axis=2).mean()
        steady = jitter <= 0.5 if still_head else None
    blinks = find_blinks(clip.eyes)
    rate = 60 * len(blinks) / seconds
    lengths = [(end - start) / FPS for start, end in blinks]
    in_range = float(np.mean([0.1 <= length <= 0.4 for length in lengths])) if lengths else None
    long_enough = seconds >= MIN_BLINK_CLIP and not still_head
    note = f"{len(blinks)} in {seconds:.1f} s" + (", head held still" if still_head else "")
    note += "" if seconds >= MIN_BLINK_CLIP else f"; a rate needs {MIN_BLINK_CLIP:g} s"
    lasting = f"{min(lengths):.2f} to {max(lengths):.2f} s" if lengths else "none"
    only_still = "" if still_head else "for motion_scale 0; here the head moves"
    return {
        "jitter": _figure(
            "jitter of the eye corners, px", jitter, "<= 0.5", steady,
            only_still or "mean second difference at a short side of 512",
        ),
        "blinks": _figure("blinks a minute", rate, "10 to 25", 10 <= rate <= 25 if long_enough else None, note),
        "blink_lengths": _figure(
            "blinks of 0.1 to 0.4 s, share", in_range, "all", None if still_head else in_range == 1, lasting, lengths
        ),
    }  # fmt: skip
