"""Convolutions by Winograd's minimal filtering, for CPUs: fewer products, for more weights and passes over memory.

A convolution of 3 taps that makes m neighbouring results from m + 2 inputs needs m + 2 products instead of 3m: inputs
and taps are transformed, multiplied, and the products transformed back. Along the height and the width of a picture a
3x3 convolution needs 4 products for each result with m = 2, 2.25 with m = 4, instead of 9. The numbers are the same but
for rounding: 4e-7 and 3e-6 of a layer's output. Sources: Winograd, "Arithmetic Complexity of Computations", 1980; Lavin
and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.

For inference in float32 on pictures of one size: a half has too few digits for it, and an NPU multiplies windows as
they are. `rearrange` puts it into the UNet of sonic-base; docs/measured/base.md has what that brings and takes.
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sonic_ms.nn.portable import spread

# {m: (transform of the m + 2 inputs, of the 3 taps, of the m + 2 products)}
TRANSFORMS = {
    1: (np.eye(3), np.eye(3), np.ones((1, 3))),  # no saving: the three products themselves
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}
# (results at once along height and width, pixels of the smallest picture that gains by it): the first that divides a
# picture is taken. In smaller ones, weights of 4, 16/9 and 4/3 times the size cost more than the products they save.
TILES = (((4, 4), 1024), ((2, 2), 256), ((2, 1), 64))


def rearrange(unet, height, width):
    """Let a UNet convolve by the Cells below, in place, for latents of height x width. Returns it.

    It must be loaded and not compiled yet. Layers are replaced one after the other: no more than one is held twice.
    """
    for blocks, level in _levels(unet):
        size = height >> level, width >> level
        for block in blocks.resnets:
            spatial, temporal = block.spatial_res_block, block.temporal_res_block
            spatial.conv1, spatial.conv2 = _convolution(spatial.conv1, size), _convolution(spatial.conv2, size)
            temporal.conv1, temporal.conv2 = WinogradFrameConv(temporal.conv1), WinogradFrameConv(temporal.conv2)
    for level, upsampler in enumerate(reversed(unet.upsamplers)):  # the last one makes pictures of level 0
        upsampler.conv = _convolution(upsampler.conv, (height >> level, width >> level))
    for name, parameter in unet.parameters_and_names():
        parameter.name = name
    return unet


def _levels(unet):
    """(Block, level of its pictures, each with half the side of the one before) for all of a UNet."""
    last = len(unet.down_blocks) - 1
    yield from ((block, level) for level, block in enumerate(unet.down_blocks))
    yield unet.mid_block, last
    yield from ((block, last - index) for index, block in enumerate(unet.up_blocks))


def _convolution(conv, size):
    """`conv` in the form that suits pictures of this (height, width)."""
    height, width = size
    for tile, pixels in TILES:
        if height * width >= pixels and height % tile[0] == 0 and width % tile[1] == 0:
            return WinogradConv2d(conv, tile)
    return conv


class WinogradConv2d(nn.Cell):
    """The 3x3 convolution `conv` (stride 1, padding 1, with bias): (n, c, h, w) -> (n, c', h, w).

    tile: results at once along the height and along the width, of 1, 2 and 4; h and w are multiples. The transforms are
    convolutions with fixed kernels, of each channel by itself, of which a window is one step. The products of each
    position in a window are one group of a 1x1 convolution.
    """

    def __init__(self, conv, tile):
        super().__init__()
        self.out, channels = conv.weight.shape[:2]
        self.tile, window = tile, (tile[0] + 2, tile[1] + 2)
        self.points = points = window[0] * window[1]
        (rows, row_taps, row_products), (columns, column_taps, column_products) = [TRANSFORMS[m] for m in tile]
        kernel = np.einsum("ia,jb->ijab", rows, columns).reshape(points, 1, *window)
        self.to_windows = Tensor(kernel.astype(np.float32))
        kernel = np.einsum("pi,qj->ijpq", row_products, column_products).reshape(points, 1, *tile)
        self.from_windows = Tensor(kernel.astype(np.float32))
        weight = np.einsum("ia,jb,ocab->ijoc", row_taps, column_taps, conv.weight.asnumpy(), optimize=True)
        weight = np.ascontiguousarray(weight.reshape(points * self.out, channels, 1, 1), np.float32)
        self.weight, self.bias = Parameter(Tensor(weight)), conv.bias
        self.split = ops.Conv2D(points, window, pad_mode="pad", pad=1, stride=tile)
        self.multiply = ops.Conv2D(points * self.out, (1, 1), group=points)
        self.join = ops.Conv2DTranspose(1, tile, stride=tile)

    def construct(self, x):
        n, c, h, w = x.shape
        rows, columns, points = h // self.tile[0], w // self.tile[1], self.points
        x = self.split(ops.reshape(x, (n * c, 1, h, w)), self.to_windows)  # (n*c, points, rows, columns)
        x = ops.reshape(x, (n, c, points * rows * columns))
        x = ops.concat(ops.split(x, rows * columns, 2), 1)  # (n, points*c, rows*columns)
        x = self.multiply(ops.reshape(x, (n, points * c, rows, columns)), self.weight)  # (n, points*c', rows, columns)
        x = ops.concat(ops.split(ops.reshape(x, (n, points * self.out, rows * columns)), self.out, 1), 2)
        x = ops.reshape(x, (n * self.out, points, rows, columns))
        x = self.join(x, self.from_windows, (n * self.out, 1, h, w))
        return ops.bias_add(ops.reshape(x, (n, self.out, h, w)), self.bias)


class WinogradFrameConv(nn.Cell):
    """The convolution over time `conv`, a FrameConv: (b*frames, c, h, w) -> (b*frames, c', h, w). Two frames at once.

    The transforms are products with small matrices, which also pad: see `frame_matrices`.
    """

    def __init__(self, conv):
        super().__init__()
        out, channels = conv.conv.weight.shape[:2]
        channels //= 3
        taps = conv.conv.weight.asnumpy().reshape(out, 3, channels)  # previous frame, this one, next
        weight = np.einsum("it,otc->ioc", np.array(TRANSFORMS[2][1]), taps)
        self.weight = Parameter(Tensor(np.ascontiguousarray(weight.reshape(4 * out, channels, 1, 1), np.float32)))
        self.out, self.bias = out, conv.conv.bias
        self.multiply = ops.Conv2D(4 * out, (1, 1), group=4)

    def construct(self, x, frames):
        n, c, h, w = x.shape
        b = n // frames
        to_pairs, from_pairs = frame_matrices(frames)
        x = _mix(to_pairs, ops.reshape(x, (b, frames, c * h * w)))  # (b, pairs*4, c*h*w)
        x = self.multiply(ops.reshape(x, (-1, 4 * c, h, w)), self.weight)  # (b*pairs, 4c', h, w)
        x = _mix(from_pairs, ops.reshape(x, (b, -1, self.out * h * w)))  # (b, frames, c'*h*w)
        return ops.bias_add(ops.reshape(x, (n, self.out, h, w)), self.bias)


@ops.constexpr
def frame_matrices(frames):
    """Of F(2, 3) over `frames` frames, zero before and after: to (pairs*4, frames) and from (frames, pairs*4)."""
    inputs, _, products = TRANSFORMS[2]
    pairs = (frames + 1) // 2
    to_pairs, from_pairs = np.zeros((pairs, 4, frames + 3)), np.zeros((pairs, 2, pairs, 4))
    for pair in range(pairs):
        to_pairs[pair, :, 2 * pair : 2 * pair + 4] = inputs  # of frames 2*pair - 1 to 2*pair + 2
        from_pairs[pair, :, pair] = products
    to_pairs = to_pairs[:, :, 1 : frames + 1].reshape(4 * pairs, frames)
    from_pairs = from_pairs.reshape(2 * pairs, 4 * pairs)[:frames]
    return Tensor(to_pairs.astype(np.float32)), Tensor(from_pairs.astype(np.float32))


def _mix(matrix, x):
    """matrix (j, k) times each of x (b, k, m) -> (b, j, m)."""
    b, k, m = x.shape
    if b == 1:
        return ops.matmul(matrix, ops.reshape(x, (k, m)))
    return ops.BatchMatMul()(spread(ops.reshape(matrix, (1, *matrix.shape)), (b, *matrix.shape)), x)
