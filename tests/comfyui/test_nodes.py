"""What the nodes declare, without ComfyUI: inputs that follow sonic_ms's options, and stay for saved workflows."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from bench.make_comfyui_options import made
from integrations import comfyui
from integrations.comfyui import interpreters, nodes, options
from integrations.comfyui.classic import classes
from integrations.comfyui.host import Call
from integrations.comfyui.process import NodeError
from integrations.comfyui.running import run
from sonic_ms.options import owners, parse
from sonic_ms.pipeline import all_options
from tests.support.comfyui_call import FakeCall, Video

NODES = {node.id: node for node in nodes.declared()}
FOLDER = Path(comfyui.__file__).parent
RECORDED = json.loads(Path(__file__).with_name("inputs.json").read_text())  # of every version so far, in order


@pytest.fixture(autouse=True)
def no_models(monkeypatch):
    monkeypatch.setattr(nodes.host, "model_folders", lambda: ["mine"])
    monkeypatch.setattr(nodes.host, "model_path", {"mine": "/models/mine"}.get)


def test_the_options_are_the_declaration_of_sonic_ms():
    """Made anew by python -m bench.make_comfyui_options."""
    assert json.loads((FOLDER / "options.json").read_text()) == made()


def test_saved_workflows_find_their_inputs():
    """A workflow holds widgets by their order, inputs and outputs by their names: new ones go to the end, and only what
    a first version had may be required."""
    for name, first in RECORDED.items():
        node = NODES[name]
        assert [one.name for one in node.inputs][: len(first["inputs"])] == first["inputs"], name
        assert [kind for kind, _ in node.outputs][: len(first["outputs"])] == first["outputs"], name
        assert {one.name for one in node.inputs if not one.optional} == set(first["required"]), name
    assert set(RECORDED) == set(NODES)


@pytest.mark.parametrize("group", ["common", "sonic-edge", "sonic-base"])
def test_every_value_of_a_widget_is_one_that_sonic_ms_takes(group):
    models = all_options() if group == "common" else {group: all_options()[group]}
    for one in options.DECLARED["groups"][group]:
        values = one.get("choices") or [one[key] for key in ("low", "high") if one.get(key) is not None]
        text = "1, 2, 3,4.5" if one["name"] == "face_box" else "0.2, 0.8"
        values = {"BOOLEAN": [True, False], "STRING": ["", text]}.get(one["kind"], values)
        for model, kind in models.items():
            if model == "sonic-base" and one["name"] == "min_resolution":
                values = [min(value, 2048) for value in values]
            for value in values:
                extra = {"crop": True} if one["name"] == "expand_ratio" and model == "sonic-base" else {}
                parse(kind, options.values(group, {one["name"]: value}) | extra, "inputs", owners(models, model))


def test_what_is_left_alone_is_not_asked_for():
    """A model has its own defaults, and a watermark that was asked for would be refused for a short video."""
    defaults = {one.name: one.default for one in options.inputs("common")}
    assert options.values("common", defaults) == {}
    changed = {"lip_sync_correction": "off", "visible_label": "zh", "face": 2, "face_box": "1,2,3,4", "duration": 2.0}
    assert options.values("common", defaults | changed) == {
        "duration": 2.0, "lip_sync_correction": False, "face": "2", "face_box": [1, 2, 3, 4], "visible_label": "zh"
    }  # fmt: skip


def test_classic_classes():
    kinds, titles = classes(list(NODES.values()))
    generate = kinds["SonicMSGenerate"]
    inputs = generate.INPUT_TYPES()
    assert set(inputs["required"]) == {"image", "audio"}
    assert inputs["optional"]["min_resolution"][1] | {"tooltip": ""} == {
        "tooltip": "", "default": 512, "min": 64, "max": 4096
    }  # fmt: skip
    assert inputs["optional"]["visible_label"][0] == ["none", "zh", "en"]
    assert inputs["optional"]["seed"][1]["control_after_generate"]
    assert generate.RETURN_TYPES == ("VIDEO", "IMAGE", "AUDIO", "FLOAT")
    assert generate.VALIDATE_INPUTS("1,2,3,4") is True and generate.VALIDATE_INPUTS(None) is True
    assert generate.VALIDATE_INPUTS("1,2,3") == (
        "face_box is '1,2,3'; expected x,y,width,height in photo pixels such as 120,80,200,240, or nothing"
    )
    assert not hasattr(kinds["SonicMSSampler"], "VALIDATE_INPUTS")
    assert kinds["SonicMSSaveVideo"].OUTPUT_NODE and titles["SonicMSSaveVideo"] == "Sonic MS Save Video"
    assert kinds["SonicMSLoader"].INPUT_TYPES()["optional"]["model"][0] == ["sonic-edge", "mine"]


def test_prepared_data_is_registered_only_where_nobody_else_does(monkeypatch):
    monkeypatch.delitem(sys.modules, "nodes", raising=False)
    assert "SONIC_PreData" in [node.id for node in nodes.declared()]
    theirs = types.SimpleNamespace(NODE_CLASS_MAPPINGS={"SONIC_PreData": object})
    monkeypatch.setitem(sys.modules, "nodes", theirs)
    assert [node.id for node in nodes.declared()] == [node.id for node in nodes.OWN]


def test_nothing_heavy_and_nothing_of_sonic_ms_is_imported():
    code = "import sys, integrations.comfyui as one; assert one.NODE_CLASS_MAPPINGS; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER.parents[1]
    )
    roots = {name.split(".")[0] for name in done.stdout.split()}
    assert not roots & {"sonic_ms", "torch", "numpy", "pydantic", "mindspore", "cv2", "av", "PIL"}


def test_an_input_of_another_version_is_not_passed_over():
    node = NODES["SonicMSGenerate"]
    call = Call("3", {"3": {"inputs": {"image": ["1", 0], "duration_frames": 250}}})
    with pytest.raises(
        NodeError,
        match=r"SonicMSGenerate has no input 'duration_frames'; the workflow is of another version .* knows image,",
    ):
        run(node, call, {})


def test_another_name_of_an_option_is_taken(monkeypatch):
    seen = {}
    monkeypatch.setattr(nodes.jobs, "make", lambda call, model, image, audio, chosen, many: seen.update(chosen))
    monkeypatch.setattr(nodes, "default_model", lambda: None)
    call = Call("3", {"3": {"inputs": {"image": ["1", 0], "resolution": 128}}})
    run(NODES["SonicMSGenerate"], call, {"image": 1, "audio": 2})
    assert seen == {"min_resolution": 128}
    call.prompt["3"]["inputs"]["resolution"] = ["7", 0]
    with pytest.raises(NodeError, match="'resolution' is called 'min_resolution' now; connect it there"):
        run(NODES["SonicMSGenerate"], call, {"image": 1, "audio": 2})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "gone"}, "model is 'gone'; expected one of sonic-edge, mine"),
        ({"engine": "cuda"}, "engine is 'cuda'; expected one of auto, mindspore"),
        ({"python": "/tmp/evil"}, "python is '/tmp/evil'; expected one of default, inside ComfyUI"),
    ],
)
def test_the_loader_takes_only_what_it_offers(tmp_path, monkeypatch, given, words):
    """A workflow of a stranger must not name a program."""
    monkeypatch.delenv("SONIC_MS_PYTHON", raising=False)
    usual = {"model": "sonic-edge", "engine": "auto", "precision": "fp32", "python": "default"}
    with pytest.raises(NodeError, match=words):
        run(NODES["SonicMSLoader"], FakeCall(tmp_path), usual | given)


def test_the_loader_chooses(tmp_path, monkeypatch):
    monkeypatch.setenv("SONIC_MS_PYTHON", "/a/python:/b/python")
    usual = {"model": "mine", "engine": "auto", "precision": "fp32"}
    for choice, python in (("default", "/a/python"), ("/b/python", "/b/python"), (interpreters.HERE, None)):
        (model,), _ = run(NODES["SonicMSLoader"], FakeCall(tmp_path), usual | {"python": choice})
        assert (model.name, model.python) == ("/models/mine", python)


def test_without_a_variable_the_command_says_where_sonic_ms_is(tmp_path, monkeypatch):
    monkeypatch.delenv("SONIC_MS_PYTHON", raising=False)
    command = tmp_path / "sonic-ms"
    command.write_text(f"#!{sys.executable}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreters.find("default") == sys.executable
    command.unlink()
    monkeypatch.setattr(interpreters, "_own", lambda: None)
    with pytest.raises(NodeError, match=r"no interpreter has sonic_ms: SONIC_MS_PYTHON is not set, .*; install"):
        interpreters.find("default")


def test_module_paths_of_comfyui_are_not_for_another_interpreter(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/comfyui")
    assert "PYTHONPATH" not in interpreters.environment("/a/python")
    assert interpreters.environment(sys.executable)["PYTHONPATH"] == "/comfyui"


def test_the_sampler_wants_our_data_and_our_rate(tmp_path):
    sampler = NODES["SonicMSSampler"]
    with pytest.raises(NodeError, match="of ComfyUI_Sonic's own SONIC_PreData"):
        run(sampler, FakeCall(tmp_path), {"data_dict": {"audio_tensor_list": []}})
    (data,), _ = run(NODES["SONIC_PreData"], FakeCall(tmp_path), {"image": 1, "audio": 2, "vae": "x"})
    with pytest.raises(NodeError, match="fps is 30; expected 25"):
        run(sampler, FakeCall(tmp_path), {"data_dict": data, "fps": 30.0})


def test_the_sampler_gives_a_model_what_it_has(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(nodes.jobs, "make", lambda *given: seen.append(given))
    monkeypatch.setattr(nodes, "default_model", lambda: None)
    prepared = {"image": 1, "audio": 2, "duration": 3.0, "expand_ratio": 0.4}
    (data,), _ = run(NODES["SonicMSPreData"], FakeCall(tmp_path), prepared)
    run(NODES["SonicMSSampler"], FakeCall(tmp_path), {"data_dict": data, "seed": 5, "inference_steps": 9})
    *_, common, by_model, many = seen[0]
    assert common == {"min_resolution": 512, "duration": 3.0, "seed": 5, "dynamic_scale": 1.0} and many
    assert by_model["sonic-edge"] == {"expand_ratio": 0.4}
    assert by_model["sonic-base"] == {"expand_ratio": 0.4, "crop": True, "inference_steps": 9}
    assert "inference_steps" not in data["by_model"]["sonic-base"]  # the data of another run stays as it was
    for model, kind in all_options().items():
        parse(kind, common | by_model[model])


def test_only_labelled_files_are_kept(tmp_path):
    save, call = NODES["SonicMSSaveVideo"], FakeCall(tmp_path)
    plain, cut = tmp_path / "plain.mp4", tmp_path / "cut.mp4"
    plain.write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08moov")
    cut.write_bytes(b"\0\0\1\0ftyp")
    for video, words in (
        (object(), "video is not a file, so it holds no labels"),
        (Video("/gone.mp4"), r"/gone\.mp4 is gone; change an input"),
        (Video(plain), "carries no label AIGC"),
        (Video(cut), "cannot be read"),
    ):
        with pytest.raises(NodeError, match=words) as error:
            run(save, call, {"video": video})
        assert "\n" not in str(error.value)
    assert not list((tmp_path / "output").iterdir())


def test_registry_metadata():
    lines = (FOLDER / "pyproject.toml").read_text().splitlines()
    assert 'name = "sonic-ms"' in lines and f'version = "{options.DECLARED["version"]}"' in lines
    assert "[tool.comfy]" in lines  # ComfyUI itself reads the file in test_real.py


def row(node):
    """A node as a line of the table in docs/comfyui.md."""
    common = {one.name for one in options.inputs("common")}
    names = [f"`{one.name}`" for one in node.inputs if node.id != "SonicMSGenerate" or one.name not in common]
    if len(names) < len(node.inputs):
        names.append("the options of every model")
    outputs = ", ".join(f"`{name}` ({kind})" for kind, name in node.outputs)
    return f"| {node.title} (`{node.id}`) | {', '.join(names)} | {outputs} | {node.help} |"


def test_the_table_in_the_docs_is_the_declaration():
    text = (FOLDER.parents[1] / "docs" / "comfyui.md").read_text(encoding="utf-8")
    found = text.split("<!-- nodes -->\n")[1].split("<!-- /nodes -->")[0]
    assert found.splitlines()[2:] == [row(node) for node in NODES.values()]


def test_two_numbers_are_a_text():
    """As an interval of steps: a text that holds no two numbers goes on, and sonic_ms says what it expected."""
    given = {"image_guidance_interval": "0.2, 0.8", "audio_guidance_interval": "all"}
    found = options.values("sonic-base", given)
    assert found == {"image_guidance_interval": [0.2, 0.8], "audio_guidance_interval": "all"}
    assert options.values("sonic-base", {"image_guidance_interval": "0,1"}) == {}
