"""Sizes of the networks that several models use. No MindSpore: hosts read them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes of the encoder; a chunk is 2 * max_source_positions mel frames of 10 ms. kept: numbers of heads and inner
    channels in layers that were cut, see groups.shrink."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    num_mel_bins: int = 80
    max_source_positions: int = 1500
    kept: dict[str, int] = field(default_factory=dict)
