"""The command as a user meets it: exit codes, one line per mistake, nothing half-written. Runs the real program."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonic_ms.cli import COMMANDS, build_parser, main, underscored
from sonic_ms.commands import settings
from sonic_ms.edge.units import EDGE_FOLDER
from sonic_ms.media.video import probe
from sonic_ms.pipeline import recognise

EXAMPLES = Path(__file__).parent.parent / "sonic_ms" / "examples"
PORTRAIT, SPEECH = EXAMPLES / "portrait.jpg", EXAMPLES / "speech.wav"


def wav(path, seconds, amplitude=0.0, rate=16000):
    samples = (amplitude * 32767 * np.random.default_rng(0).standard_normal(round(seconds * rate))).clip(-32767, 32767)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """A video made by the real command line in a process of its own."""
    folder = tmp_path_factory.mktemp("talk")
    command = [sys.executable, "-m", "sonic_ms", "generate", "--image", PORTRAIT, "--audio", SPEECH]
    command += ["--output", folder / "talk.mp4", "--duration", "2.5", "--min-resolution", "300"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "talk.mp4"


def test_the_video_is_what_was_promised(talk):
    info = probe(talk)
    assert (info.frames, info.fps) == (62, 25.0)  # round(25 * 2.5), half to even
    assert min(info.width, info.height) == 300
    assert (info.video_codec, info.audio_codec, info.pix_fmt) == ("h264", "aac", "yuv420p")
    assert abs(info.audio_seconds - 2.5) <= 1024 / 16000
    head = talk.read_bytes()[:4096]
    assert b"moov" in head  # faststart


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err.strip()


def generate(capsys, tmp_path, image=PORTRAIT, audio=SPEECH, output=None, *more):
    output = tmp_path / "out.mp4" if output is None else output
    return run(capsys, "generate", "--image", image, "--audio", audio, "--output", output, *more)


def bad_image(tmp_path, kind):
    path = tmp_path / "bad.png"
    if kind == "text":
        path.write_text("this is not a picture")
    elif kind == "truncated":
        path = tmp_path / "bad.jpg"
        path.write_bytes(PORTRAIT.read_bytes()[:20000])
    elif kind == "tiny":
        Image.new("RGB", (8, 8)).save(path)
    elif kind == "bomb":
        Image.new("1", (30000, 30000)).save(path)
    elif kind == "no face":
        gradient = np.linspace(0, 255, 300 * 300).reshape(300, 300).astype(np.uint8)
        Image.fromarray(gradient).save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("missing", 3, "no such file"),
        ("text", 4, "bad.png"),
        ("truncated", 4, "truncated"),
        ("tiny", 4, "8x8"),
        ("bomb", 4, "900000000 pixels"),
        ("no face", 5, "--face-box"),
    ],
)
def test_bad_images(capsys, tmp_path, kind, code, words):
    found, message = generate(capsys, tmp_path, bad_image(tmp_path, kind))
    assert (found, message.count("\n")) == (code, 0) and words in message
    assert not list(tmp_path.glob("*.mp4*"))


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("missing", 3, "no such file"),
        ("empty", 6, "audio"),
        ("short", 6, "0.2"),
        ("corrupt", 6, "bad.mp3"),
        ("long", 6, "expected at most 10 s"),
    ],
)
def test_bad_audio(capsys, tmp_path, kind, code, words):
    path, more = tmp_path / "bad.wav", ()
    if kind == "empty":
        wav(path, 0)
    elif kind == "short":
        wav(path, 0.2, 0.1)
    elif kind == "corrupt":
        path = tmp_path / "bad.mp3"
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "long":
        wav(path, 12, 0.1)
        more = ("--max-audio-seconds", "10")
    found, message = generate(capsys, tmp_path, PORTRAIT, path, None, *more)
    assert (found, message.count("\n")) == (code, 0) and words in message
    assert not list(tmp_path.glob("*.mp4*"))


def test_three_hours_are_refused_before_work_starts(capsys, tmp_path):
    path = wav(tmp_path / "long.wav", 3 * 3600, rate=1000)
    found, message = generate(capsys, tmp_path, PORTRAIT, path)
    assert found == 6 and "10800" in message


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--dynamic-scale", "9"), 2, "0 to 3"),
        (("--model", "sonic-huge"), 2, "sonic-huge"),
        (("--inference-steps", "5"), 2, "inference_steps"),
        (("--engine", "cuda"), 2, "cuda"),
        (("--face", "3"), 5, "3"),
        (("--face-box", "5000,5000,10,10"), 5, "outside"),
        (("--config", "nowhere.yaml"), 3, "nowhere.yaml"),
    ],
)
def test_bad_options(capsys, tmp_path, arguments, code, words):
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, None, *arguments)
    assert (found, message.count("\n")) == (code, 0) and words in message


def test_unknown_key_in_a_config_file(capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("min_resolutoin: 300\n")
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, None, "--config", tmp_path / "c.yaml")
    assert found == 2 and "min_resolutoin" in message


def test_output_is_checked_before_work(capsys, tmp_path):
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, tmp_path / "no" / "out.mp4")
    assert found == 7 and "no" in message
    existing = tmp_path / "there.mp4"
    existing.write_bytes(b"precious")
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, existing)
    assert found == 7 and "--overwrite" in message
    assert existing.read_bytes() == b"precious"


def test_bad_weights_are_named(capsys, tmp_path):
    folder = shutil.copytree(EDGE_FOLDER, tmp_path / "weights")
    path = folder / "painter" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(raw)
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, None, "--model", folder)
    assert (found, message.count("\n")) == (8, 0) and "not finite" in message


def test_a_folder_says_what_it_is(capsys, tmp_path):
    folder = shutil.copytree(EDGE_FOLDER, tmp_path / "old")
    (folder / "model.json").unlink()
    assert recognise(folder) == "sonic-edge"  # by its parts
    (folder / "model.json").write_text('{"model": "sonic-huge", "format": 1}')
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, None, "--model", folder)
    assert found == 8 and "sonic-huge" in message
    (folder / "model.json").write_text("{")
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, None, "--model", folder)
    assert found == 8 and "model.json is not what says" in message
    (tmp_path / "empty").mkdir()
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, None, "--model", tmp_path / "empty")
    assert (found, message.count("\n")) == (8, 0) and "not the folder of a model" in message


@pytest.mark.slow
def test_ctrl_c_removes_the_partial_file(tmp_path):
    import signal
    import time

    output = tmp_path / "talk.mp4"
    command = [sys.executable, "-m", "sonic_ms", "generate", "--image", str(PORTRAIT), "--audio", str(SPEECH)]
    process = subprocess.Popen([*command, "--output", str(output)], stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not list(tmp_path.iterdir()) and time.time() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()), "the partial file never appeared"
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "interrupted" in message
    assert not list(tmp_path.iterdir())


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["-h"])
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command in text


def test_flags_win_over_the_config_file(tmp_path):
    (tmp_path / "c.yaml").write_text("min_resolution: 300\nseed: 5\nlip_sync_correction: false\n")
    flags = ["demo", "--config", str(tmp_path / "c.yaml"), "--seed", "0", "--face-box", "1,2,3,4"]
    loading, values = settings(build_parser().parse_args(flags))
    expected = {"model": "sonic-edge", "bundle": None, "engine": "auto", "precision": "fp32", "delta": None}
    assert loading == expected
    assert values == {"min_resolution": 300, "seed": 0, "lip_sync_correction": False, "face_box": (1, 2, 3, 4)}


@pytest.mark.parametrize(
    "text", ["1: 2\n", "engine: [onnxruntime]\n", "seed: .inf\n", "face: \u00b2\n", "duration: .nan\n"]
)
def test_wrong_scalars_of_a_config_file(capsys, tmp_path, text):
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, None, "--config", tmp_path / "c.yaml")
    assert (found, message.count("\n")) == (2, 0), message


def test_underscores_and_equals_signs_as_users_of_sonic_type_them():
    given = underscored(["generate", "--image=a_b.png", "--dynamic_scale", "1.2", "--min_resolution=300"])
    assert given == ["generate", "--image=a_b.png", "--dynamic-scale", "1.2", "--min-resolution=300"]


def test_a_report_that_cannot_be_written_is_found_before_the_work(capsys, tmp_path):
    found, message = generate(capsys, tmp_path, PORTRAIT, SPEECH, None, "--json", tmp_path / "no" / "report.json")
    assert (found, message.count("\n")) == (7, 0) and "report" in message
    assert not list(tmp_path.glob("*.mp4"))


def test_the_report_of_a_video(capsys, tmp_path):
    found, _ = generate(capsys, tmp_path, PORTRAIT, SPEECH, None, "--duration", 0.4, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert found == 0 and report["frames"] == 10 and report["engine"]["engine"] == "onnxruntime"
    assert report["seconds"]["load"] > 0 and report["output"].endswith("out.mp4")


def test_a_terminal_is_told_what_is_waited_for(tmp_path):
    """Loading and compiling take seconds in which nothing else is shown. A terminal of its own, as a user has."""
    import pty

    main_end, end = pty.openpty()
    command = [sys.executable, "-m", "sonic_ms", "demo", "--output", str(tmp_path / "o.mp4"), "--duration", "0.3"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end) as process:
        os.close(end)
        said = b""
        with contextlib.suppress(OSError):  # the terminal is gone when the program is
            while part := os.read(main_end, 4096):
                said += part
        assert process.wait() == 0
    os.close(main_end)
    assert b"loading sonic-edge" in said and b"building graphs" in said


def test_help_needs_no_heavy_import():
    code = "import sys; from sonic_ms.cli import main\ntry: main(['-h'])\nexcept SystemExit: pass\n"
    code += "assert not {'numpy', 'cv2', 'mindspore', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=os.environ)
