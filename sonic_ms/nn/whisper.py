"""Whisper audio encoder, whole or its first layers (Radford et al. 2022; layout as in transformers)."""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sonic_ms.nn.attention import attention, merge_heads, split_heads
from sonic_ms.nn.groups import columns, rows, shrink
from sonic_ms.nn.portable import LayerNorm, gelu

EPSILON = 1e-5
MAX_SCORES = 1 << 27  # of one block of attention: a chunk of 30 s has a tenth


class Layer(nn.Cell):
    """Pre-norm transformer layer: (n, tokens, c) -> the same. The keys have no bias."""

    PROJECTED = rows("q_proj.weight", "q_proj.bias", "k_proj.weight", "v_proj.weight", "v_proj.bias")
    UNITS = (
        ("heads", PROJECTED + columns("out_proj.weight")),
        ("inner", rows("fc1.weight", "fc1.bias") + columns("fc2.weight")),
    )

    def __init__(self, config, max_scores):
        super().__init__()
        width = config.d_model
        self.heads, self.max_scores = config.encoder_attention_heads, max_scores
        self.inner = config.encoder_ffn_dim
        self.self_attn_layer_norm = LayerNorm(width, EPSILON)
        self.q_proj = nn.Dense(width, width)
        self.k_proj = nn.Dense(width, width, has_bias=False)
        self.v_proj = nn.Dense(width, width)
        self.out_proj = nn.Dense(width, width)
        self.final_layer_norm = LayerNorm(width, EPSILON)
        self.fc1 = nn.Dense(width, config.encoder_ffn_dim)
        self.fc2 = nn.Dense(config.encoder_ffn_dim, width)

    def construct(self, x):
        y = self.self_attn_layer_norm(x)
        q = split_heads(self.q_proj(y), self.heads)  # (n, heads, tokens, d)
        k = split_heads(self.k_proj(y), self.heads)
        v = split_heads(self.v_proj(y), self.heads)
        x = x + self.out_proj(merge_heads(attention(q, k, v, self.max_scores)))
        return x + self.fc2(gelu(self.fc1(self.final_layer_norm(x))))


class WhisperLayers(nn.Cell):
    """Log-mel (n, 80, 2 * positions) -> list of the hidden states (n, positions, c) before and after every layer.

    One row is 20 ms of sound.
    """

    def __init__(self, config, max_scores=MAX_SCORES):
        super().__init__()
        width = config.d_model
        # Convolutions over time as (1, 3) ones over (n, c, 1, time): the exported Conv1d is invalid ONNX.
        self.conv1 = nn.Conv2d(config.num_mel_bins, width, (1, 3), pad_mode="pad", padding=(0, 0, 1, 1), has_bias=True)
        self.conv2 = nn.Conv2d(width, width, (1, 3), (1, 2), pad_mode="pad", padding=(0, 0, 1, 1), has_bias=True)
        self.position_embedding = Parameter(Tensor(np.zeros((config.max_source_positions, width), np.float32)))
        self.layers = nn.CellList([Layer(config, max_scores) for _ in range(config.encoder_layers)])
        shrink(self, config.kept)

    def construct(self, mel):
        return self.states(mel)

    def states(self, mel):
        n, bins, length = mel.shape
        x = gelu(self.conv1(ops.reshape(mel, (n, bins, 1, length))))
        x = gelu(self.conv2(x))  # (n, c, 1, length / 2)
        x = ops.transpose(ops.reshape(x, (n, -1, length // 2)), (0, 2, 1)) + self.position_embedding
        states = [x]
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        return states


class WhisperEncoder(WhisperLayers):
    """Log-mel (n, 80, 2 * positions) -> hidden states (n, positions, layers + 1, c), the last one normalised."""

    def __init__(self, config, max_scores=MAX_SCORES):
        super().__init__(config, max_scores)
        self.layer_norm = LayerNorm(config.d_model, EPSILON)

    def construct(self, mel):
        states = self.states(mel)
        states[-1] = self.layer_norm(states[-1])
        n, positions, width = states[0].shape
        return ops.concat(tuple([ops.reshape(state, (n, positions, 1, width)) for state in states]), 2)
