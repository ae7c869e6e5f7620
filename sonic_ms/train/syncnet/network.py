"""Lip-sync expert: does this mouth say this sound? Two towers, one for pictures and one for log-mel, and their cosine.

After J. S. Chung and A. Zisserman, "Out of time: automated lip sync in the wild" (2016). The pictures are at 12.5 a
second, the rate the UNet of sonic-base makes, so that the expert can judge what the UNet makes without resampling.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sonic_ms.media.audio import N_MELS
from sonic_ms.nn.portable import GroupNorm, conv2d

MOUTH_HEIGHT, MOUTH_WIDTH = 48, 64  # pixels of a mouth crop
MOUTH_IN_FACE = (0.1, 0.5, 0.9, 1.0)  # left, top, right, bottom of that crop in the face box: its lower half
MEL_PER_FRAME = 8  # 100 log-mel frames a second, 12.5 pictures a second
GROUPS, EPSILON = 8, 1e-5


@dataclass(frozen=True)
class SyncNetConfig:
    """frames: pictures of one window, 8 = 0.64 s. channels: of the levels, each half as large as the one before."""

    frames: int = 8
    channels: tuple[int, ...] = (32, 64, 128, 256)
    embedding: int = 256


def mouth_matrices(box, height, width):
    """Matrices that crop the mouth out of a picture: rows (48, height) and columns (width, 64), float32, so that
    rows @ picture @ columns is the crop. box: the face (x1, y1, x2, y2), the same for all frames of a clip, pixels."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = MOUTH_IN_FACE
    wide, high = x2 - x1, y2 - y1
    rows = _interval_matrix(y1 + top * high, y1 + bottom * high, height, MOUTH_HEIGHT)
    return rows, _interval_matrix(x1 + left * wide, x1 + right * wide, width, MOUTH_WIDTH).T.copy()


def _interval_matrix(start, stop, size_in, size_out):
    """(size_out, size_in): linear interpolation of [start, stop] in pixel edges, with as wide a triangle as there is to
    average when it shrinks; beyond the border lies the border pixel."""
    step = (stop - start) / size_out
    centres = np.clip(start + (np.arange(size_out) + 0.5) * step - 0.5, 0, size_in - 1)
    weights = np.maximum(0, 1 - np.abs(np.arange(size_in) - centres[:, None]) / max(step, 1.0))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def softplus(x):
    """log(1 + exp(x)), any shape, without overflow."""
    return ops.maximum(x, 0.0) + ops.log(1.0 + ops.exp(-ops.abs(x)))


class Level(nn.Cell):
    """Half the size, then a residual convolution: (n, c, h, w) -> (n, c', h/2, w/2)."""

    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.down = conv2d(channels_in, channels_out, 3, stride=2)
        self.norm1 = GroupNorm(GROUPS, channels_out, EPSILON)
        self.conv = conv2d(channels_out, channels_out, 3)
        self.norm2 = GroupNorm(GROUPS, channels_out, EPSILON)

    def construct(self, x):
        x = ops.relu(self.norm1(self.down(x)))
        return ops.relu(x + self.norm2(self.conv(x)))


class Tower(nn.Cell):
    """(n, c, h, w) -> embeddings of length 1, (n, embedding)."""

    def __init__(self, channels_in, height, width, config):
        super().__init__()
        sizes = (channels_in, *config.channels)
        self.levels = nn.CellList([Level(a, b) for a, b in pairwise(sizes)])
        for _ in config.channels:
            height, width = -(-height // 2), -(-width // 2)
        self.head = nn.Dense(sizes[-1] * height * width, config.embedding)

    def construct(self, x):
        for level in self.levels:
            x = level(x)
        x = self.head(ops.reshape(x, (x.shape[0], -1)))
        length = ops.sqrt(ops.ReduceSum(keep_dims=True)(x * x, 1) + 1e-8)
        return x / ops.tile(length, (1, x.shape[1]))


class SyncNet(nn.Cell):
    """mouths (n, 3*frames, 48, 64) in [-1, 1] and mel (n, 1, 80, 8*frames), normalised over its clip (see
    training.normalise_mel) -> two embeddings of length 1, (n, embedding). `logit` turns their cosine into the log-odds
    that they belong together."""

    def __init__(self, config):
        super().__init__()
        self.mouth = Tower(3 * config.frames, MOUTH_HEIGHT, MOUTH_WIDTH, config)
        self.sound = Tower(1, N_MELS, MEL_PER_FRAME * config.frames, config)
        self.scale = Parameter(Tensor(np.full(1, 5.0, np.float32)))
        self.bias = Parameter(Tensor(np.zeros(1, np.float32)))

    def construct(self, mouths, mel):
        return self.mouth(mouths), self.sound(mel)

    def logit(self, cosine):
        """cosine: any shape, float32."""
        return cosine * self.scale + self.bias
