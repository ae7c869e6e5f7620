"""What the converter finds in a folder and what it says of the rest: partial success is never called success."""

import gzip
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
import torch
from sonic_ms.convert import checkpoints, families
from sonic_ms.convert.files import cause_of, spoken_of
from sonic_ms.convert.readers import open_checkpoint

from sonic_ms.errors import UsageError, WeightsError
from sonic_ms.files.weights import MODEL_FILE, TensorFile
from tests.support import tiny_checkpoint as tiny
from tools import pt2ms_weights as pt2ms

pytestmark = [pytest.mark.slow]

AUDIO = "Sonic/audio2token.pth"
RIFE = "RIFE/flownet.pkl"
WHISPER = "whisper-tiny/model.safetensors"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The tiny tree in the published layout."""
    folder = tmp_path_factory.mktemp("tree")
    tiny.write_tree(folder)
    return folder


@pytest.fixture
def src(tree, tmp_path):
    """A folder with one adapter, its description, and RIFE."""
    folder = tmp_path / "src"
    for place in (AUDIO, "Sonic/audio2token.json", RIFE):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / place, folder / place)
    return folder


def run(src, capsys, *more):
    """Exit code, what was printed, and the error."""
    code = pt2ms.main(["--src", str(src), "--dst", str(src.parent / "ours"), *more])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def written(src):
    folder = src.parent / "ours"
    return {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()


def names(jobs):
    return [job.family.name for job in jobs]


@pytest.mark.parametrize("name", ["AUDIO2TOKEN.PTH", "audio2token.Pt", "Audio2Token.CKPT"])
def test_the_case_of_a_name_does_not_matter(src, name):
    (src / AUDIO).rename(src / "Sonic" / name)
    (src / "Sonic" / "audio2token.json").rename((src / "Sonic" / name).with_suffix(".json"))
    assert names(checkpoints.plan(src)[0]) == ["audio2token", "rife"]


@pytest.mark.parametrize("ending", [".crdownload", ".part", ".incomplete", ".PARTIAL"])
def test_an_unfinished_download_is_named(src, capsys, ending):
    (src / AUDIO).rename(src / f"{AUDIO}{ending}")
    code, _out, error = run(src, capsys)
    assert code == 8 and not written(src)
    assert f"audio2token.pth{ending} is an unfinished download" in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["Unconfirmed 12345.crdownload", "a1b2c3.incomplete"])
def test_an_unfinished_download_of_anything_counts_while_networks_are_missing(src, capsys, name):
    (src / name).write_bytes(b"x" * 100)
    code, _, error = run(src, capsys)
    assert code == 8 and f"{name} is an unfinished download" in error


def test_a_download_that_aria_has_not_finished_is_named(src, capsys):
    (src / f"{AUDIO}.aria2").write_bytes(b"state")
    code, _, error = run(src, capsys)
    assert code == 8 and "audio2token.pth is an unfinished download" in error


def test_leftovers_do_not_matter_when_the_network_is_there(src, capsys):
    (src / f"{AUDIO}.part").write_bytes(b"half")
    (src / "Sonic" / "audio2token_copy.pth").write_bytes(b"PK\x03\x04 cut off")
    code, out, _ = run(src, capsys)
    assert code == 0 and written(src) == {"audio2token", "rife"}
    assert "left alone:" in out and "audio2token.pth.part" in out and "audio2token_copy.pth" in out


@pytest.mark.parametrize("name", ["audio2token", "audio2token.pth.bak", "audio2token.zip"])
def test_a_checkpoint_with_another_ending_is_named(src, capsys, name):
    (src / AUDIO).rename(src / "Sonic" / name)
    code, _, error = run(src, capsys)
    assert code == 8 and f"{name} is not read, as its name ends unlike a checkpoint's" in error


def test_folders_behind_links_are_entered_once(src, tree, capsys):
    (src / "whisper").symlink_to(tree / "whisper-tiny")
    (src / "loop").symlink_to(src)
    (src / "again").symlink_to(tree / "whisper-tiny")
    jobs, notes = checkpoints.plan(src)
    assert names(jobs) == ["audio2token", "rife", "whisper"] and not notes


def test_a_link_to_nowhere_is_named(src, capsys):
    (src / AUDIO).unlink()
    (src / AUDIO).symlink_to("/nowhere/audio2token.pth")
    code, _, error = run(src, capsys)
    assert code == 8 and "audio2token.pth is a link to /nowhere/audio2token.pth, which does not exist" in error


def test_an_unpacked_archive_is_named(src, capsys):
    (src / AUDIO).unlink()
    (src / AUDIO).mkdir()
    code, _, error = run(src, capsys)
    assert code == 8 and "audio2token.pth is a folder" in error


def rewritten(path, to, change):
    """A copy of a torch file with every tensor changed."""
    state = torch.load(path, weights_only=True)
    torch.save({name: change(value) for name, value in state.items()}, to)
    if to != path:
        shutil.copy(path.with_suffix(".json"), to.with_suffix(".json"))


def test_the_published_name_decides_between_different_weights(src, capsys):
    rewritten(src / AUDIO, src / "Sonic" / "audio2token_old.pth", lambda value: value + 1)
    jobs, notes = checkpoints.plan(src)
    assert jobs[0].path.name == "audio2token.pth"
    assert "audio2token_old.pth: other weights than" in notes[0] and "which has the published name" in notes[0]
    rewritten(src / AUDIO, src / "Sonic" / "audio2token_half.pth", lambda value: (value + 1).half())
    assert checkpoints.plan(src)[0][0].path.name == "audio2token.pth"


def test_the_published_name_decides_against_more_precise_weights_of_another_kind(src):
    rewritten(src / AUDIO, src / "Sonic" / "audio2token_old.pth", lambda value: value + 1)
    rewritten(src / AUDIO, src / AUDIO, lambda value: value.half())
    (job, _), notes = checkpoints.plan(src)
    assert job.path.name == "audio2token.pth" and "less precision" not in notes[0]


def test_different_weights_without_the_published_name_are_refused(src, capsys):
    rewritten(src / AUDIO, src / "Sonic" / "audio2token_old.pth", lambda value: value + 1)
    rewritten(src / AUDIO, src / "Sonic" / "audio2token_new.pth", lambda value: value - 1)
    (src / AUDIO).unlink()
    code, _, error = run(src, capsys)
    assert code == 8 and "different weights for audio2token in" in error and not written(src)
    assert "audio2token_old.pth" in error and "audio2token_new.pth" in error and error.count("\n") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_reason_given_for_a_copy_is_true(src, dtype):
    rewritten(src / AUDIO, src / "Sonic" / "a_copy.pth", lambda value: value.to(dtype))
    jobs, notes = checkpoints.plan(src)
    assert jobs[0].path.name == "audio2token.pth" and "a_copy.pth: the same network as" in notes[0]
    assert ("in less precision" in notes[0]) == (dtype != torch.float32)


def test_a_broken_file_of_the_published_name_is_not_replaced_by_an_old_one(src, capsys):
    shutil.copy(src / AUDIO, src / "Sonic" / "audio2token_old.pth")
    shutil.copy(src / "Sonic" / "audio2token.json", src / "Sonic" / "audio2token_old.json")
    (src / AUDIO).write_bytes((src / AUDIO).read_bytes()[:5000])
    code, _, error = run(src, capsys)
    assert code == 8 and "audio2token.pth: the zip archive is damaged or cut short" in error


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize("place", [WHISPER, AUDIO, RIFE])
def test_a_file_whose_second_half_was_never_written_is_refused(tree, src, capsys, place, more):
    (src / place).parent.mkdir(exist_ok=True)
    data = (tree / place).read_bytes()
    (src / place).write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    if place == WHISPER:
        shutil.copy(tree / "whisper-tiny" / "config.json", src / "whisper-tiny")
    code, _, error = run(src, capsys, *more)
    assert code == 8 and not written(src) and error.count("\n") == 1
    assert "zeros" in error or "storage" in error


@pytest.mark.parametrize("name", ["encoder.layers.1.fc1.weight", "encoder.layers.0.fc2.weight"])
def test_a_matrix_that_was_never_written_is_named(tree, src, capsys, name):
    (src / WHISPER).parent.mkdir()
    shutil.copy(tree / "whisper-tiny" / "config.json", src / "whisper-tiny")
    tensors = safetensors.numpy.load_file(tree / WHISPER)
    tensors[f"model.{name}"][:] = 0
    safetensors.numpy.save_file(tensors, src / WHISPER)
    code, _, error = run(src, capsys)
    assert code == 8 and f"model.{name}" in error and "zeros in whole or in part" in error and not list(written(src))
    assert run(src, capsys, "--allow-zeros")[0] == 0


def test_a_gap_in_a_large_tensor_is_noticed_and_zeros_in_a_vector_are_not():
    values = np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32)
    assert not checkpoints.unwritten_part(values) and not checkpoints.unwritten_part(np.zeros(1000, np.float32))
    values.reshape(-1)[40_000 : 40_000 + 2 * checkpoints.HOLE] = 0
    assert checkpoints.unwritten_part(values)


WRAPPED = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "module.": lambda state: {f"module.{name}": value for name, value in state.items()},
    "both": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "three": lambda state: {"model": {"state_dict": {f"_orig_mod.{name}": value for name, value in state.items()}}},
    "an unknown word": lambda state: {f"my_adapter.{name}": value for name, value in state.items()},
    "beside an optimizer": lambda state: {"model": state, "optimizer": {"state": [{"step": torch.ones(1)}]}},
    "in a list": lambda state: [state, {"step": torch.ones(1)}],
    "the same twice": lambda state: {"model": state, "ema": state},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_names_in_wrappers_are_unwrapped(src, tree, how):
    state = torch.load(src / AUDIO, weights_only=True)
    torch.save(WRAPPED[how](state), src / AUDIO)
    jobs, notes = checkpoints.plan(src)
    assert names(jobs) == ["audio2token", "rife"]
    assert any("tensors beside the network" in note for note in notes) == (how in ("beside an optimizer", "in a list"))
    checkpoints.convert(jobs[:1], src.parent / "ours")
    with TensorFile(src.parent / "ours" / "audio2token" / MODEL_FILE) as file:
        assert np.array_equal(file.read("proj1.weight"), state["proj1.weight"].numpy())


def test_every_family_is_unwrapped(tree):
    """Whatever prefix a family's own names have, one more is taken off, and only that."""
    for network in tiny.FILES:
        shapes = tiny.tiny_shapes(network)
        assert families.wrappers(shapes) == [""], network
        assert families.wrappers({f"state_dict.{name}": 1 for name in shapes}) == ["state_dict."], network
        assert families.wrappers({f"a.b.{name}": 1 for name in shapes}) == ["a.b."], network
        beside = {f"module.{name}": 1 for name in shapes} | {"optimizer.step": 1}
        assert families.wrappers(beside) == ["module."] or network == "rife", network  # RIFE's own names begin so


def test_several_networks_in_one_file_are_all_taken(src, tree):
    audio = torch.load(src / AUDIO, weights_only=True)
    rife = torch.load(src / RIFE, weights_only=True)
    torch.save({"audio2token": audio, "flownet": rife}, src / AUDIO)
    (src / RIFE).unlink()
    assert names(checkpoints.plan(src)[0]) == ["audio2token", "rife"]


def test_two_different_networks_in_one_file_are_refused(src, capsys):
    state = torch.load(src / AUDIO, weights_only=True)
    torch.save({"model": state, "ema": {name: value + 1 for name, value in state.items()}}, src / AUDIO)
    code, _, error = run(src, capsys)
    assert code == 8 and "different weights for audio2token" in error


def lfs_pointer():
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146" + b"0" * 56 + b"\nsize 6293241234\n"


def fp8_safetensors():
    header = json.dumps({"proj1.weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def fp8_torch():
    import io

    file = io.BytesIO()
    torch.save({"proj1.weight": torch.zeros(4).to(torch.float8_e4m3fn)}, file)
    return file.getvalue()


def whole_model():
    import io

    file = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), file)
    return file.getvalue()


CAUSES = {
    "git-LFS": (lfs_pointer(), "a git-LFS pointer, not the file it stands for; run `git lfs pull`"),
    "a page": (b"\n  <!DOCTYPE html><html><head><title>Sign in</title>", "it is a web page (HTML)"),
    "an XML error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "it is a web page (HTML)"),
    "a JSON error": (b'{"error": "Repository not found"}', "it is a JSON text"),
    "an index": (b'{"metadata": {}, "weight_map": {"a": "x-1", "b": "x-2"}}', "the index of a sharded checkpoint of 2"),
    "gzip": (gzip.compress(b"weights"), "compressed with gzip"),
    "tar": (b"Sonic/unet.pth".ljust(257, b"\0") + b"ustar\x0000" + bytes(300), "a tar archive"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(64), "a GGUF file"),
    "nothing": (b"", "it is empty"),
    "zeros": (bytes(100_000), "it begins with zeros"),
    "fp8": (fp8_safetensors(), "8-bit floats (fp8)"),
    "fp8 of torch": (fp8_torch(), "8-bit floats (fp8)"),
    "a whole model": (whole_model(), "a whole model, not its weights; save its state_dict()"),
    "half an archive": (b"PK\x03\x04" + b"x" * 5000, "damaged or cut short"),
    "half a header": ((5000).to_bytes(8, "little") + b'{"a":', "or it is truncated"),
    "something else": (b"hello, this is no checkpoint", "expected safetensors, a torch zip archive"),
}


@pytest.mark.parametrize("kind", CAUSES)
def test_the_cause_is_named_in_one_line(src, capsys, kind):
    data, cause = CAUSES[kind]
    (src / AUDIO).write_bytes(data)
    code, _, error = run(src, capsys)
    assert code == 8 and not written(src)
    assert cause in error and "audio2token.pth" in error and error.count("\n") == 1
    assert run(src / AUDIO, capsys)[2].count("\n") == 1


def test_shards_and_their_index_are_named(src, capsys):
    shutil.move(src / AUDIO, src / "Sonic" / "audio2token-00001-of-00002.pth")
    code, _, error = run(src, capsys)
    assert code == 8 and "audio2token-00001-of-00002.pth is part 1 of 2 of a sharded checkpoint; join" in error
    (src / "Sonic" / "audio2token-00001-of-00002.pth").unlink()
    (src / "Sonic" / "audio2token.safetensors.index.json").write_text("{}")
    code, _, error = run(src, capsys)
    assert code == 8 and "index.json is the index of a sharded checkpoint" in error


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x02cos\nsystem\n.", b"<html>", b"PK\x03\x04", b"\x10" + bytes(7) + b"{" * 40]
)
def test_unrelated_broken_files_are_notes(src, capsys, data):
    (src / "optimizer.pt").write_bytes(data)
    (src / "extra").mkdir()
    (src / "extra" / "config.json").write_text("{broken")
    code, out, error = run(src, capsys)
    assert code == 0 and written(src) == {"audio2token", "rife"} and not error
    assert "left alone:" in out and "optimizer.pt" in out


def test_a_broken_file_that_may_be_a_missing_network_is_a_problem(src, capsys):
    (src / "vae").mkdir()
    (src / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"<html>")
    code, _, error = run(src, capsys)
    assert code == 8 and "diffusion_pytorch_model.safetensors is no checkpoint: it is a web page" in error
    code, _out, _ = run(src, capsys, "--only", "rife")  # what is not asked for does not matter
    assert code == 0 and written(src) == {"rife"}


def test_a_single_broken_file_is_always_a_problem(src, capsys):
    (src / "anything.pt").write_bytes(b"nothing")
    assert run(src / "anything.pt", capsys)[0] == 8


def test_the_last_line_says_which_networks_are_there(src, tree, capsys):
    code, out, _ = run(src, capsys, "--dry-run")
    assert code == 0 and "would hold 2 of 8 networks: audio2token, rife. Missing: unet, vae, clip, whisper" in out
    code, out, _ = run(src, capsys, "--only", "rife")
    assert "holds 1 of 8 networks: rife. Missing: unet, vae, clip, whisper, audio2token, audio2bucket, yolo" in out
    code, out, _ = run(src, capsys, "--json", str(src / "report.json"))
    assert "sonic-base does not run without them" in out.splitlines()[-1]
    assert json.loads((src / "report.json").read_text())["missing"][:2] == ["unet", "vae"]
    code = pt2ms.main(["--src", str(tree), "--dst", str(src.parent / "ours")])
    assert code == 0 and "holds all 8 networks of sonic-base" in capsys.readouterr().out.splitlines()[-1]


def test_networks_from_before_count(src, capsys):
    run(src, capsys, "--only", "rife")
    _, out, _ = run(src, capsys, "--only", "audio2token")
    assert "holds 2 of 8 networks: audio2token, rife" in out


def test_what_the_converter_wrote_is_no_source(src, capsys):
    pt2ms.main(["--src", str(src), "--dst", str(src / "ours")])
    jobs, notes = checkpoints.plan(src)
    assert names(jobs) == ["audio2token", "rife"] and "a network that this converter wrote" in notes[0]


def test_a_report_that_cannot_be_written_is_noticed_first(src, capsys):
    code, _, error = run(src, capsys, "--json", str(src / "nowhere" / "report.json"))
    assert code == 7 and "nowhere" in error and not written(src)


def test_networks_that_do_not_exist_are_not_asked_for(src):
    with pytest.raises(UsageError, match="no network is called uent; expected some of unet"):
        checkpoints.plan(src, ["uent"])


HINTS = {
    "RIFE/flownet.json": [
        {"scale_list": value} for value in ([0, 0, 0], [1] * 30, [-1, 2, 1], ["a"], [10**6, 2, 1], "x")
    ],
    "whisper-tiny/config.json": [
        {"encoder_attention_heads": value} for value in ("x", None, -1, float("nan"), 3, True, [4], 10**30)
    ],
    "Sonic/audio2token.json": [
        {"seq_len": value, "blocks": 5, "channels": 32} for value in (0, -10, 2.5, "10", 10**30)
    ],
}


@pytest.mark.parametrize("place", HINTS)
def test_sizes_that_no_network_has_are_refused(src, tree, place):
    (src / WHISPER).parent.mkdir()
    shutil.copy(tree / WHISPER, src / WHISPER)
    for fields in HINTS[place]:
        (src / place).write_text(json.dumps(fields))
        with pytest.raises(WeightsError, match=r"config\.json"):
            checkpoints.plan(src, ["rife", "whisper", "audio2token"])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "\udcff{", '{"a":"' + "x" * (2 << 20) + '"}'])
def test_descriptions_that_cannot_be_parsed_are_named(src, text):
    (src / "RIFE" / "flownet.json").write_text(text, errors="surrogateescape")
    with pytest.raises(WeightsError, match=r"flownet\.json is not the JSON description"):
        checkpoints.plan(src, ["rife"])


def test_sizes_are_limited_before_anything_is_built(src):
    shapes = {**tiny.tiny_shapes("rife"), "module.block0.convblock0.0.0.weight": [2**31 - 1, 0, 3, 3]}
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    (src / RIFE).write_bytes(len(text).to_bytes(8, "little") + text + bytes(position))
    with pytest.raises(WeightsError, match="does not fit rife: no such sizes"):
        checkpoints.plan(src, ["rife"])


def test_a_thousand_layers_are_refused(src):
    shapes = {f"encoder.layers.{number}.fc1.weight": (1,) for number in range(1000)}
    with pytest.raises(WeightsError, match="1000 blocks called"):
        families.count(shapes, "encoder.layers.{}.")
    assert families.count({"a.0.x": 1, "a.1.x": 1, "a.3.x": 1}, "a.{}.") == 2


def test_bfloat16_of_ctranslate2_is_widened(tmp_path):
    import struct

    name = b"encoder/x\0"
    data = struct.pack("<I", 6) + struct.pack("<H", 12) + b"WhisperSpec\0" + struct.pack("<II", 3, 1)
    data += struct.pack("<H", len(name)) + name + struct.pack("<BIBI", 1, 2, 5, 4) + bytes.fromhex("803f20c0")
    (tmp_path / "model.bin").write_bytes(data)
    with open_checkpoint(tmp_path / "model.bin") as file:
        assert file.read("encoder/x").tolist() == [1.0, -2.5]


def test_names_of_files_say_what_they_were_meant_to_be(tmp_path):
    for place, networks in {
        "Sonic/unet_v2.pth": {"unet"},
        "RIFE/model.pkl": {"rife"},
        "svd_xt.safetensors": {"vae", "clip"},
        "foo/optimizer.pt": set(),
        "model.bin": set(checkpoints.NETWORKS),
    }.items():
        assert spoken_of(tmp_path / place, tmp_path) == networks, place
    assert cause_of(tmp_path, b"\x89HDF\r\n").startswith("it is an HDF5 file")


def test_the_tool_that_needs_torch_says_so(tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    assert tiny.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: this needs torch") and error.count("\n") == 1
