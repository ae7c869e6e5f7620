"""A clip of one person -> pairs (features of a still reference, what the mouth really looked like) for the painter.

The clip is decoded twice: once for the landmarks of every frame, once for the mouth's rectangle of the frames that
are used. A frame's lips are measured in the mouth frame of the reference (rig.py) and written into its parameter row,
so that the motion field moves the reference's lips to where they are in the frame. The reference's face is found and
its head moves as in `generate`: a painter that saw one rig and one pose only paints nonsense when either differs a
little.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from sonic_ms.data.tracking import follow
from sonic_ms.edge import rig as rigs
from sonic_ms.edge.idle import SWAY
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.portrait import prepare_portrait
from sonic_ms.edge.rig import OFFSETS, POSE, TERMS
from sonic_ms.edge.texture import ROI_HEIGHT, ROI_WIDTH
from sonic_ms.errors import FaceError, UsageError
from sonic_ms.face import choose, detect, mesh
from sonic_ms.face.detect import FaceAnalyzer
from sonic_ms.media import video
from sonic_ms.media.image import load_image

MAX_FRAMES = 7500  # five minutes; what comes later is not looked at
MIN_FRAMES = 50  # with a face
MIN_OPEN = 30  # frames that show the inside of the mouth
MAX_OPEN = 500  # of them that are used, spread evenly: more cost memory and add little
OPEN_GAP = 0.15  # half mouth widths between the inner lips from which on a frame shows the inside
MAX_TURN = (20, 20)  # degrees of yaw and pitch that a frame may differ from the reference; a smile alone reads as 10
LOOKED_AT = 250  # frames that may become the reference
SOON = 10  # frames before and after it in which no hand may come near
CLEAR = 33  # percent of these frames that count as surely not covered
LOWER_FACE = 64  # pixels of the average face they are compared on
NOSE_BASE = (2, 97, 98, 326, 327)


@dataclass(frozen=True)
class Footage:
    """portrait: portrait.Portrait of the reference; the others one row a used frame, in the order of time: parameters
    float32 (n, N_PARAMETERS), targets float32 (n, 3, 96, 128) in 0..1, numbers (n,) of the frames in the clip.
    frames: length of the clip; notes: list of str for the user; picture: what the portrait was made from, (h, w, 3)."""

    portrait: object
    parameters: np.ndarray
    targets: np.ndarray
    numbers: np.ndarray
    frames: int
    notes: list
    picture: np.ndarray


def track(path):
    """Landmarks of every frame of a clip, None where there is no face."""
    frames = itertools.islice(video.read_video(path), MAX_FRAMES + 1)
    rows = tqdm(follow(frames, detect.FaceAnalyzer()), desc="finding the face", unit="frame", mininterval=2)
    found = [one for _, one in rows]
    seen = sum(one is not None for one in found)
    if not seen:
        raise FaceError(
            f"clip {path}: no face in any of {len(found)} frames; give a clip of one person facing the camera"
        )
    if seen < MIN_FRAMES:
        raise UsageError(
            f"clip {path}: {seen} frames with a face, expected at least {MIN_FRAMES}; give a longer clip, "
            "10 seconds to two minutes of speech are best"
        )
    return found


def parting(points):
    """Distance of the inner lips in half mouth widths; points (468, 2)."""
    corners = points[mesh.LEFT_MOUTH_CORNER] - points[mesh.RIGHT_MOUTH_CORNER]
    return 2 * np.linalg.norm(points[mesh.LOWER_LIP_MIDDLE] - points[mesh.UPPER_LIP_MIDDLE]) / np.linalg.norm(corners)


def portrait_cost(found):
    """{number of a frame with a face: how little it looks like a portrait}: lips closed, facing the camera, as the
    head mostly is."""
    seen = [i for i, one in enumerate(found) if one is not None]
    turns = np.array([mesh.pose(found[i].points)[:2] for i in seen])
    gaps = np.array([parting(found[i].points[:, :2]) for i in seen])
    usual = np.abs(turns - np.median(turns, axis=0)) / (12, 10)
    cost = np.maximum(gaps, 0.04) / 0.04 + np.abs(turns[:, 0]) / 15 + 2 * usual.sum(1)
    return dict(zip(seen, cost))


def choose_reference(path, found):
    """Number of the frame that looks most like a portrait and has no hand before the mouth.

    The mesh draws lips on a hand as well: what covers the face is seen by comparing the lower face with its median
    over the whole clip.
    """
    cost = portrait_cost(found)
    seen = np.array(list(cost))
    looked_at = seen[np.linspace(0, len(seen) - 1, min(LOOKED_AT, len(seen))).astype(int)].tolist()
    faces, wanted = {}, set(looked_at)
    for number, rgb in enumerate(itertools.islice(video.read_video(path), looked_at[-1] + 1)):
        if number in wanted:
            faces[number] = lower_face(rgb, found[number].points[:, :2])
    difference = np.abs(np.array(list(faces.values())) - np.median(list(faces.values()), axis=0)).mean(1)
    # a hand comes and goes slowly: a frame is as covered as those around it
    near = np.abs(np.subtract.outer(looked_at, looked_at)) <= SOON
    covered = np.where(near, difference, 0).max(1)
    clear = [number for number, one in zip(looked_at, covered) if one <= np.percentile(covered, CLEAR)]
    return min(clear, key=cost.get)


def lower_face(rgb, points):
    """Skin around the mouth on the average face, in its own median light: float32 (n,)."""
    import cv2

    still = mesh.average_face((0, 0, LOWER_FACE, LOWER_FACE))[:, :2]
    matrix = mesh.rigid_motion(points, still)
    grey = cv2.warpAffine(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), matrix, (LOWER_FACE, LOWER_FACE), flags=cv2.INTER_AREA)
    mask = np.zeros_like(grey)
    cv2.fillConvexPoly(mask, np.round(still[list(mesh.FACE_OVAL)]).astype(np.int32), 1)
    mask[: int(still[mesh.NOSE_TIP, 1])] = 0
    skin = grey[mask > 0].astype(np.float32)
    return skin / max(np.median(skin), 1)


def align(points, still):
    """(2, 3) matrix that carries a frame's points (468, 2) onto the reference's, still (468, 2), for the mouth.

    Scale from the points that speech does not move, the turn and sideways place from the mouth's corners, which the
    motion field cannot move apart from each other, the height from the base of the nose, as the upper teeth have it.
    """
    scale = np.hypot(*mesh.rigid_motion(points, still)[:, 0])
    corners = [mesh.RIGHT_MOUTH_CORNER, mesh.LEFT_MOUTH_CORNER]
    own, other = (p[corners[1]] - p[corners[0]] for p in (points, still))
    angle = np.arctan2(other[1], other[0]) - np.arctan2(own[1], own[0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    along = other / np.linalg.norm(other)
    across = np.array([-along[1], along[0]])
    mouth = still[corners].mean(0) - turn @ points[corners].mean(0)
    nose = still[list(NOSE_BASE)].mean(0) - turn @ points[list(NOSE_BASE)].mean(0)
    shift = along * (mouth @ along) + across * (nose @ across)
    return np.column_stack([turn, shift])


def head_poses(rng, n):
    """(n, 6) poses in the order of rig.POSE, as far from the photo's as idle motion goes."""
    poses = np.zeros((n, len(POSE)))
    for name, amplitude in SWAY.items():
        poses[:, POSE.index(name)] = rng.normal(0, amplitude, n)
    return poses


def move_head(matrix, row):
    """matrix (2, 3) to crop units, followed by the motion of the head in a parameter row: the reverse of
    FaceField.head, inside the face."""
    centre = row[OFFSETS["head"] : OFFSETS["head"] + 2]
    x, y, roll, zoom = row[OFFSETS["pose"] : OFFSETS["pose"] + 4]
    forth = np.linalg.inv([[1 - zoom, roll], [-roll, 1 - zoom]])
    return np.column_stack([forth @ matrix[:, :2], forth @ (matrix[:, 2] - centre + (x, y)) + centre])


def parameter_row(rig, points, pose):
    """The row of renderer parameters that moves the reference's lips to `points`, (468, 2) aligned, in crop units, and
    its head by pose (6,), in the order of rig.POSE."""
    row = rigs.frame_parameters(rig, np.zeros((1, 8)), pose[None])[0]
    middle, axis, half = rig.mouth[:2], rig.mouth[2:4], rig.mouth[4]

    def local(indices):
        return rigs._to_frame(points[list(indices)], middle, axis, half)

    corners = local([mesh.RIGHT_MOUTH_CORNER, mesh.LEFT_MOUTH_CORNER])
    stretch = (corners[1, 0] - corners[0, 0]) / 2 - 1
    raised = corners[:, 1].mean()
    target = []
    for indices in (mesh.OUTER_UPPER_LIP, mesh.INNER_UPPER_LIP, mesh.INNER_LOWER_LIP, mesh.OUTER_LOWER_LIP):
        lip = local(indices) / np.array([1 + stretch, 1])
        lip[:, 1] -= raised * np.clip(lip[:, 0], -1, 1) ** 2
        target.append(rigs._fit_contour(lip) + raised * np.eye(TERMS)[5])
    target = np.stack(target)
    crossing = np.minimum(0, target[2, 0] - target[1, 0])  # as in build_rig
    target[1, 0] += crossing / 2
    target[2, 0] -= crossing / 2
    gap = target[2, 0] - target[1, 0]
    chin = max(0.0, local([mesh.CHIN])[0, 1] - rig.face[1])
    jaw = chin / (rigs.CHIN_DROP * rig.scale)
    rounding = np.clip(-stretch / (rigs.NARROW + rigs.ROUND_NARROW), 0, 1)

    def put(name, values, first=0):
        start = OFFSETS[name] + first
        row[start : start + np.size(values)] = np.ravel(values)

    put("width", stretch)
    put("target", target)
    put("chin", chin)
    put("teeth", rigs.lower_teeth(chin, target[2, 0] - rig.seam[0]))
    put("paint", [gap, jaw, 0.0, rounding])
    return row


def lower_the_teeth(footage, amount):
    """The Footage with rows that place both rows of teeth further down by `amount` half mouth widths."""
    rows = footage.parameters.copy()
    seam = rows[:, OFFSETS["seam"]]  # a view of the middle of the line that the teeth hang from
    seam += amount
    lower_lip = rows[:, OFFSETS["target"] + 2 * TERMS]
    rows[:, OFFSETS["teeth"]] = rigs.lower_teeth(rows[:, OFFSETS["chin"]], lower_lip - seam)
    return replace(footage, parameters=rows)


def rectangle(rgb, matrix, roi):
    """The mouth's rectangle of a frame: (3, 96, 128) float32 in 0..1. matrix: frame pixels -> crop units."""
    import cv2

    scale = np.array([ROI_WIDTH / roi[2], ROI_HEIGHT / roi[3]])
    to_roi = scale[:, None] * (matrix - np.column_stack([np.zeros((2, 2)), roi[:2]]))
    to_roi[:, 2] += to_roi @ (0.5, 0.5, 0) - 0.5  # crop units count from the edge, pixels from their centres
    shrink = np.sqrt(abs(np.linalg.det(to_roi[:, :2])))
    if shrink < 1:  # no aliasing
        rgb = cv2.GaussianBlur(rgb, (0, 0), 0.45 * np.sqrt(1 / shrink**2 - 1) + 1e-3)
    out = cv2.warpAffine(rgb, to_roi, (ROI_WIDTH, ROI_HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return out.transpose(2, 0, 1).astype(np.float32) / 255


def reference(path, found):
    """(number, picture) of the frame that looks most like a portrait, see `choose_reference`."""
    number = choose_reference(path, found)
    return number, next(itertools.islice(video.read_video(path), number, None))


def still_points(portrait, landmarks, shape):
    """The reference's landmarks in crop units, (468, 2); as prepare_portrait places them."""
    scale = np.array([portrait.frame.shape[1] / shape[1], portrait.frame.shape[0] / shape[0]])
    x, y, length = portrait.box
    return ((landmarks.points[:, :2] + 0.5) * scale - np.array([x, y])) / length


def is_turned(one, still_turn):
    """Whether a frame's Landmarks are turned away from the reference's yaw and pitch by more than MAX_TURN."""
    return bool((np.abs(np.subtract(mesh.pose(one.points)[:2], still_turn)) > MAX_TURN).any())


def aligned(one, still):
    """(matrix from frame pixels to crop units, points (468, 2) in crop units) of a frame's Landmarks, see `align`."""
    points = one.points[:, :2].astype(np.float64) + 0.5
    matrix = align(points, still)
    return matrix, points @ matrix[:, :2].T + matrix[:, 2]


def select(found, still, still_turn):
    """Frames with an open mouth and the head as in the reference, evenly thinned: list of (number, matrix from frame
    pixels to crop units, points (468, 2) in crop units)."""
    chosen = []
    for number, one in enumerate(found):
        if one is None or parting(one.points[:, :2]) < OPEN_GAP:
            continue
        if is_turned(one, still_turn):
            continue
        chosen.append((number, *aligned(one, still)))
    if len(chosen) > MAX_OPEN:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, MAX_OPEN).round().astype(int)]
    return chosen


def read_footage(path, photo=None):
    """Footage of a clip. Raises InputMissingError, FaceError, UsageError for clips that cannot serve."""
    everything = track(path)
    found = everything[:MAX_FRAMES]
    picture = reference(path, found)[1] if photo is None else load_image(photo)
    landmarks, notes = choose.find_mesh(picture, FaceAnalyzer())  # not as tracked: so `generate` will find them
    portrait = prepare_portrait(picture, landmarks, EdgeOptions())
    if len(everything) > MAX_FRAMES:
        notes.append(f"only the first {MAX_FRAMES} frames of the clip are used")
    still = still_points(portrait, landmarks, picture.shape)
    chosen = select(found, still, mesh.pose(landmarks.points)[:2])
    _require_open(path, len(chosen))
    rig = portrait.rig
    poses = head_poses(np.random.default_rng(0), len(chosen))
    wanted = {number: (matrix, points, pose) for (number, matrix, points), pose in zip(chosen, poses)}
    rows, targets, numbers = [], [], []
    for number, rgb in enumerate(itertools.islice(video.read_video(path), chosen[-1][0] + 1)):
        if number in wanted:
            matrix, points, pose = wanted[number]
            rows.append(parameter_row(rig, points, pose))
            targets.append(rectangle(rgb, move_head(matrix, rows[-1]), rig.roi))
            numbers.append(number)
    return Footage(portrait, np.array(rows), np.array(targets), np.array(numbers), len(found), notes, picture)


def _require_open(path, count):
    if count < MIN_OPEN:
        raise UsageError(
            f"clip {path}: {count} frames show the inside of the mouth with the head as in the reference, expected at "
            f"least {MIN_OPEN}; give a clip of someone who speaks, facing the camera"
        )
