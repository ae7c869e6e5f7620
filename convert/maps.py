"""Name maps: upstream tensor -> parameter of ours, as tables. Nothing is guessed.

A table is {source: target}. In a source, `{}` stands for a number, repeated in the target in the same order, and a
final `.*` for both weight and bias. A target is a name, (name, transform), a list of those where one tensor feeds
several parameters, or None: dropped on purpose, and the comment beside it says why. Transforms reshape or fold a
tensor; each also says what shape it makes, so that a whole checkpoint is checked before any data is read.
"""

import re
from dataclasses import dataclass

import numpy as np

from sonic_ms.nn.portable import FrameConv, TransposedConvX2


@dataclass(frozen=True)
class Transform:
    """apply(array) -> array; shape(shape of the source) -> shape of the target."""

    apply: object
    shape: object

    def then(self, other):
        """This one, then another."""
        return Transform(lambda x: other.apply(self.apply(x)), lambda shape: other.shape(self.shape(shape)))


def sigmoid(values):
    """1 / (1 + exp(-x)), computed in double precision."""
    return (1.0 / (1.0 + np.exp(-values.astype(np.float64)))).astype(values.dtype)


def third(part):
    """Part 0, 1 or 2 of a fused query, key and value matrix or bias."""

    def rows(values):
        size = len(values) // 3
        return values[part * size : (part + 1) * size]

    return Transform(rows, lambda shape: (shape[0] // 3, *shape[1:]))


TRANSFORMS = {
    "keep": Transform(lambda x: x, lambda shape: shape),
    # Conv3d (o, c, 3, 1, 1) -> 1x1 convolution over stacked neighbours (o, 3c, 1, 1)
    "frames": Transform(FrameConv.stacked, lambda shape: (shape[0], 3 * shape[1], 1, 1)),
    # transposed convolution (i, o, 4, 4) -> 3x3 convolution to four phases (4o, i, 3, 3), and its bias
    "phases": Transform(TransposedConvX2.phases, lambda shape: (4 * shape[1], shape[0], 3, 3)),
    "phases_bias": Transform(lambda x: np.repeat(x, 4), lambda shape: (4 * shape[0],)),
    # Conv1d (o, i, k) -> Conv2d (o, i, 1, k)
    "conv1d": Transform(lambda x: x[:, :, None], lambda shape: (*shape[:2], 1, *shape[2:])),
    # 1x1 Conv2d (o, i, 1, 1) -> Dense (o, i)
    "dense": Transform(lambda x: x[:, :, 0, 0], lambda shape: shape[:2]),
    "transpose": Transform(lambda x: x.T, lambda shape: tuple(reversed(shape))),
    "sigmoid": Transform(sigmoid, lambda shape: shape),
    "one_minus_sigmoid": Transform(lambda x: sigmoid(-x), lambda shape: shape),
    "third_0": third(0),
    "third_1": third(1),
    "third_2": third(2),
}


def under(table, source, target):
    """The table with a prefix on every source and target."""

    def move(goal):
        if goal is None:
            return None
        if isinstance(goal, list):
            return [move(part) for part in goal]
        return (target + goal[0], goal[1]) if isinstance(goal, tuple) else target + goal

    return {source + name: move(goal) for name, goal in table.items()}


class NameMap:
    """A compiled table: `targets(name)` -> list of (parameter, Transform), [] if dropped, None if unknown."""

    def __init__(self, table):
        self._entries = []
        for source, goal in table.items():
            pattern = re.escape(source).replace(r"\{\}", r"(\d+)")
            pattern = re.sub(r"\\\.\\\*$", r"\\.(weight|bias)", pattern)
            self._entries.append((re.compile(pattern), self._goals(source, goal)))

    @staticmethod
    def _goals(source, goal):
        goals = goal if isinstance(goal, list) else [] if goal is None else [goal]
        goals = [part if isinstance(part, tuple) else (part, "keep") for part in goals]
        # The weight or bias of a `.*` row is the last number to fill in.
        tail = lambda name: name[:-2] + ".{}" if source.endswith(".*") and name.endswith(".*") else name  # noqa: E731
        return [(tail(name), TRANSFORMS[transform]) for name, transform in goals]

    def targets(self, name):
        """See the class. A name that two rows match is an error in the table."""
        found = [(match, goals) for pattern, goals in self._entries if (match := pattern.fullmatch(name))]
        if len(found) > 1:
            raise ValueError(f"the name map has {len(found)} rows for {name}")
        if not found:
            return None
        match, goals = found[0]
        return [(target.format(*match.groups()), transform) for target, transform in goals]


SPATIAL_RES = {
    "norm1.*": "norm1.*",
    "conv1.*": "conv1.*",
    "time_emb_proj.*": "time_emb_proj.*",
    "norm2.*": "norm2.*",
    "conv2.*": "conv2.*",
    "conv_shortcut.*": "conv_shortcut.*",
}
TEMPORAL_RES = {
    "norm1.*": "norm1.*",
    "conv1.weight": ("conv1.conv.weight", "frames"),
    "conv1.bias": "conv1.conv.bias",
    "time_emb_proj.*": "time_emb_proj.*",
    "norm2.*": "norm2.*",
    "conv2.weight": ("conv2.conv.weight", "frames"),
    "conv2.bias": "conv2.conv.bias",
}


def video_res(mix):
    """Table of a spatio-temporal residual block; `mix` turns mix_factor into the weight of the temporal branch."""
    return {
        **under(SPATIAL_RES, "spatial_res_block.", "spatial_res_block."),
        **under(TEMPORAL_RES, "temporal_res_block.", "temporal_res_block."),
        "time_mixer.mix_factor": ("temporal_weight", mix),
    }


SELF_ATTENTION = {
    "to_q.weight": "to_q.weight",
    "to_k.weight": "to_k.weight",
    "to_v.weight": "to_v.weight",
    "to_out.0.*": "to_out.*",
}
FEED_FORWARD = {"net.0.proj.*": "expand.*", "net.2.*": "reduce.*"}
CROSS_ATTENTION = {
    "to_q.weight": "to_q.weight",
    "to_k.weight": None,  # the softmax over the single CLIP token is 1 whatever its key
    "to_out.0.*": "to_out.*",
}
CONTEXT = {
    "to_v.weight": "clip_value.weight",
    "processor.to_k_ip.0.weight": "audio_key.weight",
    "processor.to_v_ip.0.weight": "audio_value.weight",
}
TRANSFORMER = {
    "norm.*": "norm.*",
    "proj_in.*": "proj_in.*",
    **under(SELF_ATTENTION, "transformer_blocks.0.attn1.", "spatial.attn1."),
    **under(CROSS_ATTENTION, "transformer_blocks.0.attn2.", "spatial.attn2."),
    **under(FEED_FORWARD, "transformer_blocks.0.ff.", "spatial.ff."),
    **{f"transformer_blocks.0.norm{i}.*": f"spatial.norm{i}.*" for i in (1, 2, 3)},
    **under(SELF_ATTENTION, "temporal_transformer_blocks.0.attn1.", "temporal.attn1."),
    **under(CROSS_ATTENTION, "temporal_transformer_blocks.0.attn2.", "temporal.attn2."),
    **under(FEED_FORWARD, "temporal_transformer_blocks.0.ff_in.", "temporal.ff_in."),
    **under(FEED_FORWARD, "temporal_transformer_blocks.0.ff.", "temporal.ff."),
    **{f"temporal_transformer_blocks.0.norm{i}.*": f"temporal.norm{i}.*" for i in ("_in", 1, 2, 3)},
    "time_mixer.mix_factor": ("temporal_weight", "one_minus_sigmoid"),
    "proj_out.*": "proj_out.*",
}
TRANSFORMER_CONTEXT = {
    **under(CONTEXT, "transformer_blocks.0.attn2.", "spatial."),
    **under(CONTEXT, "temporal_transformer_blocks.0.attn2.", "temporal."),
    "time_pos_embed.linear_1.*": "time_pos_embed.linear_1.*",
    "time_pos_embed.linear_2.*": "time_pos_embed.linear_2.*",
}


def unet(config):
    """Table of Sonic's UNet. The contexts of the transformers are numbered in the order they run."""
    table = {
        "conv_in.*": "denoiser.conv_in.*",
        "conv_norm_out.*": "denoiser.conv_norm_out.*",
        "conv_out.*": "denoiser.conv_out.*",
        "down_blocks.{}.downsamplers.0.conv.*": "denoiser.downsamplers.{}.*",
        "up_blocks.{}.upsamplers.0.conv.*": "denoiser.upsamplers.{}.conv.*",
        **under(TRANSFORMER, "mid_block.attentions.0.", "denoiser.mid_attention."),
        **under(video_res("one_minus_sigmoid"), "mid_block.resnets.{}.", "denoiser.mid_block.resnets.{}."),
    }
    for name in ("time_embedding", "add_embedding"):
        table |= {f"{name}.linear_{i}.*": f"denoiser.{name}.linear_{i}.*" for i in (1, 2)}
    for side in ("down_blocks", "up_blocks"):
        place = f"{side}.{{}}.attentions.{{}}."
        table |= under(TRANSFORMER, place, f"denoiser.{place}")
        place = f"{side}.{{}}.resnets.{{}}."
        table |= under(video_res("one_minus_sigmoid"), place, f"denoiser.{place}")
    last, layers = config.levels - 1, config.layers_per_block
    places = [f"down_blocks.{i}.attentions.{j}." for i in range(last) for j in range(layers)]
    places += ["mid_block.attentions.0."]
    places += [f"up_blocks.{i}.attentions.{j}." for i in range(1, last + 1) for j in range(layers + 1)]
    for index, place in enumerate(places):
        table |= under(TRANSFORMER_CONTEXT, place, f"context.layers.{index}.")
    return table


VAE_ATTENTION = {
    "group_norm.*": "group_norm.*",
    "to_q.*": "to_q.*",
    "to_k.*": "to_k.*",
    "to_v.*": "to_v.*",
    "to_out.0.*": "to_out.*",
}
VAE = {
    "encoder.conv_in.*": "encoder.conv_in.*",
    **under(SPATIAL_RES, "encoder.down_blocks.{}.resnets.{}.", "encoder.resnets.{}.{}."),
    "encoder.down_blocks.{}.downsamplers.0.conv.*": "encoder.downsamplers.{}.conv.*",
    **under(SPATIAL_RES, "encoder.mid_block.resnets.{}.", "encoder.mid_resnets.{}."),
    **under(VAE_ATTENTION, "encoder.mid_block.attentions.0.", "encoder.mid_attention."),
    "encoder.conv_norm_out.*": "encoder.conv_norm_out.*",
    "encoder.conv_out.*": "encoder.conv_out.*",
    "quant_conv.*": "encoder.quant_conv.*",
    "decoder.conv_in.*": "decoder.conv_in.*",
    **under(video_res("sigmoid"), "decoder.mid_block.resnets.{}.", "decoder.mid_resnets.{}."),
    **under(VAE_ATTENTION, "decoder.mid_block.attentions.0.", "decoder.mid_attention."),
    **under(video_res("sigmoid"), "decoder.up_blocks.{}.resnets.{}.", "decoder.resnets.{}.{}."),
    "decoder.up_blocks.{}.upsamplers.0.conv.*": "decoder.upsamplers.{}.conv.*",
    "decoder.conv_norm_out.*": "decoder.conv_norm_out.*",
    "decoder.conv_out.*": "decoder.conv_out.*",
    "decoder.time_conv_out.weight": ("decoder.time_conv_out.conv.weight", "frames"),
    "decoder.time_conv_out.bias": "decoder.time_conv_out.conv.bias",
}

CLIP = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "patch_embedding.weight",
    "vision_model.embeddings.position_embedding.weight": "position_embedding",
    "vision_model.embeddings.position_ids": None,  # 0, 1, 2, ...: written by old versions of transformers
    "vision_model.pre_layrnorm.*": "pre_layrnorm.*",
    **{
        f"vision_model.encoder.layers.{{}}.{source}.*": f"layers.{{}}.{target}.*"
        for source, target in {
            "layer_norm1": "layer_norm1",
            "self_attn.q_proj": "q_proj",
            "self_attn.k_proj": "k_proj",
            "self_attn.v_proj": "v_proj",
            "self_attn.out_proj": "out_proj",
            "layer_norm2": "layer_norm2",
            "mlp.fc1": "fc1",
            "mlp.fc2": "fc2",
        }.items()
    },
    "vision_model.post_layernorm.*": "post_layernorm.*",
    "visual_projection.weight": "visual_projection.weight",
}

WHISPER = {
    "encoder.conv1.weight": ("conv1.weight", "conv1d"),
    "encoder.conv1.bias": "conv1.bias",
    "encoder.conv2.weight": ("conv2.weight", "conv1d"),
    "encoder.conv2.bias": "conv2.bias",
    "encoder.embed_positions.weight": "position_embedding",
    **{
        f"encoder.layers.{{}}.{source}": f"layers.{{}}.{target}"
        for source, target in {
            "self_attn_layer_norm.*": "self_attn_layer_norm.*",
            "self_attn.q_proj.*": "q_proj.*",
            "self_attn.k_proj.weight": "k_proj.weight",
            "self_attn.v_proj.*": "v_proj.*",
            "self_attn.out_proj.*": "out_proj.*",
            "final_layer_norm.*": "final_layer_norm.*",
            "fc1.*": "fc1.*",
            "fc2.*": "fc2.*",
        }.items()
    },
    "encoder.layer_norm.*": "layer_norm.*",
    # Sonic listens, it does not transcribe: the text decoder is not used.
    "proj_out.weight": None,
    "decoder.embed_tokens.weight": None,
    "decoder.embed_positions.weight": None,
    "decoder.layer_norm.*": None,
    **{
        f"decoder.layers.{{}}.{name}.*": None
        for name in (
            *(f"{kind}.{part}_proj" for kind in ("self_attn", "encoder_attn") for part in ("q", "k", "v", "out")),
            *("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm", "fc1", "fc2"),
        )
    },
}

AUDIO2BUCKET = {f"proj{i}.*": f"proj{i}.*" for i in (1, 2, 3)}
AUDIO2TOKEN = {**AUDIO2BUCKET, "norm.*": "norm.*"}

RIFE_HEAD = {
    "0.weight": ("up1.conv.weight", "phases"),
    "0.bias": ("up1.conv.bias", "phases_bias"),
    "1.weight": "act.weight",
    "2.weight": ("up2.conv.weight", "phases"),
    "2.bias": ("up2.conv.bias", "phases_bias"),
}
RIFE_PAIR = {"0.0.*": "first.conv.*", "0.1.weight": "first.act.weight"} | {
    "1.0.*": "second.conv.*",
    "1.1.weight": "second.act.weight",
}
RIFE_BLOCK = {
    "conv0.{}.0.*": "conv0.{}.conv.*",
    "conv0.{}.1.weight": "conv0.{}.act.weight",
    **{key: goal for i in range(4) for key, goal in under(RIFE_PAIR, f"convblock{i}.", f"blocks.{i}.").items()},
    **under(RIFE_HEAD, "conv1.", "flow_head."),
    **under(RIFE_HEAD, "conv2.", "mask_head."),
}
RIFE = {
    **under(RIFE_BLOCK, "block{}.", "blocks.{}."),
    # The teacher refines the flow with the true middle frame, in training only.
    **dict.fromkeys(under(RIFE_BLOCK, "block_tea.", "")),
}

CONV_BN = {
    "conv.weight": "conv.weight",
    "conv.bias": "conv.bias",  # instead of the rest, where the normalisation is folded into the convolution
    "bn.weight": "bn.gamma",
    "bn.bias": "bn.beta",
    "bn.running_mean": "bn.moving_mean",
    "bn.running_var": "bn.moving_variance",
    "bn.num_batches_tracked": None,  # a counter of training
}
YOLO_LAYER = {
    **CONV_BN,
    **{
        key: goal
        for name in ("stem_1", "stem_2a", "stem_2b", "stem_3", "cv1", "cv2", "cv3")
        for key, goal in under(CONV_BN, f"{name}.", f"{name}.").items()
    },
    **under(CONV_BN, "m.{}.cv1.", "m.{}.cv1."),
    **under(CONV_BN, "m.{}.cv2.", "m.{}.cv2."),
}
YOLOFACE = {
    **under(YOLO_LAYER, "model.{}.", "layer_{}."),
    "model.23.anchors": None,  # anchor_grid over the strides
    "model.23.anchor_grid": None,  # in config.json
    "model.23.m.{}.*": "heads.{}.*",
}
