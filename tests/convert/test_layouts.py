"""Checkpoints that hold the same networks in other layouts: ComfyUI's single file, CTranslate2, folded detectors."""

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from sonic_ms.convert import checkpoints, ctranslate2, monolith
from sonic_ms.convert.readers import open_checkpoint

from sonic_ms.errors import WeightsError
from sonic_ms.files.weights import MODEL_FILE
from tests.support import tiny_checkpoint as tiny
from tools import pt2ms_weights as pt2ms

pytestmark = [pytest.mark.slow]

MANIFESTS = Path(__file__).resolve().parents[2] / "convert" / "manifests"
PARTS = {"svd_unet": "model.diffusion_model.", "vae": "", "image_encoder": "conditioner.embedders.0.open_clip.model."}
RESNET = (
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"), ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection"),
)  # fmt: skip


def swapped(name, pairs):
    """The name with whole parts replaced, first match of each pair."""
    for published, original in pairs:
        name = re.sub(rf"(?<![\w]){re.escape(published)}(?=\.|$)", original, name)
    return name


def original_unet(name, layers, levels):
    """Name of diffusers -> name in the original training code. Written against the converter's tables, the other way
    round: blocks of a level are found by counting, not by their names there."""
    fixed = (
        ("conv_in", "input_blocks.0.0"), ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"), ("add_embedding.linear_1", "label_emb.0.0"),
        ("add_embedding.linear_2", "label_emb.0.2"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
    )  # fmt: skip
    if not name.startswith(("down_blocks", "up_blocks", "mid_block")):
        return swapped(name, fixed)
    kind, *rest = name.split(".")
    if kind == "mid_block":
        module, index, *tail = rest
        place = f"middle_block.{1 if module == 'attentions' else 2 * int(index)}"
    else:
        level, module, index, *tail = int(rest[0]), *rest[1:]
        if module in ("downsamplers", "upsamplers"):
            last = level * (layers + 1) + layers
            place = f"input_blocks.{last + 1}.0" if kind == "down_blocks" else f"output_blocks.{last}.{1 + (level > 0)}"
            tail = ["op", *tail[1:]] if kind == "down_blocks" else tail
        else:
            count = level * (layers + 1) + int(index)
            block = f"input_blocks.{count + 1}" if kind == "down_blocks" else f"output_blocks.{count}"
            place = f"{block}.{int(module == 'attentions')}"
    tail = ".".join(tail)
    if module == "resnets":
        spatial, temporal = tail.startswith("spatial_res_block."), tail.startswith("temporal_res_block.")
        inner = swapped(tail.split(".", 1)[1], RESNET) if spatial or temporal else tail
        tail = f"time_stack.{inner}" if temporal else inner
    elif module == "attentions":
        tail = tail.replace("temporal_transformer_blocks.", "time_stack.")
        tail = tail.replace("time_pos_embed.linear_1", "time_pos_embed.0").replace("time_pos_embed.linear_2",
                                                                                   "time_pos_embed.2")  # fmt: skip
    return f"{place}.{tail}"


def original_vae(name, levels):
    """Name of the published VAE -> name in the original file; its encoder belongs to the conditioner there."""
    if name.startswith("quant_conv."):
        return f"conditioner.embedders.3.encoder.{name}"
    side, rest = name.split(".", 1)
    prefix = "conditioner.embedders.3.encoder.encoder." if side == "encoder" else "first_stage_model.decoder."
    rest = rest.replace("time_conv_out", "conv_out.time_mix_conv").replace("conv_norm_out", "norm_out")
    rest = rest.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    rest = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", rest)
    rest = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", rest)
    rest = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", rest)
    rest = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", rest)
    if "attentions" in rest:
        rest = rest.replace("mid_block.attentions.0", "mid.attn_1").replace("to_out.0", "proj_out")
        return prefix + swapped(rest, (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v")))
    if "temporal_res_block" in rest:
        rest = rest.replace("temporal_res_block.", "time_stack.")
        return prefix + swapped(rest, RESNET)
    rest = rest.replace("spatial_res_block.", "").replace("time_mixer.mix_factor", "mix_factor")
    return prefix + rest.replace("conv_shortcut", "nin_shortcut")


def original_clip(tensors):
    """{name of transformers: array} -> {name of OpenCLIP: array}; queries, keys and values are one matrix there."""
    pairs = (
        ("vision_model.embeddings.class_embedding", "class_embedding"),
        ("vision_model.embeddings.position_embedding.weight", "positional_embedding"),
        ("vision_model.embeddings.patch_embedding", "conv1"), ("vision_model.pre_layrnorm", "ln_pre"),
        ("vision_model.post_layernorm", "ln_post"), ("vision_model.encoder.layers", "transformer.resblocks"),
        ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("self_attn.out_proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
    )  # fmt: skip
    out = {}
    for name, values in tensors.items():
        if name == "visual_projection.weight":
            out["proj"] = values.T
        elif "q_proj" in name:
            three = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            out[swapped(name.replace("self_attn.q_proj.", "attn.in_proj_"), pairs)] = np.concatenate(three)
        elif "k_proj" not in name and "v_proj" not in name:
            out[swapped(name, pairs)] = values
    return out


def original(networks, layers, levels):
    """{network: {published name: array}} -> the tensors of one file, with parts that nobody needs."""
    file = {}
    for name, values in networks["svd_unet"].items():
        file[f"{PARTS['svd_unet']}{original_unet(name, layers, levels)}"] = values
    for name, values in networks["vae"].items():
        if "attentions" in name and name.endswith("weight") and values.ndim == 2:
            values = values[:, :, None, None]  # 1x1 convolutions there
        file[original_vae(name, 4)] = values
    for name, values in original_clip(networks["image_encoder"]).items():
        file[f"{PARTS['image_encoder']}visual.{name}"] = values
    for name in ("token_embedding.weight", "ln_final.weight", "logit_scale", "text_projection", "positional_embedding"):
        file[PARTS["image_encoder"] + name] = np.zeros(2, np.float32)
    file["first_stage_model.encoder.conv_in.weight"] = np.zeros(2, np.float32)
    file["conditioner.embedders.3.encoder.decoder.conv_in.weight"] = np.zeros(2, np.float32)
    return {name: np.ascontiguousarray(values) for name, values in file.items()}


def without_audio(tensors):
    return {name: values for name, values in tensors.items() if "_ip." not in name}


@pytest.fixture(scope="module")
def networks():
    """The tiny networks of the single file, in the published names."""
    found = {name: tiny.tensors_of(name, 0) for name in ("unet", "vae", "image_encoder")}
    return {"svd_unet": without_audio(found.pop("unet")), **found}


@pytest.fixture(scope="module")
def single(networks, tmp_path_factory):
    """The single file with upstream's descriptions beside it, and Sonic's own UNet."""
    folder = tmp_path_factory.mktemp("comfy")
    tiny.write_tree(folder / "tree")
    file = original(networks, 1, 4)
    safetensors.numpy.save_file(file, folder / "svd_xt.safetensors")
    for place, fields in tiny.CONFIGS.items():
        if "stable-video" in place or "image_encoder" in place:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(json.dumps(fields))
    return folder, file


def test_the_single_file_gives_the_same_networks_as_the_folders(networks, single, tmp_path):
    folder, _ = single
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "svd_xt.safetensors").symlink_to(folder / "svd_xt.safetensors")
    (tmp_path / "one" / "unet.pth").symlink_to(folder / "tree" / "Sonic" / "unet.pth")
    for place, fields in tiny.CONFIGS.items():
        (tmp_path / "one" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "one" / place).write_text(json.dumps(fields))
        (tmp_path / "folders" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / place).write_text(json.dumps(fields))
    for name in ("vae", "image_encoder"):
        path = tmp_path / "folders" / tiny.FILES[name]
        safetensors.numpy.save_file(networks[name], path)
    assert pt2ms.main(["--src", str(tmp_path / "one"), "--dst", str(tmp_path / "a")]) == 0
    assert pt2ms.main(["--src", str(tmp_path / "folders"), "--dst", str(tmp_path / "b")]) == 0
    assert {path.name for path in (tmp_path / "a").iterdir() if path.is_dir()} == {"unet", "vae", "clip"}
    for name in ("vae", "clip"):
        ours, theirs = (safetensors.numpy.load_file(tmp_path / side / name / MODEL_FILE) for side in "ab")
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[key], values) for key, values in theirs.items()), name
        assert (tmp_path / "a" / name / "config.json").read_text() == (
            tmp_path / "b" / name / "config.json"
        ).read_text()


def test_the_unet_of_the_single_file_is_the_published_one(networks, single):
    """It is not enough for Sonic, so only the plan is compared: every tensor under its published name."""
    _, file = single
    views, unknown = monolith.views({name: values.shape for name, values in file.items()})
    assert not unknown
    assert set(views[0]) == set(networks["svd_unet"])
    for name, (source, transform) in views[0].items():
        assert np.array_equal(transform.apply(file[source]), networks["svd_unet"][name]), name


def test_every_tensor_of_the_full_size_single_file_has_its_place():
    shapes = {
        name: {
            key: np.broadcast_to(np.float32(0), shape)
            for key, shape in json.loads((MANIFESTS / f"{name}.json").read_text())["tensors"].items()
        }
        for name in PARTS
    }
    names = {original_unet(name, 2, 4) for name in shapes["svd_unet"]}
    assert len(names) == 1428
    file = {PARTS["svd_unet"] + original_unet(n, 2, 4): v.shape for n, v in shapes["svd_unet"].items()}
    for name, values in shapes["vae"].items():
        flat = "attentions" in name and name.endswith("weight") and values.ndim == 2
        file[original_vae(name, 4)] = (*values.shape, 1, 1) if flat else values.shape
    file |= {f"{PARTS['image_encoder']}visual.{n}": v.shape for n, v in original_clip(shapes["image_encoder"]).items()}
    views, unknown = monolith.views(file)
    assert not unknown
    for view, network in zip(views, PARTS):
        assert set(view) == set(shapes[network])
        for name, (source, transform) in view.items():
            assert transform.shape(file[source]) == shapes[network][name].shape, name


def test_unknown_tensors_of_a_single_file_are_named(single, tmp_path):
    _, file = single
    safetensors.numpy.save_file({**file, "model.diffusion_model.surprise": np.zeros(1)}, tmp_path / "svd.safetensors")
    with pytest.raises(WeightsError, match=r"unknown tensors: model\.diffusion_model\.surprise"):
        checkpoints.plan(tmp_path)
    broken = {name: values for name, values in file.items() if not name.endswith("mlp.c_fc.bias")}
    safetensors.numpy.save_file(broken, tmp_path / "svd.safetensors")
    (tmp_path / "svd.json").write_text(json.dumps({"num_attention_heads": [1, 2], "hidden_act": "gelu"}))
    with pytest.raises(WeightsError, match=r"missing: .*fc1\.bias"):
        checkpoints.plan(tmp_path)


def write_ctranslate2(path, arrays, version=6):
    """The format of ctranslate2.py's docstring."""

    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    kinds = {np.dtype("f4"): 0, np.dtype("i1"): 1, np.dtype("i2"): 2, np.dtype("i4"): 3, np.dtype("f2"): 4}
    data = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, values in arrays.items():
        data += text(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        data += struct.pack("<BI", kinds[values.dtype], values.nbytes) + values.tobytes()
    path.write_bytes(data + struct.pack("<I", 0))
    return path


def whisper_arrays():
    """A tiny encoder in transformers' names, and the same in CTranslate2's."""
    tensors = {
        name.removeprefix("model."): values
        for name, values in tiny.tensors_of("whisper_tiny", 0).items()
        if name.startswith("model.encoder.")
    }
    arrays = {"encoder/num_heads": np.array(4, np.int16), "decoder/embeddings/weight": np.zeros((3, 2), np.float32)}
    for name, values in tensors.items():
        place = name.replace(".", "/").replace("encoder/layers/", "encoder/layer_")
        if "self_attn/q_proj/weight" in place:
            layer = name.split("self_attn")[0]
            arrays[f"{place.split('self_attn')[0]}self_attention/linear_0/weight"] = np.concatenate(
                [tensors[f"{layer}self_attn.{part}_proj.weight"] for part in "qkv"]
            )
            biases = [tensors[f"{layer}self_attn.q_proj.bias"], tensors[f"{layer}self_attn.v_proj.bias"]]
            bias = np.concatenate([biases[0], np.zeros_like(biases[0]), biases[1]])
            arrays[f"{place.split('self_attn')[0]}self_attention/linear_0/bias"] = bias
        elif "_proj" not in place or "out_proj" in place:
            pairs = (
                ("self_attn_layer_norm/", "self_attention/layer_norm/"),
                ("self_attn/out_proj", "self_attention/linear_1"),
                ("final_layer_norm", "ffn/layer_norm"), ("fc1", "ffn/linear_0"), ("fc2", "ffn/linear_1"),
                ("embed_positions/weight", "position_encodings/encodings"),
            )  # fmt: skip
            for theirs, ours in pairs:
                place = place.replace(theirs, ours)
            if "layer_norm" in place:
                place = place.replace("weight", "gamma").replace("bias", "beta")
            arrays[place] = values
    return tensors, arrays


@pytest.mark.parametrize(("dtype", "version"), [(np.float32, 6), (np.float16, 5)])
def test_ctranslate2_gives_the_same_encoder(tmp_path, dtype, version):
    tensors, arrays = whisper_arrays()
    arrays = {name: values.astype(dtype) if values.dtype == np.float32 else values for name, values in arrays.items()}
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
    write_ctranslate2(tmp_path / "a" / "model.bin", arrays, version)
    safetensors.numpy.save_file({f"model.{name}": v.astype(dtype) for name, v in tensors.items()},
                                tmp_path / "b" / "model.safetensors")  # fmt: skip
    (tmp_path / "b" / "config.json").write_text('{"encoder_attention_heads": 4}')
    for side in ("a", "b"):
        assert pt2ms.main(["--src", str(tmp_path / side), "--dst", str(tmp_path / side / "ours")]) == 0
    ours, theirs = (safetensors.numpy.load_file(tmp_path / side / "ours" / "whisper" / MODEL_FILE) for side in "ab")
    assert set(ours) == set(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    configs = [(tmp_path / side / "ours" / "whisper" / "config.json").read_text() for side in "ab"]
    assert configs[0] == configs[1]


def test_damaged_ctranslate2_files_are_refused(tmp_path):
    _, arrays = whisper_arrays()
    path = write_ctranslate2(tmp_path / "model.bin", arrays)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="truncated"):
        open_checkpoint(path)
    path.write_bytes(data[:18])
    with pytest.raises(WeightsError, match="truncated"):
        open_checkpoint(path)
    path.write_bytes(data[:22] + b"\xff\xff\xff\x7f" + data[26:])
    with pytest.raises(WeightsError, match=r"announces \d+ arrays"):
        open_checkpoint(path)


def test_a_quantised_or_unknown_array_stops_the_converter(tmp_path):
    _, arrays = whisper_arrays()
    write_ctranslate2(tmp_path / "model.bin", {**arrays, "encoder/surprise": np.zeros(2, np.float32)})
    with pytest.raises(WeightsError, match="unknown tensors: encoder/surprise"):
        checkpoints.plan(tmp_path)
    quantised = {n: v.astype(np.int8) if n.endswith("linear_1/weight") else v for n, v in arrays.items()}
    write_ctranslate2(tmp_path / "model.bin", quantised)
    with pytest.raises(WeightsError, match=r"linear_1/weight.*I8"):
        checkpoints.plan(tmp_path)


def test_the_names_of_ctranslate2_do_not_overlap():
    assert ctranslate2.views({"conv.weight": (1,)}) is None


def folded(state):
    """The detector's state dict with every normalisation folded into its convolution."""
    out = {}
    for name, values in state.items():
        if ".bn." in name:
            continue
        norm = name.replace("conv.weight", "bn.")
        if f"{norm}weight" in state:
            scale = state[f"{norm}weight"] / torch.sqrt(state[f"{norm}running_var"] + 1e-3)
            out[name] = values * scale[:, None, None, None]
            bias = state[f"{norm}bias"] - state[f"{norm}running_mean"] * scale
            out[name.replace("conv.weight", "conv.bias")] = bias
        else:
            out[name] = values
    return out


def test_a_folded_detector_finds_the_same(tmp_path):
    import mindspore as ms

    from sonic_ms.files.weights import load_weights

    state = {name: torch.from_numpy(values) for name, values in tiny.tensors_of("yoloface", 0).items()}
    maps = {}
    image = ms.Tensor(np.random.default_rng(0).random((1, 3, 64, 96), np.float32))
    for kind, tensors in (("plain", state), ("folded", folded(state))):
        (tmp_path / kind).mkdir()
        torch.save(tensors, tmp_path / kind / "yoloface.pt")
        (job,), _ = checkpoints.plan(tmp_path / kind)
        assert job.config.norm == (kind == "plain")
        checkpoints.convert([job], tmp_path / f"{kind}-ours")
        cell = load_weights(job.family.cell(job.config).set_train(False), tmp_path / f"{kind}-ours" / "yoloface")
        maps[kind] = [part.asnumpy() for part in cell(image)]
    for plain, fold in zip(maps["plain"], maps["folded"]):
        assert np.linalg.norm(plain - fold) <= 1e-5 * np.linalg.norm(plain)
