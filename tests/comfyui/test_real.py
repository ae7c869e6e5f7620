"""The nodes in a real ComfyUI, spoken to over HTTP: one server for all, the last test kills it."""

import json
import signal
import time
from pathlib import Path

import pytest

from integrations.comfyui import nodes
from sonic_ms.cli import main
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.labels import mp4, show
from sonic_ms.media.video import probe
from tests.support.comfyui import Server, copy_inputs, failure
from tests.support.workflows import api_format

pytestmark = [pytest.mark.slow, pytest.mark.needs("comfyui")]
EXAMPLES = sorted((Path(nodes.__file__).parent / "example_workflows").glob("*.json"))
SMALL = {"min_resolution": 128, "duration": 2.0}
OWN = {node.id: node for node in nodes.declared()}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("comfyui"))
    copy_inputs(one, portrait=DEMO_IMAGE, speech=DEMO_AUDIO)
    yield one
    one.stop(signal.SIGKILL)


def graph(prefix="talk", kind="SonicMSGenerate", **inputs):
    """Workflow in API format: portrait and speech through one node into a file."""
    classic = "Classic" if kind.startswith("Classic") else ""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "portrait.jpg"}},
        "2": {"class_type": "LoadAudio", "inputs": {"audio": "speech.wav"}},
        "3": {"class_type": kind, "inputs": {"image": ["1", 0], "audio": ["2", 0], **inputs}},
        "4": {"class_type": f"{classic}SonicMSSaveVideo", "inputs": {"video": ["3", 0], "filename_prefix": prefix}},
    }


def run(server, prompt):
    history = server.result(server.submit(prompt))
    assert history["status"]["status_str"] == "success", history["status"]
    return history


def saved(server, history, node="4"):
    (one,) = history["outputs"][node]["images"]
    return server.base / one["type"] / one["subfolder"] / one["filename"]


def workers(server):
    """Processes of sonic_ms that this ComfyUI started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if parent == server.process.pid and b"worker.py" in command:
            found.append(int(status.parent.name))
    return sorted(found)


def in_temp(server):
    return sorted(path.name for path in (server.base / "temp").iterdir()) if (server.base / "temp").is_dir() else []


def test_both_interfaces_declare_the_same(server):
    info = server.get("object_info")
    for name in {node.id for node in nodes.OWN}:
        second, first = info[name], info[f"Classic{name}"]
        for group in ("required", "optional"):
            one, other = second["input"].get(group, {}), first["input"].get(group, {})
            assert list(one) == list(other), name
            for key, (kind, settings) in other.items():
                if isinstance(kind, list):
                    assert one[key][1]["options"] == kind
                    kind = "COMBO"
                assert one[key][0] == kind
                assert {field: one[key][1].get(field) for field in settings} == settings, (name, key)
        assert second["output"] == list(first["output"]) and second["output_name"] == list(first["output_name"])
        assert second["output_node"] == first["output_node"] and second["category"] == "sonic_ms"
    assert info["SONIC_PreData"]["output"] == ["SONIC_PREDATA"]
    assert "pyproject.toml" not in server.log.read_text()  # what it says of one that it cannot read
    assert sorted(server.get("workflow_templates")["sonic_ms"]) == [path.stem for path in EXAMPLES]
    assert all(path.with_suffix(".jpg").is_file() for path in EXAMPLES)


def test_a_workflow_makes_the_commands_video_and_says_how_far_it_is(server, tmp_path):
    prompt = graph("command", **SMALL)
    prompt["5"] = {
        "class_type": "CreateVideo",
        "inputs": {"images": ["3", 1], "audio": ["3", 2], "fps": ["3", 3]},
    }
    prompt["6"] = {
        "class_type": "SaveVideo",
        "inputs": {"video": ["5", 0], "filename_prefix": "core", "format": "auto", "codec": "auto"},
    }
    with server.listen("watcher") as messages:
        history = server.result(server.submit(prompt, "watcher"))
        messages.until("execution_success")
    assert history["status"]["status_str"] == "success", history["status"]
    steps = [one["data"] for one in messages.seen if one["type"] == "progress"]
    frames = [one["value"] for one in steps if one["max"] == 50]
    assert all(one["node"] == "3" for one in steps) and frames == sorted(frames) and frames[-1] == 50
    assert len(set(frames)) > 25

    by_command = tmp_path / "command.mp4"
    flags = ["--image", str(DEMO_IMAGE), "--audio", str(DEMO_AUDIO), "--min-resolution", "128", "--duration", "2"]
    assert main(["generate", *flags, "--output", str(by_command)]) == 0
    by_node = saved(server, history)
    assert by_node.read_bytes() == by_command.read_bytes()  # ProduceID and all

    # what ComfyUI's own nodes make of IMAGE, AUDIO and fps: as long, without the label, with the watermark
    core = saved(server, history, "6")
    info = probe(core)
    assert (info.frames, info.fps, info.width) == (50, 25, 128) and abs(info.audio_seconds - 2) < 0.1
    assert "AIGC" not in mp4.read_keys(core)
    number = json.loads(mp4.read_keys(by_node)["AIGC"])["ProduceID"][:12]
    assert show.watermark_line(core).startswith(number)


def test_the_first_interface_makes_the_same(server):
    """And Save Video of ComfyUI keeps the implicit label, as it copies the metadata."""
    prompt = graph("classic", "ClassicSonicMSGenerate", **SMALL)
    prompt["5"] = {
        "class_type": "SaveVideo",
        "inputs": {"video": ["3", 0], "filename_prefix": "kept", "format": "auto", "codec": "auto"},
    }
    history = run(server, prompt)
    assert saved(server, history).read_bytes() == (server.base / "output" / "command_00001_.mp4").read_bytes()
    assert "AIGC" in mp4.read_keys(saved(server, history, "5"))


def test_two_prompts_at_once_and_an_interrupt_that_is_for_one(server):
    before = workers(server)
    assert len(before) == 2  # for all videos until now: one of each interface
    there = in_temp(server)
    with server.listen("first") as messages:
        first = server.submit(graph("never", min_resolution=256, seed=1), "first")
        second = server.submit(graph("second", **SMALL, seed=2), "second")
        messages.until("progress", lambda data: 0 < data["value"] < data["max"] != 1000)
        server.post("interrupt", {"prompt_id": second})  # it does not run yet
        messages.until("progress", lambda data: data["value"] > 5 and data["max"] != 1000)
        server.post("interrupt", {"prompt_id": first})
        messages.until("execution_interrupted")
    assert server.result(first)["status"]["status_str"] == "error"
    history = server.result(second)
    assert history["status"]["status_str"] == "success"
    assert json.loads(mp4.read_keys(saved(server, history))["AIGC"])["Label"] == "1"
    assert workers(server) == before
    assert not list((server.base / "output").rglob("never*"))
    assert len(in_temp(server)) == len(there) + 1


def test_an_interrupt_between_two_nodes(server):
    """Whichever of the two it meets: the prompt ends, nothing is half there, the next one works."""
    prompt = graph("between", **SMALL, seed=3)
    prompt["3"]["inputs"]["all_frames"] = False
    prompt["5"] = {
        "class_type": "SonicMSGenerate",
        "inputs": {"image": ["3", 1], "audio": ["2", 0], "min_resolution": 256},
    }
    prompt["4"]["inputs"]["video"] = ["5", 0]
    there = in_temp(server)
    with server.listen("between") as messages:
        one = server.submit(prompt, "between")
        messages.until("executing", lambda data: data["node"] == "5")
        server.post("interrupt", {"prompt_id": one})
        messages.until("execution_interrupted")
    assert server.result(one)["status"]["status_str"] == "error"
    assert len(in_temp(server)) == len(there) + 1  # the first node's video
    assert not list((server.base / "output").rglob("between*"))


@pytest.mark.parametrize(
    ("inputs", "kind", "details"),
    [
        ({"min_resolution": 8}, "value_smaller_than_min", "min_resolution"),
        ({"motion_scale": 9.0}, "value_bigger_than_max", "motion_scale"),
        ({"face_box": "1,2"}, "custom_validation_failed", "face_box - face_box is '1,2'; expected x,y,width,height"),
        ({"image": ["9", 0]}, None, None),
    ],
)
def test_values_that_are_refused_before_anything_runs(server, inputs, kind, details):
    if kind is None:
        prompt = graph()
        del prompt["3"]["inputs"]["image"]
        kind, details = "required_input_missing", "image"
    else:
        prompt = graph(**inputs)
    status, answer = server.post("prompt", {"prompt": prompt})
    assert status == 400 and answer["error"]["type"] == "prompt_outputs_failed_validation"
    (error,) = answer["node_errors"]["3"]["errors"]
    assert error["type"] == kind and error["details"].startswith(details)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"visible_label": "fr"}, "SonicMSGenerate: visible_label is 'fr'; expected one of none, zh, en"),
        (
            {"duration_frames": 250},
            "SonicMSGenerate has no input 'duration_frames'; the workflow is of another",
        ),
        ({"image": ["5", 0]}, "no face"),
        ({"duration": 0.1}, "expected at least 0.25 s"),
    ],
)
def test_what_goes_wrong_while_it_runs_is_one_line(server, change, words):
    prompt = graph("wrong", **SMALL | change)
    prompt["5"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 128, "height": 128, "batch_size": 1, "color": 0},
    }
    history = server.result(server.submit(prompt))
    kind, message = failure(history)
    assert kind.endswith("NodeError") and words in message and "\n" not in message
    assert not list((server.base / "output").rglob("wrong*"))


def test_a_workflow_of_an_older_version(server):
    """Fewer inputs, and another name of one."""
    prompt = graph("older", resolution=64)
    prompt["3"]["inputs"]["duration"] = 0.5
    assert probe(saved(server, run(server, prompt))).width == 64


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example_workflows(server, path):
    """The page's file, in the form that the page would send it, is the one beside the tests, and it runs."""
    prompt = api_format(json.loads(path.read_text()), OWN)
    assert prompt == json.loads((Path(__file__).parent / "workflows" / path.name).read_text())
    for node in prompt.values():  # smaller, for the time it takes
        node["inputs"] |= {name: value for name, value in SMALL.items() if name in node["inputs"]}
    last = max(prompt)
    assert mp4.read_keys(saved(server, run(server, prompt), last))["AIGC"]


def test_nothing_of_it_outlives_comfyui(server):
    there = [Path(f"/proc/{one}") for one in workers(server)]
    with server.listen("killed") as messages:
        server.submit(graph("killed", min_resolution=256, seed=4), "killed")
        messages.until("progress", lambda data: 0 < data["value"] < data["max"] != 1000)
        server.stop(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(one.exists() for one in there) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(there) == 2 and not any(one.exists() for one in there)
    assert not list((server.base / "output").rglob("killed*"))
