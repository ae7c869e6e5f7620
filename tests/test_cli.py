"""The command as a user meets it: exit codes, one line per mistake, nothing half-written. Runs the real program."""

import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonic_ms.cli import build_parser, main
from sonic_ms.files.config import GenerateOptions
from sonic_ms.media.video import probe

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
        (("--engine", "cuda"), 10, "cuda"),
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


def test_bad_weights_are_named(capsys, tmp_path, monkeypatch):
    import shutil

    from sonic_ms.edge import generator as edge

    folder = shutil.copytree(edge.EDGE_FOLDER, tmp_path / "weights")
    path = folder / "painter" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(raw)
    monkeypatch.setattr(edge.EdgeModel.__init__, "__defaults__", (folder, None, edge.EDGE_SIDES))
    found, message = generate(capsys, tmp_path)
    assert (found, message.count("\n")) == (8, 0) and "not finite" in message


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


def test_every_option_has_a_flag_and_help_names_the_commands(capsys):
    parser = build_parser()
    arguments = parser.parse_args(["generate", "--image", "a", "--audio", "b", "--output", "c"])
    assert set(GenerateOptions.__dataclass_fields__) <= set(vars(arguments))
    with pytest.raises(SystemExit):
        main(["-h"])
    text = capsys.readouterr().out
    for command in ("generate", "demo", "evaluate", "train"):
        assert command in text


def test_flags_win_over_the_config_file(tmp_path):
    from sonic_ms.cli import _options

    (tmp_path / "c.yaml").write_text("min_resolution: 300\nseed: 5\nlip_sync_correction: false\n")
    arguments = build_parser().parse_args(
        ["demo", "--config", str(tmp_path / "c.yaml"), "--seed", "0", "--face-box", "1,2,3,4"]
    )
    model, bundle, engine, values = _options(arguments)
    assert (model, bundle, engine) == ("sonic-edge", None, "auto")
    assert values == {"min_resolution": 300, "seed": 0, "lip_sync_correction": False, "face_box": (1, 2, 3, 4)}


def test_help_needs_no_heavy_import():
    code = "import sys; from sonic_ms.cli import main\ntry: main(['-h'])\nexcept SystemExit: pass\n"
    code += "assert not {'numpy', 'cv2', 'mindspore', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=os.environ)


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (None, "this will take about 9.8 GB of memory"),
        (20, "this will take about 1 min and 9.8 GB of memory"),
        (6000, "this will take about 100 min and 9.8 GB of memory"),
        (9000, "this will take about 2.5 hours and 9.8 GB of memory"),
    ],
)
def test_what_a_video_will_take_is_said_before(seconds, line, capsys):
    from sonic_ms.base.preflight import Estimate
    from sonic_ms.cli import _announce

    _announce(Estimate(seconds, 9.84))
    assert capsys.readouterr().err == line + "\n"
