"""Picture side of sonic-edge: one photo's texture + parameter rows -> video frames. Portable operators only.

The photo is sampled once, at its own pixel grid (twice oversampled), through the flow of motion.py; a small UNet paints
what no photo shows: teeth, tongue and the dark of an opening mouth, and the shade at the edge of the lips. It works on a
fixed rectangle around the mouth, so its cost does not depend on the size of the video.
"""

from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from sonic_ms.models.edge.motion import Columns, FaceField, clip01
from sonic_ms.models.edge.rig import LAYOUT, OFFSETS

ROI_HEIGHT, ROI_WIDTH = 96, 128  # pixels of the painter's rectangle
COARSE = 128  # grid of the flow over the whole crop; it is smooth, so it is enlarged to the crop's size
OVERSAMPLING = 2  # texels a crop pixel
FEATURES = 3 + 3 + 6 + LAYOUT["paint"]


@dataclass(frozen=True)
class PainterConfig:
    """Channels of the painter at full, 1/2, 1/4 and 1/8 resolution."""

    widths: tuple[int, int, int, int] = (16, 32, 64, 96)


def grid(height, width):
    """Pixel centres in [0, 1]: x and y, each float32 (1, height, width)."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return x[None].astype(np.float32), y[None].astype(np.float32)


def enlarge_matrix(small, large):
    """(large, small) bilinear interpolation between pixel centres; the ends are extrapolated, not clamped, so that a
    linear ramp stays one: an identity flow stays exact."""
    position = (np.arange(large) + 0.5) * small / large - 0.5
    left = np.clip(np.floor(position).astype(int), 0, small - 2)
    weight = position - left
    matrix = np.zeros((large, small), np.float32)
    matrix[np.arange(large), left] = 1 - weight
    matrix[np.arange(large), left + 1] = weight
    return matrix


def pack_texture(crop):
    """(R, R, 3) uint8 or float RGB in 0..255 -> float32 (4 R^2, 12): every texel with its right and lower neighbours.

    One gather of twelve numbers replaces four of three. Texels are twice as dense as pixels and every second one
    is a pixel, so an unmoved pixel comes back unchanged and a moved one stays sharp.
    """
    import cv2

    side = crop.shape[0] * OVERSAMPLING
    to_crop = np.array([[1 / OVERSAMPLING, 0, 0], [0, 1 / OVERSAMPLING, 0]])
    dense = cv2.warpAffine(
        crop, to_crop, (side, side), flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    ).astype(np.float32) / 255
    padded = np.pad(dense, ((0, 1), (0, 1), (0, 0)), mode="edge")
    corners = (padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:])
    return np.concatenate(corners, axis=2).reshape(side * side, 12)


class Sample(nn.Cell):
    """Bilinear lookup in a packed texture. x, y: (b, h, w) crop units -> rgb (b, h, w, 3) in 0..1."""

    def __init__(self, side):
        super().__init__()
        self.side = side  # texels
        self.scale = float(side)
        self.last = float(side - 1)

    def construct(self, texture, x, y):
        batch, height, width = x.shape
        # the first texel lies on the first pixel's centre, half a pixel = one texel from the crop's edge
        x = ops.clip_by_value(x * self.scale - 1.0, 0.0, self.last)
        y = ops.clip_by_value(y * self.scale - 1.0, 0.0, self.last)
        column, row = ops.floor(x), ops.floor(y)
        right, low = x - column, y - row
        index = ops.cast(row * self.scale + column, mstype.int32)
        corners = ops.gather(texture, ops.reshape(index, (-1,)), 0)  # (n, 12)
        shape = (batch * height * width, 1)
        right, low = ops.reshape(right, shape), ops.reshape(low, shape)
        top = corners[:, 0:6]
        upper = top[:, 0:3] + right * (top[:, 3:6] - top[:, 0:3])
        lower = corners[:, 6:9] + right * (corners[:, 9:12] - corners[:, 6:9])
        return ops.reshape(upper + low * (lower - upper), (batch, height, width, 3))


def _conv(in_channels, out_channels, stride=1):
    return nn.Conv2d(in_channels, out_channels, 3, stride, pad_mode="pad", padding=1, has_bias=True)


class ConvBlock(nn.Cell):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv = _conv(in_channels, out_channels, stride)
        self.norm = nn.BatchNorm2d(out_channels)

    def construct(self, x):
        return ops.relu(self.norm(self.conv(x)))


class Enlarge(nn.Cell):
    """Nearest-neighbour x2 of (b, c, h, w) by reshape and tile."""

    def construct(self, x):
        b, c, h, w = x.shape
        x = ops.tile(ops.reshape(x, (b, c * h, 1, w)), (1, 1, 2, 1))  # rows
        x = ops.tile(ops.reshape(x, (b, c * h * 2, w, 1)), (1, 1, 1, 2))  # columns
        return ops.reshape(x, (b, c, 2 * h, 2 * w))


class Painter(nn.Cell):
    """UNet: features (b, FEATURES, 96, 128) -> (b, 5, 96, 128): paint rgb, use of the photo's own teeth, lip shade."""

    def __init__(self, config):
        super().__init__()
        c0, c1, c2, c3 = config.widths
        self.enter = ConvBlock(FEATURES, c0)
        self.down1 = nn.SequentialCell(ConvBlock(c0, c1, 2), ConvBlock(c1, c1))
        self.down2 = nn.SequentialCell(ConvBlock(c1, c2, 2), ConvBlock(c2, c2))
        self.down3 = nn.SequentialCell(ConvBlock(c2, c3, 2), ConvBlock(c3, c3), ConvBlock(c3, c3))
        self.enlarge = Enlarge()
        self.up2 = ConvBlock(c3 + c2, c2)
        self.up1 = ConvBlock(c2 + c1, c1)
        self.up0 = ConvBlock(c1 + c0, c0)
        self.leave = _conv(c0, 5)

    def construct(self, features):
        x0 = self.enter(features)
        x1 = self.down1(x0)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        x = self.up2(ops.concat((self.enlarge(x3), x2), 1))
        x = self.up1(ops.concat((self.enlarge(x), x1), 1))
        x = self.up0(ops.concat((self.enlarge(x), x0), 1))
        x = self.leave(x)
        colour = ops.sigmoid(x[:, 0:4])
        shade = ops.tanh(x[:, 4:5])
        return ops.concat((colour, shade), 1)


class MouthFeatures(nn.Cell):
    """What the painter sees: (texture, parameters (b, n)) -> features (b, FEATURES, 96, 128).

    Channels: warped photo with the opening cut out (3), the photo's own mouth interior where the skull carries it (3)
    and its mask, the mask of the opening, both lip distances, u, v, and the `paint` parameters as constant planes.
    """

    def __init__(self, texture_side):
        super().__init__()
        self.column = Columns()
        self.field = FaceField()
        self.sample = Sample(texture_side)
        self.x, self.y = (Tensor(a) for a in grid(ROI_HEIGHT, ROI_WIDTH))
        self.softness = float(ROI_WIDTH)
        self.plane = Tensor(np.ones((1, 1, ROI_HEIGHT, ROI_WIDTH), np.float32))

    def construct(self, texture, parameters):
        first = OFFSETS["roi"]
        x = self.column(parameters, first) + self.x * self.column(parameters, first + 2)
        y = self.column(parameters, first + 1) + self.y * self.column(parameters, first + 3)
        upper_x, upper_y, lower_x, lower_y, below, above, u, v = self.field(x, y, parameters)
        half = self.column(parameters, OFFSETS["mouth"] + 4)
        below, above = below / half, above / half  # in half mouth widths
        is_lower = clip01((below - above) * 200.0 + 0.5)
        sampled = self.sample(
            texture, upper_x + is_lower * (lower_x - upper_x), upper_y + is_lower * (lower_y - upper_y)
        )
        mask = clip01(below * 42.0 + 0.5) * clip01(above * 42.0 + 0.5)  # one pixel soft
        own_x, own_y, own_mask = self._own_interior(x, y, parameters)
        own = self.sample(texture, own_x, own_y)
        warped = ops.transpose(sampled, (0, 3, 1, 2)) * ops.expand_dims(1.0 - mask, 1)
        own = ops.transpose(own, (0, 3, 1, 2)) * ops.expand_dims(own_mask, 1)
        planes = ops.stack(
            (
                own_mask,
                mask,
                ops.clip_by_value(below * 2.0, -1.0, 1.0),
                ops.clip_by_value(above * 2.0, -1.0, 1.0),
                ops.clip_by_value(u, -1.5, 1.5),
                v,
            ),
            1,
        )
        told = parameters[:, OFFSETS["paint"] : OFFSETS["paint"] + LAYOUT["paint"]]
        told = ops.reshape(told, (-1, LAYOUT["paint"], 1, 1)) * self.plane
        return ops.concat((warped, own, planes, told), 1)

    def _own_interior(self, x, y, parameters):
        """Where the photo shows the inside of the mouth; upper teeth move with the head only."""
        x, y = self.field.head(x, y, parameters)
        half = self.column(parameters, OFFSETS["mouth"] + 4)
        cos, sin = self.column(parameters, OFFSETS["mouth"] + 2), self.column(parameters, OFFSETS["mouth"] + 3)
        dx = (x - self.column(parameters, OFFSETS["mouth"])) / half
        dy = (y - self.column(parameters, OFFSETS["mouth"] + 1)) / half
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        below, above = self.field.mouth.source_distances(u, v, parameters)
        return x, y, clip01(below * 42.0 - 0.5) * clip01(above * 42.0 - 0.5)


def composite(features, painted):
    """The mouth rectangle as the viewer sees it: (b, 3, 96, 128). Training compares this with its target."""
    mask = features[:, 7:8]
    inside = painted[:, 0:3] + painted[:, 3:4] * features[:, 6:7] * (features[:, 3:6] - painted[:, 0:3])
    return features[:, 0:3] * (1.0 + painted[:, 4:5]) + mask * inside


class EdgeRenderer(nn.Cell):
    """texture (4 R^2, 12), rows (R, 96), columns (128, R), parameters (b, n) -> frames (b, R, R, 3) in 0..255.

    rows and columns place the painter's rectangle in the crop (`placement`).
    """

    def __init__(self, config, side):
        super().__init__()
        self.painter = Painter(config)
        self.features = MouthFeatures(side * OVERSAMPLING)
        self.field = FaceField()
        self.sample = Sample(side * OVERSAMPLING)
        self.x, self.y = (Tensor(a) for a in grid(COARSE, COARSE))
        self.enlarge = Tensor(enlarge_matrix(COARSE, side))
        self.shrink = Tensor(enlarge_matrix(COARSE, side).T.copy())
        self.sharp = float(side)

    def construct(self, texture, rows, columns, parameters):
        features = self.features(texture, parameters)
        painted = self.painter(features)
        own = features[:, 6:7]
        inside = painted[:, 0:3] + painted[:, 3:4] * own * (features[:, 3:6] - painted[:, 0:3])
        layer = ops.concat((inside, painted[:, 4:5]), 1)  # (b, 4, 96, 128)
        layer = ops.matmul(rows, ops.matmul(layer, columns))  # (b, 4, R, R)

        fields = ops.stack(self.field(self.x, self.y, parameters)[0:6], 1)  # (b, 6, COARSE, COARSE)
        fields = ops.matmul(self.enlarge, ops.matmul(fields, self.shrink))  # (b, 6, R, R)
        below, above = fields[:, 4], fields[:, 5]
        is_lower = clip01((below - above) * (4.0 * self.sharp) + 0.5)
        x = fields[:, 0] + is_lower * (fields[:, 2] - fields[:, 0])
        y = fields[:, 1] + is_lower * (fields[:, 3] - fields[:, 1])
        frame = self.sample(texture, x, y)  # (b, R, R, 3)
        mask = clip01(below * self.sharp + 0.5) * clip01(above * self.sharp + 0.5)
        layer = ops.transpose(layer, (0, 2, 3, 1))
        mask = ops.expand_dims(mask, -1)
        frame = frame * (1.0 + layer[:, :, :, 3:4])
        frame = frame + mask * (layer[:, :, :, 0:3] - frame)
        return clip01(frame) * 255.0


def placement(roi, side):
    """Matrices that put the painter's rectangle into a crop of `side` pixels: rows (side, 96), columns (128, side).

    roi: (x, y, w, h) in crop units. Bilinear; pixels outside the rectangle get zero weight.
    """

    def axis(start, length, count):
        position = ((np.arange(side) + 0.5) / side - start) / length * count - 0.5
        distance = np.abs(position[:, None] - np.arange(count))
        return np.maximum(0, 1 - distance).astype(np.float32)

    return axis(roi[1], roi[3], ROI_HEIGHT), np.ascontiguousarray(axis(roi[0], roi[2], ROI_WIDTH).T)
