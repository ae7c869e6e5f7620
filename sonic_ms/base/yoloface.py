"""YOLOv5m-face detector: boxes and five landmarks of every face (Qi et al. 2021; network as in yolov5-face).

The Cell returns the raw maps of its three scales; boxes.py turns them into faces.
"""

from functools import partial

from mindspore import nn, ops

from sonic_ms.base.boxes import OUTPUTS
from sonic_ms.nn.portable import conv2d, nearest_x2, silu


class Conv(nn.Cell):
    """Convolution, batch normalisation with stored statistics, SiLU: (b, c, h, w) -> (b, c', h/stride, w/stride).

    norm=False: the normalisation was folded into the convolution, which has a bias instead.
    """

    def __init__(self, channels_in, channels_out, kernel=1, stride=1, norm=True):
        super().__init__()
        self.conv = conv2d(channels_in, channels_out, kernel, stride, has_bias=not norm)
        self.bn = nn.BatchNorm2d(channels_out, eps=1e-3, use_batch_statistics=False) if norm else nn.Identity()

    def construct(self, x):
        return silu(self.bn(self.conv(x)))


class Stem(nn.Cell):
    """Quarter the image two ways, by convolution and by maximum: (b, 3, h, w) -> (b, c, h/4, w/4)."""

    def __init__(self, conv, channels):
        super().__init__()
        self.stem_1 = conv(3, channels, 3, 2)
        self.stem_2a = conv(channels, channels // 2)
        self.stem_2b = conv(channels // 2, channels, 3, 2)
        self.pool = nn.MaxPool2d(2, 2, pad_mode="valid")
        self.stem_3 = conv(2 * channels, channels)

    def construct(self, x):
        x = self.stem_1(x)
        return self.stem_3(ops.concat((self.stem_2b(self.stem_2a(x)), self.pool(x)), 1))


class Bottleneck(nn.Cell):
    """1x1 then 3x3 convolution, with a skip connection in the backbone."""

    def __init__(self, conv, channels, shortcut):
        super().__init__()
        self.cv1 = conv(channels, channels)
        self.cv2 = conv(channels, channels, 3)
        self.shortcut = shortcut

    def construct(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Cell):
    """Cross-stage partial block: (b, c, h, w) -> (b, c', h, w)."""

    def __init__(self, conv, channels_in, channels_out, depth, shortcut=True):
        super().__init__()
        half = channels_out // 2
        self.cv1 = conv(channels_in, half)
        self.cv2 = conv(channels_in, half)
        self.cv3 = conv(2 * half, channels_out)
        self.m = nn.CellList([Bottleneck(conv, half, shortcut) for _ in range(depth)])

    def construct(self, x):
        y = self.cv1(x)
        for block in self.m:
            y = block(y)
        return self.cv3(ops.concat((y, self.cv2(x)), 1))


class SPP(nn.Cell):
    """Maxima over growing neighbourhoods, side by side."""

    def __init__(self, conv, channels_in, channels_out):
        super().__init__()
        self.cv1 = conv(channels_in, channels_in // 2)
        self.cv2 = conv(channels_in * 2, channels_out)
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
        conv = partial(Conv, norm=config.norm)
        self.layer_0 = Stem(conv, c)
        self.layer_1 = C3(conv, c, 2 * c, short)
        self.layer_2 = conv(2 * c, 4 * c, 3, 2)
        self.layer_3 = C3(conv, 4 * c, 4 * c, long)
        self.layer_4 = conv(4 * c, 8 * c, 3, 2)
        self.layer_5 = C3(conv, 8 * c, 8 * c, long)
        self.layer_6 = conv(8 * c, 16 * c, 3, 2)
        self.layer_7 = SPP(conv, 16 * c, 16 * c)
        self.layer_8 = C3(conv, 16 * c, 16 * c, short, shortcut=False)
        self.layer_9 = conv(16 * c, 8 * c)
        self.layer_12 = C3(conv, 16 * c, 8 * c, short, shortcut=False)
        self.layer_13 = conv(8 * c, 4 * c)
        self.layer_16 = C3(conv, 8 * c, 4 * c, short, shortcut=False)
        self.layer_17 = conv(4 * c, 4 * c, 3, 2)
        self.layer_19 = C3(conv, 8 * c, 8 * c, short, shortcut=False)
        self.layer_20 = conv(8 * c, 8 * c, 3, 2)
        self.layer_22 = C3(conv, 16 * c, 16 * c, short, shortcut=False)
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
