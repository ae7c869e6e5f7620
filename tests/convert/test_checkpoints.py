"""The converter as a user runs it: a tree, single files, widths, and everything that must stop it."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
import torch
from sonic_ms.convert import checkpoints

from sonic_ms.errors import OutputError, WeightsError
from sonic_ms.files.weights import MODEL_FILE, TensorFile, fp32_to_bf16
from tests.support import tiny_checkpoint as tiny
from tools import pt2ms_weights as pt2ms

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The tiny tree in the published layout."""
    folder = tmp_path_factory.mktemp("tree")
    tiny.write_tree(folder)
    return folder


def copy_of(tree, tmp_path, *places):
    """A copy of some files of the tree."""
    for place in places:
        (tmp_path / "src" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / place, tmp_path / "src" / place)
    return tmp_path / "src"


def change(path, edit):
    """Rewrite a torch file after edit(state dict)."""
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


AUDIO = ("Sonic/audio2token.pth", "Sonic/audio2token.json")


def test_the_whole_tree(tree, tmp_path, capsys):
    arguments = ["--src", str(tree), "--dst", str(tmp_path / "ours"), "--json", str(tmp_path / "report")]
    assert pt2ms.main(arguments) == 0
    networks = {"unet", "vae", "clip", "whisper", "audio2token", "audio2bucket", "rife", "yoloface"}
    assert {path.name for path in (tmp_path / "ours").iterdir() if path.is_dir()} == networks
    report = {entry["network"]: entry for entry in json.loads((tmp_path / "report").read_text())["networks"]}
    assert set(report) == networks
    assert report["rife"]["dropped"] and all("block_tea" in name for name in report["rife"]["dropped"])
    for name, entry in report.items():
        theirs = len(tiny.tiny_shapes({"clip": "image_encoder", "whisper": "whisper_tiny"}.get(name, name)))
        assert entry["tensors"] == theirs, name
    assert "vae: 257 mapped, 0 dropped" in capsys.readouterr().out
    token = safetensors.numpy.load_file(tmp_path / "ours" / "audio2token" / MODEL_FILE)
    theirs = torch.load(tree / AUDIO[0], weights_only=True)
    assert all(np.array_equal(token[name], value.numpy()) for name, value in theirs.items())


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_widths(tree, tmp_path, dtype):
    arguments = ["--src", str(tree / AUDIO[0]), "--dst", str(tmp_path), "--dtype", dtype]
    assert pt2ms.main(arguments) == 0
    theirs = torch.load(tree / AUDIO[0], weights_only=True)["proj1.weight"].numpy()
    with TensorFile(tmp_path / "audio2token" / MODEL_FILE) as file:
        assert file.dtypes["proj1.weight"] == {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}[dtype]
        raw = file.read_raw("proj1.weight")
    expected = {"fp32": theirs, "fp16": theirs.astype(np.float16), "bf16": fp32_to_bf16(theirs)}[dtype]
    assert np.array_equal(raw, expected)


def test_a_dry_run_writes_nothing(tree, tmp_path, capsys):
    assert pt2ms.main(["--src", str(tree), "--dst", str(tmp_path / "ours"), "--dry-run"]) == 0
    assert not (tmp_path / "ours").exists()
    assert "unet: 430 mapped, 8 dropped, not written" in capsys.readouterr().out


def test_only_some_networks(tree, tmp_path, capsys):
    assert pt2ms.main(["--src", str(tree), "--dst", str(tmp_path), "--only", "rife, audio2token"]) == 0
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"rife", "audio2token"}
    assert pt2ms.main(["--src", str(tree / "RIFE"), "--dst", str(tmp_path), "--only", "rife,vae"]) == 8
    assert "does not hold vae" in capsys.readouterr().err


def test_files_are_recognised_by_their_keys(tree, tmp_path):
    """A wrong name or ending changes nothing."""
    (tmp_path / "src").mkdir()
    shutil.copy(tree / "RIFE" / "flownet.pkl", tmp_path / "src" / "vae.safetensors")
    (job,), _ = checkpoints.plan(tmp_path / "src")
    assert job.family.name == "rife"


def test_all_problems_of_all_files_are_listed_at_once(tree, tmp_path, capsys):
    src = copy_of(tree, tmp_path, *AUDIO, "RIFE/flownet.pkl")

    def break_audio(state):
        state["proj2.weight"] = state["proj2.weight"][:, 1:]
        state["proj4.weight"] = torch.zeros(2)
        del state["proj3.bias"]

    change(src / AUDIO[0], break_audio)
    change(src / "RIFE" / "flownet.pkl", lambda state: state.pop("module.block1.conv1.0.bias"))
    assert pt2ms.main(["--src", str(src), "--dst", str(tmp_path / "ours")]) == 8
    message = capsys.readouterr().err
    for part in (
        "missing: proj3.bias",
        "unknown: proj4.weight",
        "proj2.weight (80, 79) does not make proj2.weight (80, 80)",
        "missing: blocks.1.flow_head.up1.conv.bias",
    ):
        assert part in message
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_values_that_cannot_be_stored_stop_everything(tree, tmp_path, capsys, value):
    src = copy_of(tree, tmp_path, *AUDIO, "RIFE/flownet.pkl")
    change(src / "RIFE" / "flownet.pkl", lambda state: state["module.block0.conv0.0.0.weight"].fill_(value))
    assert pt2ms.main(["--src", str(src), "--dst", str(tmp_path / "ours"), "--dtype", "fp16"]) == 8
    assert "conv0.0" in capsys.readouterr().err
    assert not list((tmp_path / "ours").iterdir())  # audio2token was fine, and yet is not written


def test_sizes_that_shapes_do_not_tell_are_asked_for(tree, tmp_path, capsys):
    src = copy_of(tree, tmp_path, "whisper-tiny/model.safetensors")
    assert pt2ms.main(["--src", str(src), "--dst", str(tmp_path / "ours")]) == 8
    assert "encoder_attention_heads cannot be read from the tensors" in capsys.readouterr().err


def test_the_more_precise_of_two_copies_is_taken(tree, tmp_path):
    src = copy_of(tree, tmp_path, *AUDIO)
    state = torch.load(src / AUDIO[0], weights_only=True)
    torch.save({name: value.half() for name, value in state.items()}, src / "Sonic" / "a_half.pth")
    shutil.copy(src / AUDIO[1], src / "Sonic" / "a_half.json")
    (job,), notes = checkpoints.plan(src)
    assert job.path.name == "audio2token.pth" and "a_half.pth: the same network" in notes[0]


def test_the_unet_without_audio_is_not_enough(tree, tmp_path, capsys):
    src = copy_of(tree, tmp_path, "Sonic/unet.pth", "stable-video-diffusion-img2vid-xt/unet/config.json")
    full = torch.load(src / "Sonic" / "unet.pth", weights_only=True)
    torch.save({name: value for name, value in full.items() if "_ip." not in name}, src / "svd.pth")
    jobs, notes = checkpoints.plan(src)
    assert [job.family.name for job in jobs] == ["unet"] and "contained in" in notes[0]
    (src / "Sonic" / "unet.pth").unlink()
    assert pt2ms.main(["--src", str(src), "--dst", str(tmp_path / "ours")]) == 8
    assert "without Sonic's audio branch" in capsys.readouterr().err


def test_other_files_are_left_alone_and_named(tree, tmp_path, capsys):
    src = copy_of(tree, tmp_path, *AUDIO)
    torch.save({"optimizer.step": torch.zeros(1)}, src / "training.pt")
    assert pt2ms.main(["--src", str(src), "--dst", str(tmp_path / "ours")]) == 0
    assert "training.pt: not a network of sonic-base" in capsys.readouterr().out
    (src / AUDIO[0]).unlink()
    assert pt2ms.main(["--src", str(src), "--dst", str(tmp_path / "none")]) == 8
    assert "holds no network of sonic-base" in capsys.readouterr().err


def test_a_source_that_is_not_there(tmp_path, capsys):
    assert pt2ms.main(["--src", str(tmp_path / "nowhere"), "--dst", str(tmp_path / "ours")]) == 3
    assert "nowhere does not exist" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert pt2ms.main(["--src", str(tmp_path / "empty"), "--dst", str(tmp_path / "ours")]) == 3
    assert "holds no checkpoint" in capsys.readouterr().err


def test_a_destination_that_cannot_be_written(tree, tmp_path):
    (tmp_path / "file").write_text("")
    jobs, _ = checkpoints.plan(tree / "RIFE")
    with pytest.raises(OutputError, match="cannot write"):
        checkpoints.convert(jobs, tmp_path / "file" / "ours")


@pytest.mark.parametrize("text", ["{", "[1]", '{"architectures": 3}'])
def test_a_damaged_description_is_named(tree, tmp_path, text):
    src = copy_of(tree, tmp_path, "whisper-tiny/model.safetensors")
    (src / "whisper-tiny" / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json is not the JSON description"):
        checkpoints.plan(src)
