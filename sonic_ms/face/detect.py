"""Faces: BlazeFace finds them, the MediaPipe face mesh puts 468 points on one. Both run in OpenCV's dnn module.

Models (Apache-2.0, fetched by files/assets.py): V. Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face
Detection on Mobile GPUs", 2019; Y. Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile
GPUs", 2019. Points as in mesh.py.
"""

from dataclasses import astuple, dataclass, replace

import cv2
import numpy as np

from sonic_ms.face.mesh import LEFT_EYE_OUTER, RIGHT_EYE_OUTER, RIGID, Face, Landmarks, keypoints, similarity
from sonic_ms.files import assets
from sonic_ms.runtime.turns import in_turn

DETECTOR_SIDE = 128  # pixels, input of BlazeFace short range
MESH_SIDE = 192  # pixels, input of the mesh
MESH_MARGIN = 1.5  # side of the mesh crop over the longer side of the face box
SCORE_THRESHOLD = 0.5
TILE_SCORE_THRESHOLD = 0.6  # zoomed tiles show more hands, knees and patterns
CONFIDENCE = 0.57  # detector's score times the mesh net's: clear faces reach 0.87, cats and patterns 0.55
NMS_OVERLAP = 0.3  # of the smaller box
PRESENCE_THRESHOLD = 0.5  # of the mesh net, while it follows a face
MIN_TILE = 48  # pixels; smaller squares are not searched

# The mesh net finds two eyes and a mouth in hair, fur and cloth; the detector, looking again at what the mesh says is
# an upright face, puts them elsewhere then. Measured on 24 photos of people in four rotations, cats, apes, cloth.
SECOND_MARGIN = 2.0  # side of what the detector sees again over the longer side of the mesh
AGREE = 0.1  # mean distance of eyes, nose and mouth over the longer side of the mesh; of people up to 0.09
SURE = 0.8  # detector's score, looking again, of upright people: 0.83 and more


@dataclass(frozen=True)
class _Crop:
    """Square region that the mesh net sees: centre and side in image pixels, roll in radians."""

    x: float
    y: float
    side: float
    roll: float

    def to_image(self, pixels=MESH_SIDE):
        """(2, 3) affine matrix: pixels of the crop, `pixels` a side -> pixels of the image, both whole at pixel
        centres."""
        scale = self.side / pixels
        a, b = scale * np.cos(self.roll), scale * np.sin(self.roll)
        half = (pixels - 1) / 2
        return np.array([[a, -b, self.x - half * (a - b)], [b, a, self.y - half * (a + b)]])


def _anchors():
    """Centres of BlazeFace's 896 anchors as fractions of the input: (896, 2), x and y."""
    centres = []
    for grid, per_cell in ((16, 2), (8, 6)):
        steps = (np.arange(grid) + 0.5) / grid
        y, x = np.meshgrid(steps, steps, indexing="ij")
        centres.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), per_cell, axis=0))
    return np.concatenate(centres)


def _sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def _overlap(one, other):
    """Overlap of two boxes (x, y, w, h) over the smaller one: a part of a face counts as that face."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0) / min(one[2] * one[3], other[2] * other[3])


class FaceAnalyzer:
    """Both nets, loaded once; about 3 ms a detector pass and 7 ms a mesh on two cores. Threads take turns."""

    @in_turn
    def __init__(self):
        self._detector = cv2.dnn.readNetFromTFLite(str(assets.fetch("face_detection_short_range.tflite")))
        self._mesh = cv2.dnn.readNetFromTFLite(str(assets.fetch("face_landmark.tflite")))
        self._anchors = _anchors()

    def detect(self, rgb):
        """All faces of an image (h, w, 3) uint8, largest first. Boxes down to about 1/25 of the short side are found.

        The whole image first, then overlapping squares of its short side and of half of it; of a quarter too while
        nothing is sure. What the mesh net does not take for a face either is dropped, and so is what detector and mesh
        disagree about. Eyes and mouth of a face that is upside down are where they are; where there is no face, the
        image is looked at upside down too.
        """
        if faces := self._detect_upright(rgb):
            return faces
        height, width = rgb.shape[:2]
        back = np.array([[-1.0, 0, width - 1], [0, -1.0, height - 1]])
        return [_on_image(face, back) for face in self._detect_upright(np.ascontiguousarray(rgb[::-1, ::-1]))]

    def _detect_upright(self, rgb):
        height, width = rgb.shape[:2]
        short, long = min(height, width), max(height, width)
        faces = self._detect_square(rgb, (-(long - width) / 2, -(long - height) / 2), long, SCORE_THRESHOLD)
        for parts in (1, 2, 4):
            if parts == 4 and any(face.score > 0.8 for face in faces):
                break
            side = short / parts
            if side < MIN_TILE:
                break
            for corner in _tiles(width, height, side):
                found = self._detect_square(rgb, corner, side, TILE_SCORE_THRESHOLD)
                faces += [face for face in found if not _is_cut(face.box, corner, side, width, height)]
        kept = []
        for face in sorted(faces, key=lambda f: -f.score):
            if all(_overlap(face.box, other.box) < NMS_OVERLAP for other in kept):
                kept.append(face)
        kept = [one for face in kept if (one := self._confirmed(rgb, face)) is not None]
        return sorted(kept, key=lambda f: -f.box[2] * f.box[3])

    def _confirmed(self, rgb, face):
        """The face, or the one that is there when its mesh is turned, or None where detector and mesh see no face."""
        found = self.landmarks(rgb, face)
        seen, apart = self._look_again(rgb, found.points)
        if apart > AGREE / 2 or seen.score < SURE:
            for turn in (np.pi, np.pi / 2, -np.pi / 2):
                other, _ = self._look_again(rgb, found.points, turn)
                if other.score < SURE or other.score <= seen.score:
                    continue
                better = self.landmarks(rgb, other)
                again, apart_then = self._look_again(rgb, better.points)
                if apart_then < min(AGREE, apart) and again.score >= SURE:
                    return other if other.score * better.score > CONFIDENCE else None
        return face if apart <= AGREE and face.score * found.score > CONFIDENCE else None

    def _look_again(self, rgb, points, turn=0.0):
        """What the detector sees in a crop in which a mesh stands upright, or is turned by `turn` radians: the Face
        that agrees with the mesh best, and by how much its eyes, nose and mouth are off, in longer sides of the mesh.
        (Face of score 0, infinity) for none."""
        mesh_crop = _crop_of_points(points)
        side = mesh_crop.side * SECOND_MARGIN / MESH_MARGIN
        crop = replace(mesh_crop, side=side, roll=mesh_crop.roll + turn)
        to_image = crop.to_image(DETECTOR_SIDE)
        square = _warp_down(rgb, cv2.invertAffineTransform(to_image), DETECTOR_SIDE, cv2.BORDER_REPLICATE)
        best, least = Face((0, 0, 0, 0), 0.0), np.inf
        for face in self._detect_square(square, (0, 0), DETECTOR_SIDE, SCORE_THRESHOLD):
            seen = _on_image(face, to_image)
            apart = np.linalg.norm(keypoints(points) - seen.keypoints[:4], axis=1).mean() * MESH_MARGIN / mesh_crop.side
            if apart < least:
                best, least = seen, float(apart)
        return best, least

    @in_turn
    def _detect_square(self, rgb, corner, side, threshold):
        """Faces in the square at `corner` (x, y); what lies outside the image is black."""
        scale = DETECTOR_SIDE / side
        shift = (scale - 1) / 2  # from edges to pixel centres
        matrix = np.array([[scale, 0, shift - corner[0] * scale], [0, scale, shift - corner[1] * scale]])
        square = _warp_down(rgb, matrix, DETECTOR_SIDE, cv2.BORDER_CONSTANT)
        self._detector.setInput(cv2.dnn.blobFromImage(square, 1 / 127.5, mean=(127.5,) * 3))
        outputs = self._detector.forward(self._detector.getUnconnectedOutLayersNames())
        scores, values = sorted(outputs, key=lambda output: output.size)
        scores = _sigmoid(scores.reshape(896))
        # 16 numbers an anchor: box centre x, y, width, height, then six points x, y; centre and points relative to it.
        values = values.reshape(896, 8, 2) / DETECTOR_SIDE
        keep = np.flatnonzero(scores > threshold)
        faces = []
        for group in _groups(keep[np.argsort(-scores[keep])], values, self._anchors):
            # Blending the boxes of one face by score is steadier than the best alone (Bazarevsky et al., section 4.4).
            weight = scores[group] / scores[group].sum()
            size = weight @ values[group, 1] * side
            points = np.tensordot(weight, values[group] + self._anchors[group][:, None], 1)  # (8, 2)
            points = points * side + corner - 0.5
            box = (*(points[0] - size / 2), *size)
            faces.append(Face(tuple(map(float, box)), float(scores[group[0]]), points[2:].astype(np.float32)))
        return faces

    def landmarks(self, rgb, face):
        """Landmarks of a face: a `Face`, or a box (x, y, w, h) in pixels.

        A bare box says nothing of the roll: it is tried upright and leaning either way, and the surest result counts.
        """
        if isinstance(face, Face):
            return self._refine(rgb, _crop_of_face(face))
        x, y, width, height = face
        side = max(width, height) * MESH_MARGIN
        crops = [_Crop(x + width / 2, y + height / 2, side, roll) for roll in (0.0, np.pi / 4, -np.pi / 4)]
        return max((self._refine(rgb, crop) for crop in crops), key=lambda found: found.score)

    def _refine(self, rgb, crop):
        """At least two passes: each crop is centred, sized and turned upright by the points of the one before; up to
        five while that still changes the crop."""
        found = self._run_mesh(rgb, crop)
        for _ in range(4):
            before, crop = crop, _crop_of_points(found.points)
            refined = self._run_mesh(rgb, crop)
            if refined.score < found.score - 0.2:  # the points were off, and their crop leads away from the face
                break
            found = refined
            shift = np.hypot(crop.x - before.x, crop.y - before.y) + abs(crop.side - before.side)
            if shift < 0.1 * crop.side and abs(crop.roll - before.roll) < 0.1:
                break
        return found

    @in_turn
    def _run_mesh(self, rgb, crop):
        to_image = crop.to_image()
        matrix = cv2.invertAffineTransform(to_image)
        square = _warp_down(rgb, matrix, MESH_SIDE, cv2.BORDER_REPLICATE)
        self._mesh.setInput(cv2.dnn.blobFromImage(square, 1 / 255))
        score, points = sorted(self._mesh.forward(self._mesh.getUnconnectedOutLayersNames()), key=lambda o: o.size)
        points = points.reshape(468, 3).astype(np.float64)
        result = np.empty((468, 3), np.float32)
        # The net's points are whole at pixel centres: with that, a mirrored photo gives mirrored points to 0.1 pixel of
        # the crop (0.6 when they are counted from the pixel's edge).
        result[:, :2] = points[:, :2] @ to_image[:, :2].T + to_image[:, 2]
        result[:, 2] = points[:, 2] * crop.side / MESH_SIDE
        return Landmarks(result, float(_sigmoid(score.item())))

    def track(self, frames):
        """Yield Landmarks, or None where no face is seen, for each frame (h, w, 3) of a video; the largest face.

        The crop follows the head by its rigid points only, as a running mean, so that speech does not move it and its
        own jitter adds nothing to the points of a still head.
        """
        crop = home = reference = None
        for rgb in frames:
            found = crop and self._run_mesh(rgb, crop)
            if found and found.score > PRESENCE_THRESHOLD:
                target = _carried(home, reference, found.points)
                if _is_far(crop, target):  # a sudden move: look again where the head has gone
                    found = self._refine(rgb, target)
                    crop = _carried(home, reference, found.points)
                else:
                    crop = _between(crop, target, 0.1)
            if not found or found.score <= PRESENCE_THRESHOLD:
                faces = self.detect(rgb)
                found = self.landmarks(rgb, faces[0]) if faces else None
                if found:
                    crop = home = _crop_of_points(found.points)
                    found = self._run_mesh(rgb, crop)  # with the crop of the frames to come
                    reference = found.points
            yield found


def _tiles(width, height, side):
    """Corners (x, y) of squares of `side` that cover the image and overlap by at least half."""

    def starts(length):
        return np.linspace(0, length - side, 1 + int(np.ceil((length - side) / (side / 2) - 1e-6)))

    return [(x, y) for y in starts(height) for x in starts(width)]


def _is_cut(box, corner, side, width, height):
    """Whether the box reaches over an edge of its square that is not an edge of the image: half a face."""
    x, y, w, h = box
    left, top = corner
    edge = 0.02 * side
    return (
        (x < left + edge and left > 0)
        or (y < top + edge and top > 0)
        or (x + w > left + side - edge and left + side < width - 1)
        or (y + h > top + side - edge and top + side < height - 1)
    )


def _groups(order, values, anchors):
    """Split anchor indices, best first, into arrays that each belong to one face."""
    size = np.abs(values[:, 1])
    corner = values[:, 0] + anchors - size / 2
    boxes = np.concatenate([corner, size], 1)
    groups = []
    for index in order:
        home = next((group for group in groups if _overlap(boxes[index], boxes[group[0]]) > NMS_OVERLAP), None)
        if home is None:
            groups.append([index])
        else:
            home.append(index)
    return [np.array(group) for group in groups]


def _warp_down(rgb, matrix, side, border):
    """cv2.warpAffine to side x side without aliasing: the image is halved first until the matrix shrinks it less than
    twofold."""
    matrix = matrix.copy()
    scale = np.hypot(*matrix[0, :2])
    steps = int(np.floor(np.log2(1 / scale))) if scale < 0.5 else 0
    if steps:
        factor = 2**steps
        # Only the part that is seen is reduced; its corner is aligned to the reduced grid.
        inverse = cv2.invertAffineTransform(matrix)
        corners = np.array([[0, 0], [side, 0], [0, side], [side, side]]) @ inverse[:, :2].T + inverse[:, 2]
        low = np.maximum(np.floor(corners.min(0) / factor) - 1, 0).astype(int) * factor
        high = np.ceil(corners.max(0) + factor).astype(int)
        part = rgb[low[1] : max(high[1], low[1] + factor), low[0] : max(high[0], low[0] + factor)]
        if part.size == 0:
            return np.zeros((side, side, 3), np.uint8)
        reduced = (max(1, part.shape[1] // factor), max(1, part.shape[0] // factor))
        rgb = cv2.resize(part[: reduced[1] * factor, : reduced[0] * factor], reduced, interpolation=cv2.INTER_AREA)
        # Pixel centres: full = factor * (half + 0.5) - 0.5 + low
        up = np.array([[factor, 0, (factor - 1) / 2 + low[0]], [0, factor, (factor - 1) / 2 + low[1]], [0, 0, 1]])
        matrix = (np.vstack([matrix, [0, 0, 1]]) @ up)[:2]
    return cv2.warpAffine(rgb, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)


def _on_image(face, to_image):
    """A Face found in a crop, in pixels of the image; its box keeps its size and stays level."""
    x, y, width, height = face.box
    middle = to_image[:, :2] @ (x + width / 2, y + height / 2) + to_image[:, 2]
    size = np.hypot(*to_image[:, 0]) * np.array([width, height])
    points = (face.keypoints @ to_image[:, :2].T + to_image[:, 2]).astype(np.float32)
    return Face((*map(float, middle - size / 2), *map(float, size)), face.score, points)


def _crop_of_face(face):
    x, y, width, height = face.box
    eyes = face.keypoints[1] - face.keypoints[0]
    return _Crop(x + width / 2, y + height / 2, max(width, height) * MESH_MARGIN, float(np.arctan2(eyes[1], eyes[0])))


def _crop_of_points(points):
    """Crop around a mesh: turned so that the outer eye corners are level, 1.5 times the longer side of the points."""
    eyes = points[LEFT_EYE_OUTER, :2] - points[RIGHT_EYE_OUTER, :2]
    roll = float(np.arctan2(eyes[1], eyes[0]))
    upright = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    turned = points[:, :2] @ upright
    low, high = turned.min(0), turned.max(0)
    centre = upright @ ((low + high) / 2)
    return _Crop(float(centre[0]), float(centre[1]), float((high - low).max()) * MESH_MARGIN, roll)


def _carried(home, reference, points):
    """`home`, the crop that belongs to the mesh `reference`, moved along with the head to the mesh `points`."""
    a, b = similarity(reference[list(RIGID), :2], points[list(RIGID), :2])
    centre = a * complex(home.x, home.y) + b
    return _Crop(float(centre.real), float(centre.imag), home.side * float(abs(a)), home.roll + float(np.angle(a)))


def _is_far(crop, other):
    shift = max(abs(crop.x - other.x), abs(crop.y - other.y), abs(crop.side - other.side))
    return shift > 0.08 * crop.side or abs(crop.roll - other.roll) > 0.15


def _between(crop, other, share):
    """Crop moved by `share` of the way to the other."""
    return _Crop(*(a + share * (b - a) for a, b in zip(astuple(crop), astuple(other))))
