"""Motion field of sonic-edge: parameter rows (rig.py) -> backward flow and mouth masks. Portable operators only.

Everything is a closed formula per pixel, evaluated where it is needed: on a coarse grid over the whole crop, and on
the fine grid of the mouth. The lips are two layers with their own flow (upper lip and face, lower lip and jaw), so that
nothing is smeared across the opening between them.
"""

import numpy as np
from mindspore import Tensor, nn, ops

from sonic_ms.edge.rig import OFFSETS, TERMS
from sonic_ms.nn.portable import stack

FADE = 2.2  # distance in half mouth widths at which the cheeks no longer follow the mouth's width


def clip01(x):
    return ops.clip_by_value(x, 0.0, 1.0)


def smooth01(x):
    """0 below 0, 1 above 1, a cubic with flat ends between: no crease where two regions of skin meet."""
    x = clip01(x)
    return x * x * (3.0 - 2.0 * x)


class Columns(nn.Cell):
    """Picks columns of the parameter rows: (b, n) -> (b, 1, 1) scalars per frame."""

    def construct(self, parameters, column):
        return ops.reshape(parameters[:, column : column + 1], (-1, 1, 1))


class MouthField(nn.Cell):
    """Flow of mouth, chin and cheeks in the mouth frame (rig.py).

    Inputs u, v: (b or 1, h, w), where to look, in half mouth widths; parameters (b, N_PARAMETERS).
    Returns, each (b, h, w): source u, source v for the upper layer, source v for the lower layer, and the distances
    below the inner edge of the upper lip and above that of the lower lip (both positive inside the mouth).
    """

    def __init__(self):
        super().__init__()
        self.column = Columns()
        # rows: four contours in this frame, then their displacement (target - source)
        matrix = np.zeros((8, 8), np.float32)
        matrix[:4, 4:] = np.eye(4)
        matrix[4:, :4] = -np.eye(4)
        matrix[4:, 4:] = np.eye(4)
        self.mix = Tensor(matrix)

    def construct(self, u, v, parameters):
        batch = parameters.shape[0]
        height, width = v.shape[1], v.shape[2]
        stretch = self.column(parameters, OFFSETS["width"])
        un = u / (1.0 + stretch)  # +-1 at the corners of this frame's mouth
        c = ops.clip_by_value(un, -1.0, 1.0)
        c2 = c * c
        arch = 1.0 - c2
        arch2 = arch * c2
        basis = stack((arch, arch * c, arch2, arch2 * c, arch2 * c2, c2), 1)  # (b, 6, h, w)
        basis = ops.reshape(basis, (batch, TERMS, height * width))
        both = parameters[:, OFFSETS["source"] : OFFSETS["source"] + 8 * TERMS]
        both = ops.matmul(self.mix, ops.reshape(both, (batch, 8, TERMS)))
        contours = ops.reshape(ops.matmul(both, basis), (batch, 8, height, width))
        outer_upper, inner_upper, inner_lower, outer_lower, move_ou, move_iu, move_il, move_ol = [
            ops.reshape(plane, (batch, height, width)) for plane in ops.split(contours, 1, 1)
        ]

        nose = self.column(parameters, OFFSETS["face"])
        chin_v = self.column(parameters, OFFSETS["face"] + 1)
        chin_bend = self.column(parameters, OFFSETS["face"] + 2)
        jaw = self.column(parameters, OFFSETS["face"] + 3)
        neck = self.column(parameters, OFFSETS["face"] + 4)
        drop = self.column(parameters, OFFSETS["chin"])

        side = clip01(1.0 - ops.square(u / jaw))
        drop = drop * side * side
        chin = chin_v - chin_bend * ops.square(ops.clip_by_value(u, -1.6, 1.6)) + drop

        above = smooth01((v - nose) / (outer_upper - nose))
        upper = clip01((v - outer_upper) / ops.maximum(inner_upper - outer_upper, Tensor(0.03)))
        lower = clip01((v - inner_lower) / ops.maximum(outer_lower - inner_lower, Tensor(0.03)))
        below = smooth01((v - outer_lower) / ops.maximum(chin - outer_lower, Tensor(0.1)))
        under = smooth01((v - chin) / neck)

        move_up = move_ou * above + (move_iu - move_ou) * upper
        move_low = move_il + (move_ol - move_il) * lower + (drop - move_ol) * below - drop * under

        reach = 1.0 - smooth01((ops.abs(un) - 1.0) / (FADE - 1.0))
        level = (0.15 + 0.85 * above) * smooth01(v - nose + 1.0) * (1.0 - 0.6 * below) * (1.0 - under)
        source_u = u - stretch * un * reach * level
        beyond = 2.0 * ops.relu(ops.abs(un) - 0.98)  # outside the corners nothing is inside the mouth
        return source_u, v - move_up, v - move_low, v - inner_upper - beyond, inner_lower - v - beyond

    def contour(self, c, parameters, first):
        """v of a contour of the photo (its c5 is 0) whose coefficients start at column `first`, at c: u clipped to
        +-1; (b, h, w)."""
        a0, a1, a2 = (self.column(parameters, first + i) for i in range(3))
        a3, a4 = self.column(parameters, first + 3), self.column(parameters, first + 4)
        return (1.0 - c * c) * (a0 + c * (a1 + c * (a2 + c * (a3 + c * a4))))

    def source_distances(self, u, v, parameters):
        """Distances below the upper and above the lower inner lip edge of the photo itself, (b, h, w) each."""
        c = ops.clip_by_value(u, -1.0, 1.0)
        beyond = 2.0 * ops.relu(ops.abs(u) - 0.98)
        upper, lower = OFFSETS["source"] + TERMS, OFFSETS["source"] + 2 * TERMS
        below = v - self.contour(c, parameters, upper) - beyond
        return below, self.contour(c, parameters, lower) - v - beyond


class FaceField(nn.Cell):
    """Flow of the whole crop. Inputs x, y: (1, h, w) crop units in [0, 1]; parameters (b, N_PARAMETERS).

    Returns six fields (b, h, w): source x and y of the upper layer, source x and y of the lower layer, and the two lip
    distances in crop units. Brows and lids are part of it; `mouth_fields` leaves them out and tells more of the mouth.
    """

    def __init__(self):
        super().__init__()
        self.column = Columns()
        self.mouth = MouthField()

    def fade(self, distance):
        """0 at the border of the crop, 1 from a tenth of it inwards."""
        return smooth01((distance - 0.01) * 11.0)

    def head(self, x, y, parameters):
        """Where a pixel was before the head moved: inverse of shift, roll and zoom, fading to none outside the head."""
        centre_x = self.column(parameters, OFFSETS["head"])
        centre_y = self.column(parameters, OFFSETS["head"] + 1)
        radius_x = self.column(parameters, OFFSETS["head"] + 2)
        radius_y = self.column(parameters, OFFSETS["head"] + 3)
        shift_x = self.column(parameters, OFFSETS["pose"])
        shift_y = self.column(parameters, OFFSETS["pose"] + 1)
        roll = self.column(parameters, OFFSETS["pose"] + 2)
        zoom = self.column(parameters, OFFSETS["pose"] + 3)
        dx, dy = x - centre_x, y - centre_y
        distance = ops.sqrt(ops.square(dx / radius_x) + ops.square(dy / radius_y))
        border = self.fade(x) * self.fade(1.0 - x) * self.fade(y) * self.fade(1.0 - y)
        weight = (1.0 - smooth01((distance - 1.0) / 0.9)) * border
        # small angles: the rotation's second-order terms are below a tenth of a pixel
        move_x = shift_x - roll * dy + zoom * dx
        move_y = shift_y + roll * dx + zoom * dy
        return x - weight * move_x, y - weight * move_y

    def lid(self, x, y, parameters, index):
        """Vertical move of the skin above one eye as its lid closes."""
        first = OFFSETS["eyes"] + 11 * index
        cos, sin = self.column(parameters, first + 2), self.column(parameters, first + 3)
        half = self.column(parameters, first + 4)
        dx = (x - self.column(parameters, first)) / half
        dy = (y - self.column(parameters, first + 1)) / half
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        c = ops.clip_by_value(u, -1.0, 1.0)
        arch = 1.0 - c * c
        upper = arch * (
            self.column(parameters, first + 5)
            + c * (self.column(parameters, first + 6) + c * self.column(parameters, first + 7))
        )
        lower = arch * (
            self.column(parameters, first + 8)
            + c * (self.column(parameters, first + 9) + c * self.column(parameters, first + 10))
        )
        upper, lower = upper - 0.1 * arch, lower + 0.25 * arch  # lashes above the upper edge, no eye left below
        move = self.column(parameters, OFFSETS["lids"] + index) * (lower - upper)
        edge = upper + move
        skin = smooth01((v - upper + 0.55) / (move + 0.55))  # stretched from the crease above the lid to its edge
        on_lid = clip01((edge - v) * 8.0 + 1.0)
        return half * move * skin * on_lid

    def brow(self, x, y, parameters, index):
        first = OFFSETS["brows"] + 3 * index
        radius = self.column(parameters, first + 2)
        dx = (x - self.column(parameters, first)) / (1.5 * radius)
        dy = (y - self.column(parameters, first + 1)) / (0.9 * radius)
        bump = smooth01(1.0 - dx * dx) * smooth01(1.0 - dy * dy)
        return self.column(parameters, OFFSETS["lift"]) * bump

    def mouth_fields(self, x, y, parameters):
        """Twelve fields (b, h, w): source x and y of the upper layer, source x and y of the lower layer, the two lip
        distances in crop units, mouth-frame u and v, the place before the head moved x and y, and the photo's own two
        lip distances in half mouth widths."""
        x, y = self.head(x, y, parameters)
        mouth_x, mouth_y = self.column(parameters, 0), self.column(parameters, 1)
        cos, sin = self.column(parameters, 2), self.column(parameters, 3)
        half = self.column(parameters, 4)
        dx, dy = (x - mouth_x) / half, (y - mouth_y) / half
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        source_u, upper_v, lower_v, below_upper, above_lower = self.mouth(u, v, parameters)
        upper_x = mouth_x + half * (cos * source_u - sin * upper_v)
        upper_y = mouth_y + half * (sin * source_u + cos * upper_v)
        lower_x = mouth_x + half * (cos * source_u - sin * lower_v)
        lower_y = mouth_y + half * (sin * source_u + cos * lower_v)
        own_below, own_above = self.mouth.source_distances(u, v, parameters)
        distances = (below_upper * half, above_lower * half)
        return upper_x, upper_y, lower_x, lower_y, *distances, u, v, x, y, own_below, own_above

    def construct(self, x, y, parameters):
        upper_x, upper_y, lower_x, lower_y, below, above, _, _, x, y, _, _ = self.mouth_fields(x, y, parameters)
        rest = self.brow(x, y, parameters, 0) + self.brow(x, y, parameters, 1)
        rest = rest - self.lid(x, y, parameters, 0) - self.lid(x, y, parameters, 1)
        return upper_x, upper_y + rest, lower_x, lower_y + rest, below, above
