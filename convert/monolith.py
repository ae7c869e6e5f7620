"""The single file `svd_xt.safetensors`: UNet, VAE and CLIP under one roof, in the names of the original training code.

`views` gives each of them its names in the published folders (those of diffusers and transformers), so that sizes,
name maps and checks are the same for both layouts. Sources of the names: stability-ai/generative-models (module names),
diffusers' conversion of single files (which part comes from where).
"""

from sonic_ms.convert.maps import NameMap, under

from sonic_ms.errors import WeightsError

MAX_LEVELS = 8  # of a network; the tables below are built for as many as the names of a file speak of

UNET, CLIP, SECOND_VAE = (
    "model.diffusion_model.",
    "conditioner.embedders.0.open_clip.model.",
    "conditioner.embedders.3.",
)
SIGNATURE = (f"{UNET}input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight")
LEFT_OUT = (
    # The published VAE is the conditioner's encoder (with quant_conv) and the first stage's decoder (over time).
    "first_stage_model.encoder.",
    f"{SECOND_VAE}encoder.decoder.",
    f"{SECOND_VAE}encoder.post_quant_conv.",
    # What is left of CLIP's text side; only its vision side is used.
    *(
        CLIP + name
        for name in ("ln_final.", "logit_scale", "positional_embedding", "text_projection", "token_embedding.")
    ),
)

RES_LAYERS = {"in_layers.0.*": "norm1.*", "in_layers.2.*": "conv1.*"} | {
    "out_layers.0.*": "norm2.*",
    "out_layers.3.*": "conv2.*",
    "emb_layers.1.*": "time_emb_proj.*",
}
UNET_RES = {
    **under(RES_LAYERS | {"skip_connection.*": "conv_shortcut.*"}, "", "spatial_res_block."),
    **under(RES_LAYERS, "time_stack.", "temporal_res_block."),
    "time_mixer.mix_factor": "time_mixer.mix_factor",
}
ATTENTIONS = {
    f"{attention}.{name}": f"{attention}.{name}"
    for attention in ("attn1", "attn2")
    for name in ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.*")
}
FEED_FORWARDS = {"ff.net.0.proj.*": "ff.net.0.proj.*", "ff.net.2.*": "ff.net.2.*"}
NORMS = {f"norm{i}.*": f"norm{i}.*" for i in (1, 2, 3)}
TRANSFORMER = {
    **{f"{name}.*": f"{name}.*" for name in ("norm", "proj_in", "proj_out")},
    **under(ATTENTIONS | FEED_FORWARDS | NORMS, "transformer_blocks.0.", "transformer_blocks.0."),
    **under(ATTENTIONS | FEED_FORWARDS | NORMS, "time_stack.0.", "temporal_transformer_blocks.0."),
    "time_stack.0.ff_in.net.0.proj.*": "temporal_transformer_blocks.0.ff_in.net.0.proj.*",
    "time_stack.0.ff_in.net.2.*": "temporal_transformer_blocks.0.ff_in.net.2.*",
    "time_stack.0.norm_in.*": "temporal_transformer_blocks.0.norm_in.*",
    "time_pos_embed.0.*": "time_pos_embed.linear_1.*",
    "time_pos_embed.2.*": "time_pos_embed.linear_2.*",
    "time_mixer.mix_factor": "time_mixer.mix_factor",
}


def unet(levels, layers):
    """Table of the UNet. Its blocks are numbered through: an input, then each level's layers and downsampler."""
    table = {
        "input_blocks.0.0.*": "conv_in.*",
        "time_embed.0.*": "time_embedding.linear_1.*",
        "time_embed.2.*": "time_embedding.linear_2.*",
        "label_emb.0.0.*": "add_embedding.linear_1.*",
        "label_emb.0.2.*": "add_embedding.linear_2.*",
        "out.0.*": "conv_norm_out.*",
        "out.2.*": "conv_out.*",
        **under(UNET_RES, "middle_block.0.", "mid_block.resnets.0."),
        **under(TRANSFORMER, "middle_block.1.", "mid_block.attentions.0."),
        **under(UNET_RES, "middle_block.2.", "mid_block.resnets.1."),
    }
    for level in range(levels):
        first, last = 1 + level * (layers + 1), level == levels - 1
        for layer in range(layers):
            block, place = f"input_blocks.{first + layer}.", f"down_blocks.{level}."
            table |= under(UNET_RES, f"{block}0.", f"{place}resnets.{layer}.")
            if not last:  # the deepest level has no attention
                table |= under(TRANSFORMER, f"{block}1.", f"{place}attentions.{layer}.")
        if not last:
            table[f"input_blocks.{first + layers}.0.op.*"] = f"down_blocks.{level}.downsamplers.0.conv.*"
        first = level * (layers + 1)
        for layer in range(layers + 1):
            block, place = f"output_blocks.{first + layer}.", f"up_blocks.{level}."
            table |= under(UNET_RES, f"{block}0.", f"{place}resnets.{layer}.")
            if level:
                table |= under(TRANSFORMER, f"{block}1.", f"{place}attentions.{layer}.")
        if not last:  # the last module of a level's last block
            table[f"output_blocks.{first + layers}.{2 if level else 1}.conv.*"] = f"{place}upsamplers.0.conv.*"
    return table


SPATIAL_RES = {f"{name}.*": f"{name}.*" for name in ("norm1", "conv1", "norm2", "conv2")} | {
    "nin_shortcut.*": "conv_shortcut.*"
}
VIDEO_RES = {
    **under(SPATIAL_RES, "", "spatial_res_block."),
    **under({key: goal for key, goal in RES_LAYERS.items() if "emb" not in key}, "time_stack.", "temporal_res_block."),
    "mix_factor": "time_mixer.mix_factor",
}
VAE_ATTENTION = {"norm.*": "group_norm.*"}
for _source, _target in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
    VAE_ATTENTION[f"{_source}.weight"] = (f"{_target}.weight", "dense")  # were 1x1 convolutions
    VAE_ATTENTION[f"{_source}.bias"] = f"{_target}.bias"


def vae(levels):
    """Table of the VAE. Levels of its decoder are numbered from the finest, as the encoder's."""
    outer = {f"{name}.*": f"{name}.*" for name in ("conv_in", "conv_out")} | {"norm_out.*": "conv_norm_out.*"}
    encoder = {
        **outer,
        **under(SPATIAL_RES, "down.{}.block.{}.", "down_blocks.{}.resnets.{}."),
        "down.{}.downsample.conv.*": "down_blocks.{}.downsamplers.0.conv.*",
        **under(SPATIAL_RES, "mid.block_1.", "mid_block.resnets.0."),
        **under(VAE_ATTENTION, "mid.attn_1.", "mid_block.attentions.0."),
        **under(SPATIAL_RES, "mid.block_2.", "mid_block.resnets.1."),
    }
    decoder = {
        **outer,
        "conv_out.time_mix_conv.*": "time_conv_out.*",
        **under(VIDEO_RES, "mid.block_1.", "mid_block.resnets.0."),
        **under(VAE_ATTENTION, "mid.attn_1.", "mid_block.attentions.0."),
        **under(VIDEO_RES, "mid.block_2.", "mid_block.resnets.1."),
    }
    for level in range(levels):
        ours = f"up_blocks.{levels - 1 - level}."
        decoder |= under(VIDEO_RES, f"up.{level}.block.{{}}.", f"{ours}resnets.{{}}.")
        decoder[f"up.{level}.upsample.conv.*"] = f"{ours}upsamplers.0.conv.*"
    return {
        **under(encoder, f"{SECOND_VAE}encoder.encoder.", "encoder."),
        f"{SECOND_VAE}encoder.quant_conv.*": "quant_conv.*",
        **under(decoder, "first_stage_model.decoder.", "decoder."),
    }


def _fused(kind):
    """Goals of the fused query, key and value: its thirds."""
    return [(f"self_attn.{part}_proj.{kind}", f"third_{index}") for index, part in enumerate("qkv")]


CLIP_LAYER = {
    "ln_1.*": "layer_norm1.*",
    "ln_2.*": "layer_norm2.*",
    "attn.in_proj_weight": _fused("weight"),
    "attn.in_proj_bias": _fused("bias"),
    "attn.out_proj.*": "self_attn.out_proj.*",
    "mlp.c_fc.*": "mlp.fc1.*",
    "mlp.c_proj.*": "mlp.fc2.*",
}
CLIP_VISION = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.*": "vision_model.pre_layrnorm.*",
    **under(CLIP_LAYER, "transformer.resblocks.{}.", "vision_model.encoder.layers.{}."),
    "ln_post.*": "vision_model.post_layernorm.*",
    "proj": ("visual_projection.weight", "transpose"),
}


def _numbers(shapes, prefix):
    """How many different numbers follow a prefix in the names."""
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


def views(shapes):
    """{source: shape} of a whole file -> ([{published name: (source, Transform)} of each network], unknown names).

    Returns None if the file is of another layout.
    """
    if not all(name in shapes for name in SIGNATURE):
        return None
    levels = 1 + sum(name.endswith(".op.weight") for name in shapes)
    layers = _numbers(shapes, f"{UNET}input_blocks.") // levels - 1
    vae_levels = _numbers(shapes, "first_stage_model.decoder.up.")
    if not (max(levels, layers, vae_levels) <= MAX_LEVELS and min(layers, vae_levels) >= 1):
        sizes = f"{levels} levels of {layers} layers in the UNet, {vae_levels} levels in the VAE"
        raise WeightsError(f"{sizes}; expected 1 to {MAX_LEVELS} of each")
    tables = (
        under(unet(levels, layers), UNET, ""),
        vae(vae_levels),
        under(CLIP_VISION, f"{CLIP}visual.", ""),
    )
    found, known = [], set()
    for table in tables:
        names, view = NameMap(table), {}
        for source in shapes:
            goals = names.targets(source) or []
            view |= {target: (source, transform) for target, transform in goals}
            known |= {source} if goals else set()
        found.append(view)
    return found, sorted(name for name in shapes if name not in known and not name.startswith(LEFT_OUT))
