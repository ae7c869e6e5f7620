"""Picture side of sonic-edge: one photo's texture + parameter rows -> video frames. Portable operators only.

The photo, oversampled four times, is looked up once for every pixel of a frame, through the flow of motion.py; a small
UNet paints what no photo shows: teeth, tongue and the dark of an opening mouth, and the shade at the edge of the lips.
It works on a fixed rectangle around the mouth, so its cost does not depend on the size of the video.
"""

from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from sonic_ms.edge.motion import Columns, FaceField, clip01
from sonic_ms.edge.rig import LAYOUT, OFFSETS, UPPER_TEETH
from sonic_ms.edge.texture import COARSE, OVERSAMPLING, ROI_HEIGHT, ROI_WIDTH, enlarge_matrix
from sonic_ms.errors import WeightsError, short
from sonic_ms.files.weights import set_precision
from sonic_ms.nn.portable import stack

INSET = 0.05  # half mouth widths from the photo's lips to what surely is the inside of its mouth
FEATURES = 3 + 3 + 6 + 4 + LAYOUT["paint"]
# Gaps between teeth, |u| from the middle: widths of the teeth as seen from the front (8.5, 6.5, 7.6 mm ... narrowed by
# the dental arch), the first gap being the middle one
UPPER_GAPS = (0.0, 0.33, 0.58, 0.79, 0.92)
LOWER_GAPS = (0.0, 0.20, 0.41, 0.60, 0.73)
GAP_WIDTH = 0.05


BLOCKS = ("down1.0", "down1.1", "down2.0", "down2.1", "down3.0", "down3.1", "down3.2", "up2", "up1.0", "up1.1")


@dataclass(frozen=True)
class PainterConfig:
    """widths: channels of the painter at 1/2, 1/4 and 1/8 of its rectangle's resolution. channels: those of each of its
    BLOCKS where they differ, as in a pruned painter; none where `widths` says all."""

    widths: tuple[int, int, int] = (16, 32, 48)
    channels: tuple[int, ...] = ()

    def __post_init__(self):
        if self.channels and (len(self.channels) != len(BLOCKS) or min(self.channels) < 1):
            raise WeightsError(f"painter has channels {short(self.channels)}; expected {len(BLOCKS)} numbers above 0")

    def blocks(self):
        """Channels of every block, in the order of BLOCKS."""
        c1, c2, c3 = self.widths
        return self.channels or (c1, c1, c2, c2, c3, c3, c3, c2, c1, c1)


def nodes(count, pixels):
    """Where a field over `pixels` pixels is computed, in [0, 1]: from the first pixel's centre to the last one's."""
    return ((np.linspace(0, pixels - 1, count) + 0.5) / pixels).astype(np.float32)


def grid(height, width, rows, columns):
    """Nodes of a field of rows x columns pixels: x and y, each a Tensor (1, height, width)."""
    x, y = np.meshgrid(nodes(width, columns), nodes(height, rows))
    return Tensor(x[None].copy()), Tensor(y[None].copy())


def enlarge(field, rows, columns):
    """A field at its nodes, (b, h, w), at the pixels that the matrices are for (texture.enlarge_matrix)."""
    return ops.matmul(rows, ops.matmul(field, columns))


def planes_of(x):
    """(b, c, h, w) -> c tensors (b, h, w). By Split: a strided slice of a large tensor takes 20 times as long."""
    # a tuple: the ONNX exporter knows no lists
    return tuple([ops.reshape(plane, (x.shape[0], x.shape[2], x.shape[3])) for plane in ops.split(x, 1, 1)])


class Sample(nn.Cell):
    """Nearest texel of a texture (side^2,) of packed colours (texture.py). x, y: (b, h, w) from `texels`, enlarged ->
    (b, h, w)."""

    def __init__(self, side):
        super().__init__()
        self.scale = float(side)
        self.last = float(side - 1)
        # texel t lies at pixel t / 4, and pixel 0 is half a pixel inside the crop; then + 0.5 to round by floor
        self.offset = 0.5 - OVERSAMPLING / 2

    def texels(self, x):
        """Crop units -> texel numbers to be rounded down. At the nodes, where it is cheaper: between them no number is
        larger or smaller."""
        return ops.clip_by_value(x * self.scale + self.offset, 0.0, self.last)

    def construct(self, texture, x, y):
        index = ops.cast(ops.floor(y) * self.scale + ops.floor(x), mstype.int32)
        return ops.reshape(ops.gather(texture, ops.reshape(index, (-1,)), 0), x.shape)


def unpack(colours):
    """Packed colours, float32 -> red, green, blue of the same shape. Exact: whole numbers below 2^24."""
    red = ops.floor(colours * (1.0 / 65536.0))
    rest = colours - red * 65536.0
    green = ops.floor(rest * (1.0 / 256.0))
    return red, green, rest - green * 256.0


def _conv(in_channels, out_channels, stride=1):
    return nn.Conv2d(in_channels, out_channels, 3, stride, pad_mode="pad", padding=1, has_bias=True)


class ConvBlock(nn.Cell):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv = _conv(in_channels, out_channels, stride)
        self.norm = nn.BatchNorm2d(out_channels)

    def construct(self, x):
        return ops.relu(self.norm(self.conv(x)))


def fold_norms(cell):
    """Write every ConvBlock's normalisation into its convolution, for inference: one operator less per block."""
    for _, block in cell.cells_and_names():
        if isinstance(block, ConvBlock) and isinstance(block.norm, nn.BatchNorm2d):
            norm = block.norm
            scale = norm.gamma.asnumpy() / np.sqrt(norm.moving_variance.asnumpy() + norm.eps)
            bias = (block.conv.bias.asnumpy() - norm.moving_mean.asnumpy()) * scale + norm.beta.asnumpy()
            block.conv.weight.set_data(Tensor(block.conv.weight.asnumpy() * scale[:, None, None, None]))
            block.conv.bias.set_data(Tensor(bias))
            block.norm = nn.Identity()
    return cell


class Enlarge(nn.Cell):
    """Nearest-neighbour x2 of (b, c, height, width), as products with 0/1 matrices: tiles take eight times as long."""

    def __init__(self, height, width):
        super().__init__()
        self.rows = Tensor(np.repeat(np.eye(height, dtype=np.float32), 2, 0))
        self.columns = Tensor(np.repeat(np.eye(width, dtype=np.float32), 2, 1))

    def construct(self, x):
        return ops.matmul(ops.cast(self.rows, x.dtype), ops.matmul(x, ops.cast(self.columns, x.dtype)))


class Interleave(nn.Cell):
    """(b, 4c, h, w) -> (b, c, 2h, 2w), a pixel shuffle written as products with 0/1 matrices."""

    def __init__(self, channels, height, width):
        super().__init__()
        self.channels = channels
        self.rows = tuple(Tensor(np.eye(2 * height, dtype=np.float32)[:, i::2].copy()) for i in range(2))
        self.columns = tuple(Tensor(np.eye(2 * width, dtype=np.float32)[i::2].copy()) for i in range(2))

    def construct(self, x):
        top_left, top_right, low_left, low_right = ops.split(x, self.channels, 1)
        even = ops.matmul(top_left, self.columns[0]) + ops.matmul(top_right, self.columns[1])
        odd = ops.matmul(low_left, self.columns[0]) + ops.matmul(low_right, self.columns[1])
        return ops.matmul(self.rows[0], even) + ops.matmul(self.rows[1], odd)


class Painter(nn.Cell):
    """UNet: features (b, FEATURES, 96, 128) -> (b, 4, 96, 128): rgb of the mouth's inside, shade on the lips."""

    def __init__(self, config):
        super().__init__()
        a0, a1, b0, b1, c0, c1, c2, d, e0, e1 = config.blocks()
        self.down1 = nn.SequentialCell(ConvBlock(FEATURES, a0, 2), ConvBlock(a0, a1))
        self.down2 = nn.SequentialCell(ConvBlock(a1, b0, 2), ConvBlock(b0, b1))
        self.down3 = nn.SequentialCell(ConvBlock(b1, c0, 2), ConvBlock(c0, c1), ConvBlock(c1, c2))
        self.enlarge3 = Enlarge(ROI_HEIGHT // 8, ROI_WIDTH // 8)
        self.enlarge2 = Enlarge(ROI_HEIGHT // 4, ROI_WIDTH // 4)
        self.up2 = ConvBlock(c2 + b1, d)
        self.up1 = nn.SequentialCell(ConvBlock(d + a1, e0), ConvBlock(e0, e1))
        self.leave = _conv(e1, 4 * 4)
        self.interleave = Interleave(4, ROI_HEIGHT // 2, ROI_WIDTH // 2)
        self.half = False

    def set_precision(self, precision):
        """ "fp16": weights and activations between the features and the painted planes become half precision."""
        self.half = precision == "fp16"
        set_precision(self, precision)

    def construct(self, features):
        if self.half:
            features = ops.cast(features, mstype.float16)
        x1 = self.down1(features)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        x = self.up2(ops.concat((self.enlarge3(x3), x2), 1))
        x = self.up1(ops.concat((self.enlarge2(x), x1), 1))
        x = self.leave(x)
        if self.half:
            x = ops.cast(x, mstype.float32)
        colour, shade = ops.split(self.interleave(x), [3, 1], 1)
        return ops.concat((ops.sigmoid(colour), ops.tanh(shade)), 1)


def nearness(side, gaps):
    """1 on a gap between teeth, 0 from GAP_WIDTH away."""
    distance = side
    for gap in gaps[1:]:
        distance = ops.minimum(distance, ops.abs(side - gap))
    return ops.relu(1.0 - distance * (1.0 / GAP_WIDTH))


class MouthFeatures(nn.Cell):
    """What the painter sees: (texture, parameters (b, n)) -> features (b, FEATURES, 96, 128).

    Channels: warped photo with the opening cut out (3), the photo's own mouth interior where the skull carries it (3),
    divided by the light, and its mask, the mask of the opening, both lip distances, u, v, where an average set of teeth
    ends and has its gaps (4), and the `paint` parameters as constant planes.
    """

    def __init__(self, texture_side):
        super().__init__()
        self.column = Columns()
        self.field = FaceField()
        self.sample = Sample(texture_side)
        self.x, self.y = grid(ROI_HEIGHT // 2, ROI_WIDTH // 2, ROI_HEIGHT, ROI_WIDTH)
        self.rows = Tensor(enlarge_matrix(ROI_HEIGHT // 2, ROI_HEIGHT))
        self.columns = Tensor(enlarge_matrix(ROI_WIDTH // 2, ROI_WIDTH).T.copy())
        self.plane = Tensor(np.ones((1, 1, ROI_HEIGHT, ROI_WIDTH), np.float32))

    def teeth(self, u, v, parameters):
        """Height above the upper teeth's edge and below the lower teeth's, -1..1, and closeness to a gap, 0..1."""
        side = ops.abs(ops.clip_by_value(u, -1.0, 1.0))
        seam = self.field.mouth.contour(ops.clip_by_value(u, -1.0, 1.0), parameters, OFFSETS["seam"])
        lower = seam + self.column(parameters, OFFSETS["teeth"]) + 0.1 * side * side
        upper = seam + UPPER_TEETH - 0.05 * side * side
        return (
            ops.clip_by_value((upper - v) * 6.0, -1.0, 1.0),
            ops.clip_by_value((v - lower) * 6.0, -1.0, 1.0),
            nearness(side, UPPER_GAPS),
            nearness(side, LOWER_GAPS),
        )

    def texel_fields(self, x, y, parameters):
        """FaceField.mouth_fields with the three places as texel numbers."""
        fields = self.field.mouth_fields(x, y, parameters)
        texels = tuple([self.sample.texels(field) for field in (*fields[0:4], *fields[8:10])])
        return (*texels[:4], *fields[4:8], *texels[4:], *fields[10:])

    def construct(self, texture, parameters):
        first = OFFSETS["roi"]
        x = self.column(parameters, first) + self.x * self.column(parameters, first + 2)
        y = self.column(parameters, first + 1) + self.y * self.column(parameters, first + 3)
        upper_x, upper_y, lower_x, lower_y, below, above, u, v, own_x, own_y, own_below, own_above = tuple(
            [enlarge(field, self.rows, self.columns) for field in self.texel_fields(x, y, parameters)]
        )
        half = self.column(parameters, OFFSETS["mouth"] + 4)
        below, above = below / half, above / half  # in half mouth widths
        is_lower = clip01((below - above) * 200.0 + 0.5)
        x, y = upper_x + is_lower * (lower_x - upper_x), upper_y + is_lower * (lower_y - upper_y)
        warped = unpack(self.sample(texture, x, y))
        mask = clip01(below * 42.0 + 0.5) * clip01(above * 42.0 + 0.5)  # one pixel soft
        # the inside of the mouth as the photo shows it: teeth move with the head only
        own_mask = clip01((own_below - INSET) * 42.0) * clip01((own_above - INSET) * 42.0)
        own = unpack(self.sample(texture, own_x, own_y))
        light = tuple([self.column(parameters, OFFSETS["paint"] + 5 + i) for i in range(3)])
        own = tuple([plane * own_mask * (1.0 / (255.0 * one)) for plane, one in zip(own, light)])
        warped = tuple([plane * ((1.0 - mask) / 255.0) for plane in warped])
        planes = (
            *warped,
            *own,
            own_mask,
            mask,
            ops.clip_by_value(below * 2.0, -1.0, 1.0),
            ops.clip_by_value(above * 2.0, -1.0, 1.0),
            ops.clip_by_value(u, -1.5, 1.5),
            v,
            *self.teeth(u, v, parameters),
        )
        told = parameters[:, OFFSETS["paint"] : OFFSETS["paint"] + LAYOUT["paint"]]
        told = ops.reshape(told, (-1, LAYOUT["paint"], 1, 1)) * self.plane
        planes = tuple([ops.reshape(plane, (-1, 1, ROI_HEIGHT, ROI_WIDTH)) for plane in planes])
        return ops.concat((*planes, told), 1)


def interior(features, painted):
    """What goes into the picture: colour of the mouth's inside (b, 3, 96, 128), the photo's own where it shows any and
    the painter's elsewhere; the warped photo, the opening's mask and the lip shade."""
    warped, own, own_mask, mask, _, light = ops.split(features, [3, 3, 1, 1, FEATURES - 11, 3], 1)
    colour, shade = ops.split(painted, [3, 1], 1)
    inside = ops.minimum(light * (own + (1.0 - own_mask) * colour), 1.0)
    return inside, warped, mask, ops.minimum(shade, 0.0)  # shade only darkens


def composite(features, painted):
    """The mouth rectangle as the viewer sees it, (b, 3, 96, 128). Training compares this with its target."""
    inside, warped, mask, shade = interior(features, painted)
    return warped * (1.0 + shade) + mask * inside


class EdgeRenderer(nn.Cell):
    """One photo's frames, in two parts: the square without the inside of the mouth, and the patch that lies over it.

    texture ((4R)^2,), four matrices as texture.Patch has them, parameters (b, n) -> square (b, R, R), int32 of packed
    colours (texture.py), and patch (b, 3, P, Q) in 0..255. Only in the patch do the lips part and the painter paint, so
    the rest needs two planes of a flow, one look-up a pixel and no arithmetic on colours.
    """

    def __init__(self, painter, side):
        super().__init__()
        self.painter = painter
        self.features = MouthFeatures(side * OVERSAMPLING)
        self.field = FaceField()
        self.sample = Sample(side * OVERSAMPLING)
        self.x, self.y = grid(COARSE, COARSE, side, side)
        self.rows = Tensor(enlarge_matrix(COARSE, side))
        self.columns = Tensor(enlarge_matrix(COARSE, side).T.copy())
        self.sharp = float(side)

    def construct(self, texture, rows, columns, field_rows, field_columns, parameters):
        # whatever is linear happens on the coarse grid: there it costs next to nothing
        upper_x, upper_y, lower_x, lower_y, below, above = self.field(self.x, self.y, parameters)
        places = tuple([self.sample.texels(place) for place in (upper_x, upper_y, lower_x, lower_y)])
        distances = (below * self.sharp + 0.5, above * self.sharp + 0.5)
        square = self.square(texture, *places, *distances)

        features = self.features(texture, parameters)
        inside, _, _, shade = interior(features, self.painter(features))
        layer = enlarge(ops.concat((inside * 255.0, shade), 1), rows, columns)  # (b, 4, P, Q)
        fields = tuple([enlarge(field, field_rows, field_columns) for field in (*places, *distances)])
        return square, self.patch(texture, planes_of(layer), *fields)

    def square(self, texture, upper_x, upper_y, lower_x, lower_y, below, above):
        """The photo through the flow, (b, R, R). Away from the mouth's opening both layers are one, so that the choice
        between them can be made on the coarse grid."""
        is_lower = clip01((below - above) * 4.0 + 0.5)
        x = enlarge(upper_x + is_lower * (lower_x - upper_x), self.rows, self.columns)
        y = enlarge(upper_y + is_lower * (lower_y - upper_y), self.rows, self.columns)
        return ops.cast(self.sample(texture, x, y), mstype.int32)

    def patch(self, texture, layer, upper_x, upper_y, lower_x, lower_y, below, above):
        """The photo through the flow of both layers, shaded at the lips, painted where they part, (b, 3, P, Q)."""
        red, green, blue, shade = layer
        is_lower = clip01((below - above) * 4.0 + 0.5)
        photo = self.sample(texture, upper_x + is_lower * (lower_x - upper_x), upper_y + is_lower * (lower_y - upper_y))
        mask = clip01(below) * clip01(above)
        outside = (1.0 + shade) * (1.0 - mask)
        colours = zip(unpack(photo), (red, green, blue))
        return stack(tuple([picture * outside + paint * mask for picture, paint in colours]), 1)
