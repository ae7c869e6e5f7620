"""sonic-base from a checkpoint tree to an mp4: tiny random weights, the real converter, command line and encoder."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from pydantic import ValidationError

from sonic_ms import commands, pipeline
from sonic_ms.base.networks import open_folder
from sonic_ms.base.options import BaseOptions
from sonic_ms.cli import main
from sonic_ms.errors import Cancelled, EngineError, FaceError, UsageError
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.files.weights import TensorFile
from sonic_ms.media.image import load_image
from sonic_ms.media.video import probe
from tests.support import tiny_checkpoint as make_tiny_checkpoint

pytestmark = [pytest.mark.slow]

FACE = "150,110,200,240"  # of the package's portrait: random detectors find nothing
BOX = tuple(float(side) for side in FACE.split(","))
SECONDS, TICKS, FRAMES = 0.44, 11, 6  # of speech, of the video at 25 a second, and those that are generated
STEPS = 40  # of a run that is killed: seconds, of which the first is enough


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A converted model."""
    root = tmp_path_factory.mktemp("base")
    make_tiny_checkpoint.write_tree(root / "tree")
    assert main(["convert", "--src", str(root / "tree"), "--dst", str(root / "model")]) == 0
    return root / "model"


class Counted:
    """The networks of a model, with a count of the denoiser's calls."""

    def __init__(self, networks):
        self.networks, self.steps, self.batches = networks, 0, []

    def __getattr__(self, name):
        return getattr(self.networks, name)

    def run(self, unit, *arrays):
        if unit == "unet":
            self.steps += 1
            self.batches.append(len(arrays[0]))
        return self.networks.run(unit, *arrays)


@pytest.fixture(scope="module")
def model(folder):
    """Loaded once: graphs are compiled for few shapes."""
    model = pipeline.load_model(str(folder))
    model.generator.networks = Counted(model.generator.networks)
    return model


@pytest.fixture
def command(folder, model, monkeypatch):
    """Function (output, *flags) -> exit code of `sonic-ms generate` on the loaded model."""
    monkeypatch.setattr(commands, "load_model", lambda *_: model)

    def run(output, *flags):
        return main(arguments(folder, output, *flags))

    return run


def arguments(folder, output, *flags):
    return [
        "generate", "--model", str(folder), "--image", str(DEMO_IMAGE), "--audio", str(DEMO_AUDIO), "--output",
        str(output), "--duration", str(SECONDS), "--min-resolution", "64", "--face-box", FACE, *flags,
    ]  # fmt: skip


def frames(model, **options):
    """Frames of a clip of two steps, 12.5 a second, as one array: the same shapes in every test."""
    settings = {
        "duration": SECONDS,
        "min_resolution": 64,
        "inference_steps": 2,
        "face_box": BOX,
        "interpolation": False,
    }
    video = model.generate(str(DEMO_IMAGE), str(DEMO_AUDIO), **settings | options)
    assert video.fps == (25 if options.get("interpolation") else 12.5)
    return np.stack(list(video))


@pytest.fixture(scope="module")
def plain(model):
    return frames(model)


def test_an_mp4_of_exact_length_with_audio(command, tmp_path, capsys):
    assert command(tmp_path / "talk.mp4", "--inference-steps", "2") == 0
    assert "denoise: 100%" in capsys.readouterr().err
    info = probe(tmp_path / "talk.mp4")
    assert (info.frames, info.fps) == (TICKS, 25) and (info.width, info.height) == (64, 64)
    assert info.audio_codec == "aac" and abs(info.audio_seconds - SECONDS) < 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["talk.mp4"]  # nothing is left behind


def test_without_interpolation_half_the_frames(command, tmp_path):
    assert command(tmp_path / "talk.mp4", "--inference-steps", "1", "--no-interpolation") == 0
    info = probe(tmp_path / "talk.mp4")
    assert (info.frames, info.fps) == (-(-TICKS // 2), 12.5) and info.audio_seconds > 0.4


def test_every_option_of_upstream_changes_the_video(model, plain):
    """The flags reach the fields in test_cli; here each field reaches the networks. Seed 0 is a seed like any other."""
    assert np.array_equal(frames(model, seed=0), plain)
    changes = (
        {"seed": 1}, {"dynamic_scale": 2.0}, {"motion_scale": 0.0}, {"align_offset": 0.2}, {"image_guidance": 1.0},
        {"audio_guidance": 1.0}, {"inference_steps": 3}, {"overlap": 2}, {"shift_offset": 3},
        {"decode_chunk_size": 3}, {"crop": True, "expand_ratio": 0.2},
    )  # fmt: skip
    for change in changes:
        changed = frames(model, **change)
        assert changed.shape == plain.shape and not np.array_equal(changed, plain), change
    wide, narrow = (frames(model, crop=True, expand_ratio=ratio) for ratio in (0.5, 0.1))
    assert wide.shape == narrow.shape and not np.array_equal(wide, narrow)


def test_branches_one_at_a_time_give_the_same_video(model, plain):
    model.generator.networks.batches = []
    apart = frames(model, batch_branches=False)
    assert set(model.generator.networks.batches) == {1}
    assert np.abs(apart.astype(int) - plain).max() <= 1


def test_windows_on_two_processes_give_the_same_video(folder, model):
    """Two windows a step, each by whichever process is free."""
    spread = pipeline.load_model(str(folder), processes=2)
    try:
        assert np.array_equal(frames(spread, duration=2.4), frames(model, duration=2.4))
        with pytest.raises(UsageError, match="feature_cache 2 and guidance_reuse 1 keep"):
            frames(spread, feature_cache=2)
        for process, _ in spread.generator.unets._all:
            process.kill()
        with pytest.raises(EngineError, match="a process of the UNet ended"):
            frames(spread, duration=2.4)
    finally:
        spread.generator.unets.close()


def test_a_model_whose_work_is_not_spread():
    with pytest.raises(UsageError, match="sonic-edge: its work is not spread over processes"):
        pipeline.load_model("sonic-edge", processes=2)


def test_quality_fast_saves_work_and_says_what_it_sets(model):
    """The whole UNet runs at the first of three steps only; a branch at a time, so that two graphs are compiled."""
    used, run = [], model.generator.networks.networks.run

    class Listening(Counted):
        def run(self, unit, *arrays):
            used.append(unit)
            return run(unit, *arrays)

    kept, model.generator.networks = model.generator.networks, Listening(model.generator.networks)
    try:
        settings = {"duration": SECONDS, "min_resolution": 64, "face_box": BOX, "interpolation": False}
        video = model.generate(
            str(DEMO_IMAGE), str(DEMO_AUDIO), inference_steps=3, quality="fast", batch_branches=False, **settings
        )
        pictures = np.stack(list(video))
    finally:
        model.generator.networks = kept
    calls = {name: used.count(name) for name in set(used) if name.startswith("unet_")}
    assert calls.pop("unet_context") == 4 and "unet" not in used
    assert calls == {"unet_features0": 2 * 3, "unet_shallow0": 2 * (2 + 2)}  # two windows; seen and heard
    assert any(note.startswith("quality fast: feature_cache 3, feature_cache_branch 0") for note in video.notes)
    assert len(pictures) == FRAMES and pictures.std() > 0


def test_calls_leave_no_trace(model, plain):
    """Upstream keeps its settings in a class, where one call changes the next."""
    frames(model, seed=5, dynamic_scale=2.0, inference_steps=1)
    assert np.array_equal(frames(model), plain)
    with pytest.raises(ValidationError):
        BaseOptions().seed = 3


def test_the_size_of_the_photo_is_kept(model):
    height, width = load_image(str(DEMO_IMAGE)).shape[:2]
    kept = frames(model, keep_resolution=True, inference_steps=1)
    assert kept.shape[1:3] == (height // 2 * 2, width // 2 * 2)


def test_a_portrait_that_is_not_square(model):
    photo = load_image(str(DEMO_IMAGE))
    tall = np.concatenate([photo, photo[::-1]])[: photo.shape[0] * 2]
    options = {"min_resolution": 64, "inference_steps": 1, "face_box": BOX, "interpolation": False}
    video = model.generate(tall, str(DEMO_AUDIO), duration=SECONDS, **options)
    shapes = {frame.shape for frame in video}
    assert shapes == {(128, 64, 3)}


def test_no_face_is_an_error_of_its_own(model):
    grey = np.full((200, 200, 3), 127, np.uint8)
    with pytest.raises(FaceError, match="no face found"):
        model.generate(grey, str(DEMO_AUDIO), duration=SECONDS, min_resolution=64)
    with pytest.raises(FaceError, match="outside"):
        frames(model, face_box=(9000.0, 0.0, 50.0, 50.0))
    with pytest.raises(UsageError, match="overlap"):
        frames(model, overlap=4)


def test_the_last_step_of_other_weights_is_not_used(folder, model, plain, tmp_path, monkeypatch):
    state = tmp_path / "talk.progress.safetensors"
    assert model.generator.networks.digest() == open_folder(folder).digest() != open_folder(folder, "fp16").digest()

    def interrupt(stage, step, steps):
        if (stage, step) == ("denoise", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        frames(model, state=str(state), report=interrupt)
    kept = state.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(model.generator.networks, "digest", lambda: "other weights", raising=False)
        model.generator.networks.steps = 0
        frames(model, state=str(state))
        assert model.generator.networks.steps == 2 * 2  # two windows a step, from the first step on
    state.write_bytes(kept)
    model.generator.networks.steps = 0
    assert np.array_equal(frames(model, state=str(state)), plain)
    assert model.generator.networks.steps == 2


def test_a_killed_run_is_resumed_from_its_last_step(folder, model, command, tmp_path):
    output, state = tmp_path / "talk.mp4", tmp_path / "talk.mp4.progress.safetensors"
    flags = ("--inference-steps", str(STEPS), "--no-interpolation")
    run = subprocess.Popen([sys.executable, "-m", "sonic_ms", *arguments(folder, output, *flags)],
                           stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 240  # of compilation
    while not state.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert state.exists() and not output.exists()
    with TensorFile(state) as saved:
        done = int(saved.metadata["steps"])
    assert 0 < done < STEPS
    model.generator.networks.steps = 0
    assert command(output, *flags, "--resume") == 0
    assert model.generator.networks.steps == (STEPS - done) * 2  # two windows a step
    assert probe(output).frames == -(-TICKS // 2) and not state.exists()


def test_an_interrupted_run_says_how_to_go_on_and_is_not_forgotten(command, tmp_path, capsys, monkeypatch):
    output, state = tmp_path / "talk.mp4", tmp_path / "talk.mp4.progress.safetensors"

    def interrupt(self, stage, done, total):
        if (stage, done) == ("denoise", 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands.Console, "report", interrupt)
        assert command(output, "--inference-steps", "2") == 130
    message = capsys.readouterr().err
    assert state.exists() and str(state) in message and "--resume" in message
    kept = state.read_bytes()
    assert command(output, "--inference-steps", "2") == 2  # neither used nor deleted without a word
    message = capsys.readouterr().err.strip()
    assert "--resume" in message and "--no-resume" in message and state.read_bytes() == kept
    assert command(output, "--inference-steps", "2", "--no-resume") == 0 and not state.exists()


def test_bad_values_are_found_before_anything_runs(model, tmp_path):
    model.generator.networks.steps = 0
    for wrong, words in (({"overlap": 25}, "overlap is 25"), ({"expand_ratio": 0.3}, "without crop")):
        with pytest.raises(UsageError, match=words):
            frames(model, **wrong)
    assert model.generator.networks.steps == 0


def test_a_cropped_face_is_pasted_back_into_the_photo(model):
    photo = load_image(str(DEMO_IMAGE))
    found = frames(model, crop=True, expand_ratio=0.1, keep_resolution=True)
    x, y, width, height = (round(side) for side in BOX)
    outside = np.ones(photo.shape[:2], bool)
    outside[y - height // 8 : y + height + height // 8, x - width // 2 : x + width + width // 2] = False
    assert found.shape[1:] == photo.shape and np.array_equal(found[-1][outside], photo[outside])
    assert not np.array_equal(found[-1], photo)


def test_half_precision_can_be_chosen(folder, plain):
    half = frames(pipeline.load_model(folder, precision="fp16"))
    assert half.shape == plain.shape and np.abs(half.astype(int) - plain).mean() < 4
    with pytest.raises(UsageError, match="precision is 'fp8'"):
        pipeline.load_model(folder, precision="fp8")


def test_one_model_serves_requests_without_keeping_anything_of_them(model):
    video = model.generate(str(DEMO_IMAGE), str(DEMO_AUDIO), duration=SECONDS, min_resolution=64, inference_steps=1,
                           face_box=BOX, interpolation=False)  # fmt: skip
    list(video)
    assert "frames" in video.timings and not hasattr(model, "notes")


def test_a_cancelled_request_ends(model):
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        frames(model, cancelled=lambda: next(answers))
