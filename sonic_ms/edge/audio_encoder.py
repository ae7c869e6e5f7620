"""Audio side of sonic-edge: log-mel frames in, articulation curves out, 25 a second.

A stack of one-dimensional convolutions over time (written as (1, k) Conv2d, the form every exporter takes): two strided
ones bring 100 mel frames a second down to 25 video frames, residual blocks add context of about +-0.9 s.
"""

from dataclasses import dataclass

from mindspore import nn, ops

from sonic_ms.edge.curves import CURVES


@dataclass(frozen=True)
class AudioEncoderConfig:
    n_mels: int = 80
    stem: int = 96
    width: int = 160
    blocks: int = 5
    kernel: int = 5
    n_curves: int = len(CURVES)


def conv1d(in_channels, out_channels, kernel, stride=1):
    """Convolution along the last axis of (b, c, 1, t)."""
    return nn.Conv2d(
        in_channels, out_channels, (1, kernel), (1, stride), pad_mode="pad",
        padding=(0, 0, (kernel - 1) // 2, (kernel - 1) // 2), has_bias=True,
    )  # fmt: skip


class ResidualBlock(nn.Cell):
    def __init__(self, width, kernel):
        super().__init__()
        self.conv1 = conv1d(width, width, kernel)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = conv1d(width, width, kernel)
        self.norm2 = nn.BatchNorm2d(width)

    def construct(self, x):
        y = ops.relu(self.norm1(self.conv1(x)))
        return ops.relu(x + self.norm2(self.conv2(y)))


class AudioEncoder(nn.Cell):
    """mel (b, n_mels, 1, 4t), per-clip normalised -> curves (b, n_curves, t)."""

    def __init__(self, config):
        super().__init__()
        self.n_curves = config.n_curves
        self.stem = nn.SequentialCell(
            conv1d(config.n_mels, config.stem, config.kernel, 2),
            nn.BatchNorm2d(config.stem),
            nn.ReLU(),
            conv1d(config.stem, config.width, config.kernel, 2),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
        )
        self.blocks = nn.SequentialCell(*[ResidualBlock(config.width, config.kernel) for _ in range(config.blocks)])
        self.head = conv1d(config.width, config.n_curves, 1)

    def construct(self, mel):
        x = self.head(self.blocks(self.stem(mel)))  # (b, n_curves, 1, t)
        return ops.reshape(x, (x.shape[0], self.n_curves, x.shape[3]))
