"""CLIP vision transformer with projection (ViT-H/14 in sonic-base): one embedding of the portrait.

Source of the architecture: Radford et al. 2021, OpenCLIP ViT-H/14 as published with Stable Video Diffusion.
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from sonic_ms.base.unet import MAX_SCORES
from sonic_ms.nn.attention import attention, merge_heads, split_heads
from sonic_ms.nn.groups import columns, rows, shrink
from sonic_ms.nn.portable import LayerNorm, gelu, quick_gelu

ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}


class Layer(nn.Cell):
    """Pre-norm transformer layer: (n, tokens, c) -> the same."""

    PROJECTED = rows(*[f"{one}_proj.{part}" for one in "qkv" for part in ("weight", "bias")])
    UNITS = (
        ("heads", PROJECTED + columns("out_proj.weight")),
        ("inner", rows("fc1.weight", "fc1.bias") + columns("fc2.weight")),
    )

    def __init__(self, config, max_scores):
        super().__init__()
        width = config.hidden_size
        self.heads, self.max_scores = config.num_attention_heads, max_scores
        self.inner = config.intermediate_size
        self.activation = ACTIVATIONS[config.hidden_act]
        self.layer_norm1 = LayerNorm(width, config.layer_norm_eps)
        self.q_proj = nn.Dense(width, width)
        self.k_proj = nn.Dense(width, width)
        self.v_proj = nn.Dense(width, width)
        self.out_proj = nn.Dense(width, width)
        self.layer_norm2 = LayerNorm(width, config.layer_norm_eps)
        self.fc1 = nn.Dense(width, config.intermediate_size)
        self.fc2 = nn.Dense(config.intermediate_size, width)

    def construct(self, x):
        y = self.layer_norm1(x)
        q = split_heads(self.q_proj(y), self.heads)  # (n, heads, tokens, d)
        k = split_heads(self.k_proj(y), self.heads)
        v = split_heads(self.v_proj(y), self.heads)
        x = x + self.out_proj(merge_heads(attention(q, k, v, self.max_scores)))
        return x + self.fc2(self.activation(self.fc1(self.layer_norm2(x))))


class CLIPVision(nn.Cell):
    """Normalised image (n, 3, size, size) -> embedding (n, projection_dim)."""

    def __init__(self, config, max_scores=MAX_SCORES):
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.width = width
        tokens = (config.image_size // patch) ** 2 + 1
        self.class_embedding = Parameter(Tensor(np.zeros(width, np.float32)))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, pad_mode="valid", has_bias=False)
        self.position_embedding = Parameter(Tensor(np.zeros((tokens, width), np.float32)))
        self.pre_layrnorm = LayerNorm(width, config.layer_norm_eps)
        self.layers = nn.CellList([Layer(config, max_scores) for _ in range(config.num_hidden_layers)])
        self.post_layernorm = LayerNorm(width, config.layer_norm_eps)
        self.visual_projection = nn.Dense(width, config.projection_dim, has_bias=False)
        shrink(self, config.kept)

    def construct(self, image):
        n = image.shape[0]
        patches = ops.reshape(self.patch_embedding(image), (n, self.width, -1))  # (n, c, patches)
        first = ops.tile(ops.reshape(self.class_embedding, (1, 1, self.width)), (n, 1, 1))
        x = ops.concat((first, ops.transpose(patches, (0, 2, 1))), 1) + self.position_embedding
        x = self.pre_layrnorm(x)
        for layer in self.layers:
            x = layer(x)
        return self.visual_projection(self.post_layernorm(x[:, 0]))
