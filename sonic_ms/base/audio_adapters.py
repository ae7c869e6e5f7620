"""Sonic's two small networks between Whisper and the UNet: audio tokens, and how much the face moves."""

from mindspore import nn, ops

from sonic_ms.nn.groups import columns, rows, shrink
from sonic_ms.nn.portable import LayerNorm, silu

UNITS = (  # inner channels of both networks
    ("first", rows("proj1.weight", "proj1.bias") + columns("proj2.weight")),
    ("second", rows("proj2.weight", "proj2.bias") + columns("proj3.weight")),
)


class Audio2Token(nn.Cell):
    """Whisper states around each frame (n, seq_len, blocks, channels) -> its audio tokens (n, context_tokens, d)."""

    UNITS = UNITS

    def __init__(self, config):
        super().__init__()
        inputs = config.seq_len * config.blocks * config.channels
        self.shape = (-1, config.context_tokens, config.output_dim)
        self.proj1 = nn.Dense(inputs, config.intermediate_dim)
        self.proj2 = nn.Dense(config.intermediate_dim, config.intermediate_dim)
        self.proj3 = nn.Dense(config.intermediate_dim, config.context_tokens * config.output_dim)
        self.norm = LayerNorm(config.output_dim, 1e-5)
        self.first = self.second = config.intermediate_dim
        shrink(self, config.kept)

    def construct(self, states):
        x = ops.reshape(states, (states.shape[0], -1))
        x = self.proj3(ops.relu(self.proj2(ops.relu(self.proj1(x)))))
        return self.norm(ops.reshape(x, self.shape))


class Audio2Bucket(nn.Cell):
    """Last Whisper states around each frame (n, seq_len, blocks, channels), clip (n, clip_channels) -> (n, 2).

    The two values, translation and expression, become motion buckets as 16 * value + 16.
    """

    UNITS = UNITS

    def __init__(self, config):
        super().__init__()
        inputs = config.seq_len * config.blocks * config.channels + config.clip_channels
        self.proj1 = nn.Dense(inputs, config.intermediate_dim)
        self.proj2 = nn.Dense(config.intermediate_dim, config.intermediate_dim)
        self.proj3 = nn.Dense(config.intermediate_dim, config.context_tokens * config.output_dim)
        self.first = self.second = config.intermediate_dim
        shrink(self, config.kept)

    def construct(self, states, clip):
        x = ops.concat((ops.reshape(states, (states.shape[0], -1)), clip), 1)
        return self.proj3(silu(self.proj2(silu(self.proj1(x)))))
