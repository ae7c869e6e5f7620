"""YOLOv5m-face detector: boxes and five landmarks of every face (Qi et al. 2021; network as in yolov5-face).

The Cell returns the raw maps of its three scales; `decode` and `detect` turn them into faces with numpy.
"""

from dataclasses import dataclass

import numpy as np
from mindspore import nn, ops

from sonic_ms.models.portable import conv2d, nearest_x2, silu

OUTPUTS = 16  # an anchor: box 4, objectness 1, five landmarks 10, class 1
CONFIDENCE, OVERLAP = 0.5, 0.45  # upstream's thresholds: least score, largest intersection over union kept


@dataclass(frozen=True)
class YOLOFaceConfig:
    """width: channels of the stem. *_depth: residual blocks of the short and of the long stages.

    anchors: width and height in pixels of three anchors a scale, flat; strides: pixels a map cell stands for.
    """

    width: int
    short_depth: int
    long_depth: int
    anchors: tuple
    strides: tuple = (8, 16, 32)


class Conv(nn.Cell):
    """Convolution, batch normalisation with stored statistics, SiLU: (b, c, h, w) -> (b, c', h/stride, w/stride)."""

    def __init__(self, channels_in, channels_out, kernel=1, stride=1):
        super().__init__()
        self.conv = conv2d(channels_in, channels_out, kernel, stride, has_bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=1e-3, use_batch_statistics=False)

    def construct(self, x):
        return silu(self.bn(self.conv(x)))


class Stem(nn.Cell):
    """Quarter the image two ways, by convolution and by maximum: (b, 3, h, w) -> (b, c, h/4, w/4)."""

    def __init__(self, channels):
        super().__init__()
        self.stem_1 = Conv(3, channels, 3, 2)
        self.stem_2a = Conv(channels, channels // 2)
        self.stem_2b = Conv(channels // 2, channels, 3, 2)
        self.pool = nn.MaxPool2d(2, 2, pad_mode="valid")
        self.stem_3 = Conv(2 * channels, channels)

    def construct(self, x):
        x = self.stem_1(x)
        return self.stem_3(ops.concat((self.stem_2b(self.stem_2a(x)), self.pool(x)), 1))


class Bottleneck(nn.Cell):
    """1x1 then 3x3 convolution, with a skip connection in the backbone."""

    def __init__(self, channels, shortcut):
        super().__init__()
        self.cv1 = Conv(channels, channels)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def construct(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Cell):
    """Cross-stage partial block: (b, c, h, w) -> (b, c', h, w)."""

    def __init__(self, channels_in, channels_out, depth, shortcut=True):
        super().__init__()
        half = channels_out // 2
        self.cv1 = Conv(channels_in, half)
        self.cv2 = Conv(channels_in, half)
        self.cv3 = Conv(2 * half, channels_out)
        self.m = nn.CellList([Bottleneck(half, shortcut) for _ in range(depth)])

    def construct(self, x):
        y = self.cv1(x)
        for block in self.m:
            y = block(y)
        return self.cv3(ops.concat((y, self.cv2(x)), 1))


class SPP(nn.Cell):
    """Maxima over growing neighbourhoods, side by side."""

    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.cv1 = Conv(channels_in, channels_in // 2)
        self.cv2 = Conv(channels_in * 2, channels_out)
        self.pools = nn.CellList([nn.MaxPool2d(size, 1, pad_mode="same") for size in (3, 5, 7)])

    def construct(self, x):
        x = self.cv1(x)
        return self.cv2(ops.concat((x, *[pool(x) for pool in self.pools]), 1))


class YOLOFace(nn.Cell):
    """RGB image (1, 3, H, W) in 0..1, sides divisible by 32 -> three maps (1, 48, H/stride, W/stride).

    Layers keep the numbers they have in the published definition; 10, 11, 14, 15, 18 and 21 hold no weights there.
    """

    def __init__(self, config):
        super().__init__()
        c, short, long = config.width, config.short_depth, config.long_depth
        self.layer_0 = Stem(c)
        self.layer_1 = C3(c, 2 * c, short)
        self.layer_2 = Conv(2 * c, 4 * c, 3, 2)
        self.layer_3 = C3(4 * c, 4 * c, long)
        self.layer_4 = Conv(4 * c, 8 * c, 3, 2)
        self.layer_5 = C3(8 * c, 8 * c, long)
        self.layer_6 = Conv(8 * c, 16 * c, 3, 2)
        self.layer_7 = SPP(16 * c, 16 * c)
        self.layer_8 = C3(16 * c, 16 * c, short, shortcut=False)
        self.layer_9 = Conv(16 * c, 8 * c)
        self.layer_12 = C3(16 * c, 8 * c, short, shortcut=False)
        self.layer_13 = Conv(8 * c, 4 * c)
        self.layer_16 = C3(8 * c, 4 * c, short, shortcut=False)
        self.layer_17 = Conv(4 * c, 4 * c, 3, 2)
        self.layer_19 = C3(8 * c, 8 * c, short, shortcut=False)
        self.layer_20 = Conv(8 * c, 8 * c, 3, 2)
        self.layer_22 = C3(16 * c, 16 * c, short, shortcut=False)
        outputs = [len(anchors) // 2 * OUTPUTS for anchors in config.anchors]
        self.heads = nn.CellList([conv2d(size * c, out, 1) for size, out in zip((4, 8, 16), outputs)])

    def construct(self, image):
        eighth = self.layer_3(self.layer_2(self.layer_1(self.layer_0(image))))
        sixteenth = self.layer_5(self.layer_4(eighth))
        deep = self.layer_9(self.layer_8(self.layer_7(self.layer_6(sixteenth))))
        middle = self.layer_13(self.layer_12(ops.concat((nearest_x2(deep), sixteenth), 1)))
        fine = self.layer_16(ops.concat((nearest_x2(middle), eighth), 1))
        coarse = self.layer_19(ops.concat((self.layer_17(fine), middle), 1))
        last = self.layer_22(ops.concat((self.layer_20(coarse), deep), 1))
        return self.heads[0](fine), self.heads[1](coarse), self.heads[2](last)


def decode(maps, config):
    """Raw maps (1, 48, h, w) of each scale -> predictions (1, n, 16) in pixels of the network's input.

    Columns: centre x, y, width, height, objectness, five landmarks x, y, class score.
    """
    predictions = []
    for values, anchors, stride in zip(maps, config.anchors, config.strides):
        _, channels, h, w = values.shape
        count = channels // OUTPUTS
        raw = values.reshape(count, OUTPUTS, h, w).transpose(0, 2, 3, 1).astype(np.float32)  # (anchors, h, w, 16)
        size = np.asarray(anchors, np.float32).reshape(count, 1, 1, 2)
        rows, columns = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
        cell = np.stack([columns, rows], axis=-1).astype(np.float32)  # (h, w, 2)
        score = 1.0 / (1.0 + np.exp(-raw))
        out = np.empty_like(raw)
        out[..., 0:2] = (score[..., 0:2] * 2 - 0.5 + cell) * stride
        out[..., 2:4] = (score[..., 2:4] * 2) ** 2 * size
        out[..., 4] = score[..., 4]
        for column in range(5, 15, 2):
            out[..., column : column + 2] = raw[..., column : column + 2] * size + cell * stride
        out[..., 15] = score[..., 15]
        predictions.append(out.reshape(1, -1, OUTPUTS))
    return np.concatenate(predictions, axis=1)


def input_size(width, height, short=416):
    """Size the detector sees a width x height image at: short side to `short`, each side up to a multiple of 32."""
    scale = short / min(width, height)
    return tuple((int(side * scale) + 31) // 32 * 32 for side in (width, height))


def detect(predictions, scale_x, scale_y, confidence=CONFIDENCE, overlap=OVERLAP):
    """Predictions (1, n, 16) -> faces (m, 15) in pixels of the photo: x1, y1, x2, y2, score, five landmarks x, y.

    scale_x, scale_y: photo size / network input size. Best face first; a box that overlaps a better one is dropped.
    """
    found = predictions[0]
    score = found[:, 4] * found[:, 15]
    found, score = found[score >= confidence], score[score >= confidence]
    half = found[:, 2:4] / 2
    boxes = np.concatenate([found[:, 0:2] - half, found[:, 0:2] + half], axis=1)
    kept = nms(boxes, score, overlap)
    faces = np.concatenate([boxes[kept], score[kept, None], found[kept, 5:15]], axis=1)
    faces[:, [0, 2, *range(5, 15, 2)]] *= scale_x
    faces[:, [1, 3, *range(6, 15, 2)]] *= scale_y
    return faces


def nms(boxes, score, overlap):
    """Indices of the boxes (n, 4) to keep, best score first: greedy suppression by intersection over union."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.argsort(-score, kind="stable"), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        order = order[shared <= overlap * (area[best] + area[order] - shared)]
    return np.array(kept, int)
