"""Landmarks + curves -> the numbers that steer the motion field. NumPy, on the host.

A `Rig` describes one photo's face in crop units (the crop is a square of side 1): the mouth's own axes, its lip
contours as small polynomials, eyes, brows, chin and head. `frame_parameters` turns articulation curves and head pose
into one row of numbers a frame, the only input that changes from frame to frame in the renderer.

Mouth frame: origin between the mouth corners, u along the corners' line (+-1 at the corners), v perpendicular and
downwards, both in half mouth widths (hw). A lip contour is v(u) = (1 - u^2) * (c0 + c1 u + ... + c4 u^4) + c5 u^2.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from sonic_ms.edge.curves import CORNERS, JAW, LOWER, OPEN, ROUND, TONGUE, UPPER, WIDTH
from sonic_ms.face import mesh

TERMS = 6  # coefficients of one contour

# How far the mouth moves at curve value 1, in half mouth widths (an average adult mouth is 50 mm wide: hw = 25 mm)
MAX_GAP = 1.1  # inner lips at open = 1, which only shouting reaches: about 27 mm
CHIN_DROP = 0.5
WIDEN, NARROW = 0.10, 0.22
ROUND_NARROW = 0.06
CORNER_LIFT = 0.16
UPPER_SHARE = 0.22  # part of the gap that the upper lip gives; the jaw gives the rest
UPPER_RAISE = 0.09
LOWER_TUCK = 0.05
ROUND_THICKEN = 0.22
REFERENCE_WIDTH = 0.185  # half mouth width over face height of a relaxed mouth: wider is a smile, not a larger mouth
SMILE_RELAX = 0.18  # how much narrower than in the photo a mouth is that smiles there with parted lips
LIP_MARGIN = 0.04  # taken off the edges of parted lips, so that no bright edge of the teeth behind them comes along
ROI_SPAN = (3.0, 2.25)  # width and height of the painter's rectangle, in half mouth widths
ROI_ABOVE = 0.85  # of it above the mouth's centre
PRESS_THIN = 0.9  # lip thickness lost per unit of negative `open`
REST_PRESS = 0.2  # how much lips are pressed at rest that the photo shows parted: closed lips of a smile are thin
SEAM = 0.05  # where between parted lips they meet, from upper to lower: the jaw closes a mouth
UPPER_TEETH = 0.07  # how far the upper teeth hang below the closed lips' line
LOWER_TEETH = 0.15  # most that the lower teeth stand out behind the lower lip's edge

# Columns of the parameter row. Each entry: name -> number of columns.
LAYOUT = {
    "mouth": 5,  # x, y, cos, sin, hw in crop units
    "width": 1,  # relative change of mouth width
    "source": 4 * TERMS,  # contours in the photo: outer upper, inner upper, inner lower, outer lower
    "target": 4 * TERMS,  # the same contours in this frame
    "face": 5,  # nose base v, chin v, chin curvature, jaw half-width u, neck length v
    "chin": 1,  # chin drop in hw
    "head": 4,  # centre x, y and radii x, y in crop units
    "pose": 4,  # shift x, y in crop units, roll in radians, zoom
    "eyes": 2 * 11,  # per eye: x, y, cos, sin, half-width, upper lid c0 c1 c2, lower lid c0 c1 c2
    "lids": 2,  # closing of each eye, 0..1
    "brows": 2 * 3,  # per brow: x, y, radius in crop units
    "lift": 1,  # brow lift in crop units
    "seam": TERMS,  # contour of the closed lips' line
    "teeth": 1,  # how far the edge of the lower teeth lies below that line, in hw
    # what the painter is told: gap at the middle in hw, jaw, tongue, rounding, gap in the photo, light (r, g, b)
    "paint": 5 + 3,
    "roi": 4,  # x, y, width, height of the painter's rectangle in crop units
}
OFFSETS = dict(zip(LAYOUT, np.cumsum([0, *LAYOUT.values()]).tolist()))
N_PARAMETERS = sum(LAYOUT.values())

# Head pose of a frame, besides the mouth. Order of the columns of `pose` in frame_parameters.
POSE = ("shift_x", "shift_y", "roll", "zoom", "blink", "brow")  # face heights, face heights, radians, share, 0..1, 0..1


@dataclass(frozen=True)
class Rig:
    """One face in crop units; see the module's header for the mouth frame."""

    mouth: np.ndarray  # (5,)
    source: np.ndarray  # (4, TERMS)
    seam: np.ndarray  # (TERMS,) the line where the closed lips meet
    face: np.ndarray  # (5,)
    head: np.ndarray  # (4,)
    eyes: np.ndarray  # (2, 11)
    brows: np.ndarray  # (2, 3)
    height: float  # face height in crop units
    light: np.ndarray = field(default_factory=lambda: np.ones(3))  # see `with_light`

    @property
    def scale(self):
        """Openings are lengths of the skull: a mouth that a smile makes wider does not open further."""
        return min(1.0, REFERENCE_WIDTH * self.height / self.mouth[4])

    @property
    def gap(self):
        """Distance of the inner lips in the photo, in half mouth widths."""
        return self.source[2, 0] - self.source[1, 0]

    @property
    def roi(self):
        """The painter's rectangle (x, y, w, h): upright, ROI_SPAN large, around the mouth."""
        half = self.mouth[4]
        return np.array([
            self.mouth[0] - ROI_SPAN[0] / 2 * half, self.mouth[1] - ROI_ABOVE * half,
            ROI_SPAN[0] * half, ROI_SPAN[1] * half,
        ])  # fmt: skip


def _basis(u):
    """(n,) -> (n, TERMS), see the header; beyond the corners the contour stays at its corner value."""
    u = np.clip(u, -1, 1)
    shape = 1 - u**2
    return np.stack([shape, shape * u, shape * u**2, shape * u**3, shape * u**4, u**2], axis=1)


def _fit_contour(points):
    """Least squares with a little damping on the high terms, so that a noisy landmark bends nothing."""
    basis = _basis(points[:, 0])[:, :5]
    damping = np.diag([1e-4, 1e-3, 1e-3, 1e-2, 1e-2])
    coefficients = np.linalg.solve(basis.T @ basis + damping, basis.T @ points[:, 1])
    return np.append(coefficients, 0.0)


def _axes(left, right):
    """Origin, (cos, sin) and half distance of the line between two points."""
    middle, half = (left + right) / 2, (right - left) / 2
    length = np.linalg.norm(half)
    return middle, half / length, length


def _to_frame(points, middle, axis, half):
    relative = (points - middle) / half
    return np.stack([relative @ axis, relative @ np.array([-axis[1], axis[0]])], axis=1)


def _eye(points, upper, lower):
    middle, axis, half = _axes(points[upper[0]], points[upper[-1]])
    coefficients = []
    for indices in (upper, lower):
        local = _to_frame(points[list(indices)], middle, axis, half)
        basis = _basis(local[:, 0])[:, :3]
        coefficients.append(np.linalg.lstsq(basis, local[:, 1], rcond=None)[0])
    return np.concatenate([middle, axis, [half], *coefficients])


def _partedness(gap):
    """0 for closed lips, 1 from a quarter of half a mouth width on."""
    return float(np.clip(gap / 0.25, 0, 1))


def build_rig(points):
    """468 landmarks in crop units, (468, 2) -> Rig."""
    points = np.asarray(points, np.float64)[:, :2]
    middle, axis, half = _axes(points[mesh.RIGHT_MOUTH_CORNER], points[mesh.LEFT_MOUTH_CORNER])

    def local(indices):
        return _to_frame(points[list(indices)], middle, axis, half)

    lips = (mesh.OUTER_UPPER_LIP, mesh.INNER_UPPER_LIP, mesh.INNER_LOWER_LIP, mesh.OUTER_LOWER_LIP)
    source = np.stack([_fit_contour(local(indices)) for indices in lips])
    # the mesh lets closed lips cross by a hair: the inner contours must not
    crossing = np.minimum(0, source[2] - source[1])[0]
    source[1, 0] += crossing / 2
    source[2, 0] -= crossing / 2
    margin = LIP_MARGIN * _partedness(source[2, 0] - source[1, 0])
    source[1, 0] -= margin
    source[2, 0] += margin
    seam = source[1] + SEAM * (source[2] - source[1])

    oval = local(mesh.FACE_OVAL)
    chin = local([mesh.CHIN])[0]
    below = oval[(oval[:, 1] > 0.55 * chin[1]) & (np.abs(oval[:, 0]) < 1.6)]
    curvature = np.sum((chin[1] - below[:, 1]) * below[:, 0] ** 2) / (np.sum(below[:, 0] ** 4) + 1e-6)
    at_mouth = oval[np.abs(oval[:, 1]) < 0.8]
    jaw = np.abs(at_mouth[:, 0]).min() if len(at_mouth) else 1.8
    nose = local([2])[0, 1]
    shape = np.array([nose, chin[1], np.clip(curvature, 0, 0.6), np.clip(jaw, 1.2, 2.6), 1.3])

    height = np.linalg.norm(points[mesh.FOREHEAD] - points[mesh.CHIN])
    width = np.ptp(points[list(mesh.FACE_OVAL), 0])
    centre = (points[mesh.FOREHEAD] + points[mesh.CHIN]) / 2 - np.array([0, 0.1 * height])
    head = np.array([*centre, 0.62 * width, 0.78 * height])

    brows = []
    for upper, lower in (
        (mesh.RIGHT_BROW_UPPER, mesh.RIGHT_BROW_LOWER),
        (mesh.LEFT_BROW_UPPER, mesh.LEFT_BROW_LOWER),
    ):
        brow = points[list(upper + lower)]
        brows.append([*brow.mean(axis=0), 0.55 * np.ptp(brow[:, 0])])
    eyes = np.stack(
        [
            _eye(points, mesh.RIGHT_EYE_UPPER, mesh.RIGHT_EYE_LOWER),
            _eye(points, mesh.LEFT_EYE_UPPER, mesh.LEFT_EYE_LOWER),
        ]
    )
    return Rig(np.array([*middle, *axis, half]), source, seam, shape, head, eyes, np.array(brows), float(height))


def scene_light(skin):
    """(3,) light factor, 1 = well lit, from the skin's colour (3,) in 0..1: brightness, with a third of its tint."""
    level = np.clip(0.3 + 0.7 * skin.mean() / 0.62, 0.35, 1.1)  # teeth are lighter than skin, most so on dark skin
    tint = skin / (skin.mean() + 1e-6) / np.array([1.22, 0.98, 0.80])
    return level * np.clip(tint, 0.6, 1.5) ** 0.33


def with_light(rig, crop):
    """The rig with the light that falls on the mouth, measured on the skin around it. crop: (R, R, 3) in 0..255."""
    u, v = (axis.ravel() for axis in np.meshgrid(np.linspace(-1.4, 1.4, 57), np.linspace(-0.8, 1.3, 43)))
    upper, lower = _basis(u) @ rig.source[0], _basis(u) @ rig.source[3]
    skin = (v < upper - 0.1) | (v > lower + 0.1)
    u, v = u[skin], v[skin]
    middle, (cos, sin), half = rig.mouth[:2], rig.mouth[2:4], rig.mouth[4]
    places = middle + half * np.stack([cos * u - sin * v, sin * u + cos * v], axis=1)
    column, row = np.clip((places * crop.shape[0]).astype(int), 0, crop.shape[0] - 1).T
    return replace(rig, light=scene_light(np.median(crop[row, column], axis=0) / 255.0))


def lower_teeth(chin, lower_lip):
    """How far the edge of the lower teeth lies below the closed lips' line: they follow the jaw, and the lower lip
    hides all but LOWER_TEETH of them. chin, lower_lip: how far these have moved down. All in half mouth widths."""
    return np.maximum(0.95 * chin, lower_lip - LOWER_TEETH) + UPPER_TEETH - 0.02


def _target_contours(rig, curves):
    """Lip contours of every frame, (n, 4, TERMS)."""
    gap = MAX_GAP * rig.scale * np.maximum(curves[:, OPEN], 0)[:, None]
    closed = np.clip(1 - curves[:, OPEN] / 0.15, 0, 1)
    press = np.maximum(-curves[:, OPEN], REST_PRESS * _partedness(rig.gap) * closed)[:, None]
    tuck, lift = curves[:, LOWER, None], curves[:, UPPER, None]
    rounding = np.clip(curves[:, ROUND], 0, 1)[:, None]
    parabola = np.zeros(TERMS)
    parabola[0] = 1.0
    corner = np.zeros(TERMS)
    corner[5] = -CORNER_LIFT
    raised = curves[:, CORNERS, None] * corner

    # An open gap is a bit squarer than a parabola: the term in u^2 keeps its width when it is small.
    opening = parabola + 0.35 * np.eye(TERMS)[2]
    speaking = np.clip(gap / 0.2, 0, 1)  # raising and tucking show only on a mouth that speaks
    # an upper lip that a smile has raised already does not rise further
    free = 1 - _partedness(rig.gap)
    share = UPPER_SHARE * free
    inner_upper = rig.seam - (share * gap + UPPER_RAISE * free * lift * speaking) * opening + raised
    inner_lower = rig.seam + (1 - share) * gap * opening - LOWER_TUCK * tuck * speaking * parabola + raised
    inner_lower = inner_upper + _positive_part(inner_lower - inner_upper)

    thick_upper = (rig.source[1] - rig.source[0]) * (1 + ROUND_THICKEN * rounding - PRESS_THIN * press)
    thick_lower = (rig.source[3] - rig.source[2]) * (1 + ROUND_THICKEN * rounding - PRESS_THIN * press - 0.25 * tuck)
    # skin follows the lip's inner edge only partly, so a lip that moves a lot also stretches a little
    pull_upper = 0.18 * (inner_upper - rig.source[1])
    pull_lower = 0.10 * (inner_lower - rig.source[2])
    outer_upper = inner_upper - thick_upper - pull_upper
    outer_lower = inner_lower + thick_lower - pull_lower
    return np.stack([outer_upper, inner_upper, inner_lower, outer_lower], axis=1)


def _positive_part(gap):
    """A gap polynomial never turns negative at the middle: lips press, they do not cross."""
    return np.where(gap[:, :1] > 0, gap, 0.0)


def frame_parameters(rig, curves, pose):
    """One row of renderer parameters a frame: float32 (n, N_PARAMETERS), columns as in LAYOUT.

    curves: (n, 8) articulation curves; pose: (n, 6) in the order of POSE.
    """
    n = len(curves)
    width = curves[:, WIDTH]
    width = np.where(width > 0, WIDEN * width, NARROW * width) - ROUND_NARROW * np.clip(curves[:, ROUND], 0, 1)
    width = width - SMILE_RELAX * _partedness(rig.gap)
    chin = CHIN_DROP * rig.scale * np.clip(curves[:, JAW], 0, 1.5)
    target = _target_contours(rig, curves)
    middle_gap = target[:, 2, 0] - target[:, 1, 0]

    def still(values):
        return np.broadcast_to(np.ravel(values), (n, np.size(values)))

    columns = {
        "mouth": still(rig.mouth),
        "width": width[:, None],
        "source": still(rig.source),
        "target": target.reshape(n, -1),
        "face": still(rig.face),
        "chin": chin[:, None],
        "head": still(rig.head),
        "pose": pose[:, :4] * np.array([rig.height, rig.height, 1, 1]),
        "eyes": still(rig.eyes),
        "lids": np.repeat(pose[:, 4:5], 2, axis=1),
        "brows": still(rig.brows),
        "lift": pose[:, 5:6] * 0.035 * rig.height,
        "seam": still(rig.seam),
        "teeth": lower_teeth(chin, target[:, 2, 0] - rig.seam[0])[:, None],
        "paint": np.stack(
            [
                middle_gap,
                curves[:, JAW],
                np.clip(curves[:, TONGUE], 0, 1),
                np.clip(curves[:, ROUND], 0, 1),
                np.full(n, rig.gap),
                *np.broadcast_to(rig.light, (n, 3)).T,
            ],
            axis=1,
        ),
        "roi": still(rig.roi),
    }
    return np.concatenate([columns[name] for name in LAYOUT], axis=1).astype(np.float32)


def seen_curves(rig, row, curves):
    """What a row of parameters says about one frame's curves: JAW, OPEN and WIDTH as frame_parameters would turn them
    into this row, the others as given in `curves`, (8,).

    Closed lips look the same however hard they are pressed. OPEN is the whole gap of the lips: the little that UPPER
    and LOWER add to it or take is not told apart.
    """
    seen = np.array(curves, np.float32)
    gap = row[OFFSETS["paint"]]
    seen[JAW] = row[OFFSETS["chin"]] / (CHIN_DROP * rig.scale)
    seen[OPEN] = gap / (MAX_GAP * rig.scale) if gap > 0 else min(0.0, seen[OPEN])
    width = row[OFFSETS["width"]] + ROUND_NARROW * np.clip(seen[ROUND], 0, 1) + SMILE_RELAX * _partedness(rig.gap)
    seen[WIDTH] = width / (WIDEN if width > 0 else NARROW)
    return seen
