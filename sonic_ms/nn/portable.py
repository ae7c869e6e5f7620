"""Building blocks that compute the same numbers on MindSpore CPU, its ONNX export, MindSpore Lite and Ascend.

Many ready-made operators are missing, slow or wrong on one of these (docs/base.md lists them). Every network of this
package uses the forms below instead, so that a defect is worked around once. Tensors are (batch, channels, height,
width) or (batch, tokens, channels); shapes are static.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sonic_ms.nn.host import resize_matrix

# GELU(x) = x/2 (1 + erf(x/sqrt 2)) = x sigmoid(x P(x^2)) with P(x^2) = 2 atanh(erf(x/sqrt 2))/x: sigmoid runs almost at
# the speed of a multiply on every engine, erf does not and has no ONNX export, and the CPU's tanh is only good to 1e-4.
# P is a weighted minimax fit over |x| <= 7.5; its last coefficient is positive, so the tails stay exact. The fit is
# within 1e-7 of the exact GELU: a coarser one shows after Whisper's four layers.
GELU_FIT = (
    1.595768432e00,
    7.266856706e-02,
    -6.626001195e-05,
    -1.104803097e-04,
    7.938217937e-06,
    -2.668927587e-07,
    3.611231496e-09,
)


def silu(x):
    """x * sigmoid(x), any shape. In float32: see `add`."""
    wide = ops.cast(x, ms.float32)
    return ops.cast(wide * ops.sigmoid(wide), x.dtype)


def add(x, change):
    """x + change, of one shape, in float32 whatever their dtype.

    MindSpore's CPU kernels for half precision keep two indices of 8 bytes for every element of a sum or product, as
    long as the graph lives: 25 GB in the VAE's decoder for four frames of 256x256. Those for float32 keep none.
    """
    return ops.cast(ops.cast(x, ms.float32) + ops.cast(change, ms.float32), x.dtype)


def multiply(x, factor):
    """x * factor, of one shape, in float32 whatever their dtype: see `add`."""
    return ops.cast(ops.cast(x, ms.float32) * ops.cast(factor, ms.float32), x.dtype)


def quick_gelu(x):
    """x * sigmoid(1.702 x), the activation of OpenAI's CLIP; any shape."""
    return x * ops.sigmoid(1.702 * x)


def gelu(x):
    """Exact (erf) GELU to 1e-6, any shape. Computed in float32: x^8 overflows half precision at x = 4."""
    wide = ops.cast(x, ms.float32)
    return ops.cast(wide * _normal_share(wide), x.dtype)


def _normal_share(x):
    """Share of a standard normal distribution below x, float32."""
    square = x * x
    fit = GELU_FIT[6] * square + GELU_FIT[5]
    for index in (4, 3, 2, 1, 0):
        fit = fit * square + GELU_FIT[index]
    return ops.sigmoid(x * fit)


class GatedGelu(nn.Cell):
    """value * gelu(gate), of one shape, that keeps nothing but these two for the backward pass: the fit of `gelu` alone
    would keep ten tensors."""

    def construct(self, value, gate):
        return multiply(value, gelu(gate))

    def bprop(self, value, gate, out, change):
        gate = ops.depend(gate, change)  # or MindSpore would take `share` from the forward pass, and keep it there
        wide, pull = ops.cast(gate, ms.float32), ops.cast(change, ms.float32)
        share = _normal_share(wide)
        density = ops.exp(-0.5 * wide * wide) * (1.0 / math.sqrt(2.0 * math.pi))
        to_gate = pull * ops.cast(value, ms.float32) * (share + wide * density)
        return ops.cast(pull * wide * share, value.dtype), ops.cast(to_gate, gate.dtype)


def spread(x, shape):
    """x repeated to `shape`: its sides are those of `shape`, or 1.

    For operands of large tensors. A CPU kernel that broadcasts by itself keeps two indices of 8 bytes for every element
    of its output, as long as the graph lives: 16 GB in the VAE at 256x256. The ONNX export drops these operators again.
    """
    return ops.tile(x, tuple([big // side for big, side in zip(shape, x.shape)]))


def stack(tensors, axis):
    """Tensors of one shape side by side on a new axis. The exported Stack makes an ONNX sequence, which neither ATC nor
    MindSpore Lite knows."""
    shape = tensors[0].shape
    shape = (*shape[:axis], 1, *shape[axis:])
    return ops.concat(tuple([ops.reshape(tensor, shape) for tensor in tensors]), axis)


def moments(x, rows):
    """Mean and mean square of each of `rows` equal runs of x, float32: two (rows, 1) tensors.

    The reduction is over the last axis of a matrix because the CPU kernel is ten times slower on any other rank.
    """
    flat = ops.reshape(x, (rows, -1))
    mean = ops.ReduceMean(keep_dims=True)
    return mean(flat, -1), mean(flat * flat, -1)


def inverse_deviation(mean, mean_square, epsilon):
    """1 / sqrt(variance + epsilon) from the first two moments. The clamp covers a variance that rounds below zero."""
    return 1.0 / ops.sqrt(ops.maximum(mean_square - mean * mean, 0.0) + epsilon)


def group_norm(x, weight, bias, groups, epsilon, frames=1, offset=None):
    """Normalise each group of channels of x (+ offset): x (b, c, h, w), offset (b, c) or None -> the shape of x.

    With frames > 1, b = clips*frames and the statistics run over all frames of a clip, as a 5-D GroupNorm of
    (clips, c, frames, h, w) does. The offset is an embedding added to every pixel; it enters through the statistics
    and the affine map, which saves a pass over x. All of it is float32 whatever the dtype of x.
    """
    b, c, dtype = x.shape[0], x.shape[1], x.dtype
    x = ops.cast(x, ms.float32)
    mean, mean_square = moments(x, b * c)  # of each channel, (b*c, 1)
    if offset is not None:
        offset = ops.reshape(ops.cast(offset, ms.float32), (b * c, 1))
        mean_square = mean_square + offset * (2.0 * mean + offset)
        mean = mean + offset
    mean = clip_mean(mean, b, frames, groups)  # (b, groups, 1)
    inverse = inverse_deviation(mean, clip_mean(mean_square, b, frames, groups), epsilon)
    weight = ops.reshape(ops.cast(weight, ms.float32), (1, groups, c // groups))
    bias = ops.reshape(ops.cast(bias, ms.float32), (1, groups, c // groups))
    scale = inverse * weight  # (b, groups, c/groups)
    shift = bias - mean * scale
    if offset is not None:
        shift = shift + scale * ops.reshape(offset, (b, groups, c // groups))
    shape = x.shape
    flat = ops.reshape(x, (b * c, -1))
    flat = flat * spread(ops.reshape(scale, (b * c, 1)), flat.shape)
    flat = flat + spread(ops.reshape(shift, (b * c, 1)), flat.shape)
    return ops.cast(ops.reshape(flat, shape), dtype)


def clip_mean(values, b, frames, groups):
    """Average one value a channel, (b*c, 1), over each group and over the frames of its clip -> (b, groups, 1)."""
    mean = ops.ReduceMean(keep_dims=True)
    values = mean(ops.reshape(values, (b * groups, -1)), -1)  # (b*groups, 1)
    if frames > 1:
        values = mean(ops.reshape(values, (b // frames, frames, groups)), 1)  # (clips, 1, groups)
        values = ops.tile(values, (1, frames, 1))
    return ops.reshape(values, (b, groups, 1))


def layer_norm(x, weight, bias, epsilon):
    """Normalise the last axis of x, any rank; weight and bias (channels,); statistics in float32."""
    shape, dtype = x.shape, x.dtype
    channels = shape[-1]
    x = ops.reshape(ops.cast(x, ms.float32), (-1, channels))
    mean, mean_square = moments(x, x.shape[0])  # (rows, 1)
    inverse = inverse_deviation(mean, mean_square, epsilon)
    x = x * spread(inverse, x.shape) - spread(mean * inverse, x.shape)
    x = x * spread(ops.reshape(ops.cast(weight, ms.float32), (1, channels)), x.shape)
    x = ops.bias_add(x, ops.cast(bias, ms.float32))
    return ops.reshape(ops.cast(x, dtype), shape)


def softmax(scores):
    """Softmax over the last axis, in float32 whatever the dtype of the scores."""
    return ops.cast(ops.Softmax(-1)(ops.cast(scores, ms.float32)), scores.dtype)


def nearest_x2(x):
    """Repeat every pixel 2x2: (b, c, h, w) -> (b, c, 2h, 2w)."""
    b, c, h, w = x.shape
    x = ops.tile(ops.reshape(x, (b * c * h, 1, w, 1)), (1, 2, 1, 2))  # (b*c*h, 2, w, 2)
    return ops.reshape(x, (b, c, 2 * h, 2 * w))


def pixel_shuffle_x2(x):
    """(b, 4c, h, w) -> (b, c, 2h, 2w); channel 4*k + 2*dy + dx goes to pixel (2y + dy, 2x + dx) of channel k."""
    b, c, h, w = x.shape
    x = ops.reshape(x, (b * c // 4, 2, 2, h, w))
    x = ops.transpose(x, (0, 3, 1, 4, 2))  # (b*c/4, h, 2, w, 2)
    return ops.reshape(x, (b, c // 4, 2 * h, 2 * w))


class Resize(nn.Cell):
    """Bilinear resize (b, c, *size_in) -> (b, c, *size_out) as two products with constant matrices: exact, portable."""

    def __init__(self, size_in, size_out, scale=None):
        super().__init__()
        self.size_in, self.size_out = tuple(size_in), tuple(size_out)
        self.rows = Tensor(resize_matrix(size_in[0], size_out[0], scale=scale))
        self.columns = Tensor(resize_matrix(size_in[1], size_out[1], scale=scale).T.copy())

    def construct(self, x):
        b, c, h, w = x.shape
        x = ops.matmul(ops.reshape(x, (-1, w)), ops.cast(self.columns, x.dtype))  # (b*c*h, w')
        x = ops.transpose(ops.reshape(x, (b * c, h, -1)), (0, 2, 1))  # (b*c, w', h)
        x = ops.matmul(ops.reshape(x, (-1, h)), ops.transpose(ops.cast(self.rows, x.dtype), (1, 0)))  # (b*c*w', h')
        x = ops.transpose(ops.reshape(x, (b * c, self.size_out[1], self.size_out[0])), (0, 2, 1))
        return ops.reshape(x, (b, c, self.size_out[0], self.size_out[1]))


def gather_bilinear(image, grid):
    """Sample image (b, c, h, w) at grid (b, 2, h', w') = x, y in pixels -> (b, c, h', w').

    Positions outside the image take the border pixel (grid_sample with padding "border", align_corners=True).
    """
    b, c, h, w = image.shape
    height, width = grid.shape[2], grid.shape[3]
    grid = ops.reshape(ops.cast(grid, ms.float32), (b, 2, height * width))
    x, y = ops.split(grid, 1, 1)  # each (b, 1, h'*w')
    x = ops.minimum(ops.maximum(x, 0.0), float(w - 1))
    y = ops.minimum(ops.maximum(y, 0.0), float(h - 1))
    left, top = ops.floor(x), ops.floor(y)
    right, bottom = ops.minimum(left + 1.0, float(w - 1)), ops.minimum(top + 1.0, float(h - 1))
    dx, dy = ops.cast(x - left, image.dtype), ops.cast(y - top, image.dtype)
    dx, dy = spread(dx, (b, c, height * width)), spread(dy, (b, c, height * width))
    upper = _pick(image, top * w + left) * (1.0 - dx) + _pick(image, top * w + right) * dx
    lower = _pick(image, bottom * w + left) * (1.0 - dx) + _pick(image, bottom * w + right) * dx
    return ops.reshape(upper * (1.0 - dy) + lower * dy, (b, c, height, width))


def _pick(image, index):
    """image (b, c, h, w), index (b, 1, n) float whole numbers into h*w -> (b, c, n)."""
    b, c, h, w = image.shape
    n = index.shape[2]
    index = ops.cast(ops.reshape(index, (b, n)), ms.int32)
    flat = ops.reshape(image, (b, c, h * w))
    if b == 1:  # no slice here: a slice that takes a whole graph input hangs MindSpore Lite
        return ops.reshape(ops.gather(ops.reshape(flat, (c, h * w)), ops.reshape(index, (n,)), 1), (1, c, n))
    return stack(tuple([ops.gather(flat[i], index[i], 1) for i in range(b)]), 0)


class GroupNorm(nn.Cell):
    """Group normalisation of (b, c, h, w) with learned weight and bias; see `group_norm`."""

    def __init__(self, groups, channels, epsilon):
        super().__init__()
        self.groups, self.epsilon = groups, epsilon
        self.weight = Parameter(Tensor(np.ones(channels, np.float32)))
        self.bias = Parameter(Tensor(np.zeros(channels, np.float32)))

    def construct(self, x, frames=1, offset=None):
        return group_norm(x, self.weight, self.bias, self.groups, self.epsilon, frames, offset)


class LayerNorm(nn.Cell):
    """Layer normalisation of the last axis with learned weight and bias; see `layer_norm`."""

    def __init__(self, channels, epsilon):
        super().__init__()
        self.epsilon = epsilon
        self.weight = Parameter(Tensor(np.ones(channels, np.float32)))
        self.bias = Parameter(Tensor(np.zeros(channels, np.float32)))

    def construct(self, x):
        return layer_norm(x, self.weight, self.bias, self.epsilon)


class PReLU(nn.Cell):
    """max(x, 0) + slope * min(x, 0) with one slope a channel; x (b, c, h, w). Lite and the 310B have no PReLU."""

    def __init__(self, channels):
        super().__init__()
        self.weight = Parameter(Tensor(np.full(channels, 0.25, np.float32)))

    def construct(self, x):
        b, c, h, w = x.shape
        slope = spread(ops.reshape(self.weight, (1, c, 1)), (b, c, h * w))
        return ops.relu(x) - ops.reshape(slope, x.shape) * ops.relu(-x)


def conv2d(channels_in, channels_out, kernel, stride=1, has_bias=True, group=1):
    """Convolution with the padding that keeps the size at stride 1: (b, c, h, w) -> (b, c', h/stride, w/stride)."""
    return nn.Conv2d(
        channels_in,
        channels_out,
        kernel,
        stride=stride,
        pad_mode="pad",
        padding=kernel // 2,
        group=group,
        has_bias=has_bias,
    )


class PaddedConv2d(nn.Cell):
    """Convolution with unequal zero padding (top, bottom, left, right).

    The padding is its own operator: a Conv2d that pads unequally is exported to ONNX with its sides swapped.
    """

    def __init__(self, channels_in, channels_out, kernel, stride, padding, has_bias=True):
        super().__init__()
        top, bottom, left, right = padding
        self.pad = ops.Pad(((0, 0), (0, 0), (top, bottom), (left, right)))
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, pad_mode="valid", has_bias=has_bias)

    def construct(self, x):
        return self.conv(self.pad(x))


class TransposedConvX2(nn.Cell):
    """Transposed convolution, kernel 4, stride 2, padding 1: (b, c, h, w) -> (b, c', 2h, 2w).

    Written as one 3x3 convolution to 4c' channels, one for each phase of the output pixel, and a pixel shuffle: the
    310B has no transposed convolution and onnxruntime refuses the exported one. `phases` makes the weights.
    """

    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.conv = conv2d(channels_in, 4 * channels_out, 3)

    def construct(self, x):
        return pixel_shuffle_x2(self.conv(x))

    @staticmethod
    def phases(weight):
        """Transposed kernel (c, c', 4, 4) -> the 3x3 kernel (4c', c, 3, 3) of the four phases."""
        channels_in, channels_out = weight.shape[:2]
        # Output pixel 2i takes input i-1 with tap 3 and input i with tap 1; 2i+1 takes i with tap 2, i+1 with tap 0.
        taps = (((0, 3), (1, 1)), ((1, 2), (2, 0)))
        out = np.zeros((channels_out, 2, 2, channels_in, 3, 3), weight.dtype)
        for dy, rows in enumerate(taps):
            for dx, columns in enumerate(taps):
                for to_y, from_y in rows:
                    for to_x, from_x in columns:
                        out[:, dy, dx, :, to_y, to_x] = weight[:, :, from_y, from_x].T
        return out.reshape(4 * channels_out, channels_in, 3, 3)


class FrameConv(nn.Cell):
    """Convolution over time, kernel 3, zero padded: x (b*frames, c, h, w) -> (b*frames, c', h, w).

    A Conv3d with kernel (3, 1, 1). Each frame is stacked on its neighbours' channels, then a 1x1 convolution mixes
    them: no transposition, no Conv3d (absent on edge chips), no side longer than the image's.
    """

    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.conv = conv2d(3 * channels_in, channels_out, 1)

    def construct(self, x, frames):
        n, c, h, w = x.shape
        b = n // frames
        zero = ops.zeros((b, 1, c * h * w), x.dtype)
        clip = ops.reshape(x, (b, frames, c * h * w))
        if frames == 1:
            before, after = zero, zero
        else:
            before = ops.concat((zero, clip[:, : frames - 1]), 1)
            after = ops.concat((clip[:, 1:], zero), 1)
        shape = (n, c, h, w)
        stack = (ops.reshape(before, shape), x, ops.reshape(after, shape))
        return self.conv(ops.concat(stack, 1))  # (b*frames, 3c, h, w) -> (b*frames, c', h, w)

    @staticmethod
    def stacked(weight):
        """Conv3d kernel (c', c, 3, 1, 1) -> the 1x1 kernel (c', 3c, 1, 1), previous frame first."""
        out, channels = weight.shape[:2]
        taps = weight.reshape(out, channels, 3).transpose(0, 2, 1)  # (c', 3, c)
        return np.ascontiguousarray(taps).reshape(out, 3 * channels, 1, 1)


def columns_to_rows(x, parts):
    """(b, rows, parts*d) -> (b, parts*rows, d): each part of the columns below the one before it.

    This and its reverse stand in for transpositions: the CPU's kernel for those takes twice as long for five parts, as
    long for twenty, and keeps an index of 8 bytes for every element while the graph lives.
    """
    return _move_pieces(x, parts, 2, 1)


def rows_to_columns(x, parts):
    """(b, parts*rows, d) -> (b, rows, parts*d): each part of the rows beside the one before it."""
    return _move_pieces(x, parts, 1, 2)


def _move_pieces(x, parts, source, target):
    """Equal pieces of axis `source` side by side along axis `target`."""
    if parts == 1:
        return x
    pieces = ops.split(x, x.shape[source] // parts, source)
    # one by one: of a whole tuple the ONNX exporter names an output of Split that does not exist
    return ops.concat(tuple([pieces[index] for index in range(parts)]), target)
