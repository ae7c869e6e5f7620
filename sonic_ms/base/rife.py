"""RIFE HDv3: the frame half way between two frames, by intermediate optical flow (Huang et al. 2022).

Architecture of the published v3 models (Practical-RIFE 3.x), inference path only: the teacher block is not built.
"""

from mindspore import Tensor, nn, ops

from sonic_ms.errors import UsageError
from sonic_ms.nn.host import pixel_grid
from sonic_ms.nn.portable import PReLU, Resize, TransposedConvX2, conv2d, gather_bilinear


class ConvPReLU(nn.Cell):
    """3x3 convolution and PReLU: (b, c, h, w) -> (b, c', h/stride, w/stride)."""

    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        self.conv = conv2d(channels_in, channels_out, 3, stride)
        self.act = PReLU(channels_out)

    def construct(self, x):
        return self.act(self.conv(x))


class ResidualPair(nn.Cell):
    """Two convolutions around a skip connection: (b, c, h, w) -> the same."""

    def __init__(self, channels):
        super().__init__()
        self.first = ConvPReLU(channels, channels)
        self.second = ConvPReLU(channels, channels)

    def construct(self, x):
        return x + self.second(self.first(x))


class Head(nn.Cell):
    """Two transposed convolutions: (b, c, h, w) -> (b, out, 4h, 4w)."""

    def __init__(self, channels, out):
        super().__init__()
        self.up1 = TransposedConvX2(channels, channels // 2)
        self.act = PReLU(channels // 2)
        self.up2 = TransposedConvX2(channels // 2, out)

    def construct(self, x):
        return self.up2(self.act(self.up1(x)))


class FlowBlock(nn.Cell):
    """Refinement at one scale: images and mask (b, 7, h, w), flow (b, 4, h, w) -> change of flow and of mask."""

    def __init__(self, channels, scale, height, width):
        super().__init__()
        small = (height // scale, width // scale)
        self.scale = scale
        self.shrink = Resize((height, width), small) if scale != 1 else None
        self.grow = Resize(small, (height, width)) if scale != 1 else None
        self.conv0 = nn.CellList([ConvPReLU(11, channels // 2, 2), ConvPReLU(channels // 2, channels, 2)])
        self.blocks = nn.CellList([ResidualPair(channels) for _ in range(4)])
        self.flow_head = Head(channels, 4)
        self.mask_head = Head(channels, 1)

    def construct(self, images, flow):
        if self.scale != 1:
            images, flow = self.shrink(images), self.shrink(flow) * (1.0 / self.scale)
        x = self.conv0[1](self.conv0[0](ops.concat((images, flow), 1)))
        for block in self.blocks:
            x = block(x)
        flow, mask = self.flow_head(x), self.mask_head(x)
        if self.scale != 1:
            flow, mask = self.grow(flow) * float(self.scale), self.grow(mask)
        return flow, mask


class RIFE(nn.Cell):
    """Two frames (1, 3, H, W) in 0..1 -> (flow (1, 4, H, W), mask (1, 1, H, W), middle frame (1, 3, H, W)).

    The flow holds x, y in pixels from the middle to the first frame, then to the second. H and W are fixed when the
    Cell is built and must be divisible by `config.multiple`.
    """

    def __init__(self, config, height, width):
        super().__init__()
        if height % config.multiple or width % config.multiple:
            raise UsageError(f"RIFE: {width}x{height} must be divisible by {config.multiple}; pad the frames first")
        self.blocks = nn.CellList([FlowBlock(config.c, scale, height, width) for scale in config.scale_list])
        self.grid = Tensor(pixel_grid(height, width))

    def construct(self, first, second):
        b, _, h, w = first.shape
        flow = ops.zeros((b, 4, h, w), first.dtype)
        mask = ops.zeros((b, 1, h, w), first.dtype)
        warped_first, warped_second = first, second
        for block in self.blocks:
            # Forward and backward in time go through the block as one batch; the mean makes the flow symmetric.
            to_first, to_second = ops.split(flow, 2, 1)
            there = ops.concat((warped_first, warped_second, mask), 1)
            back = ops.concat((warped_second, warped_first, -mask), 1)
            flows = ops.concat((flow, ops.concat((to_second, to_first), 1)), 0)
            flow_change, mask_change = block(ops.concat((there, back), 0), flows)
            flow_there, flow_back = ops.split(flow_change, b, 0)
            mask_there, mask_back = ops.split(mask_change, b, 0)
            back_second, back_first = ops.split(flow_back, 2, 1)
            flow = flow + 0.5 * (flow_there + ops.concat((back_first, back_second), 1))
            mask = mask + 0.5 * (mask_there - mask_back)
            to_first, to_second = ops.split(flow, 2, 1)
            warped_first = gather_bilinear(first, self.grid + to_first)
            warped_second = gather_bilinear(second, self.grid + to_second)
        mask = ops.sigmoid(mask)
        return flow, mask, warped_first * mask + warped_second * (1.0 - mask)
