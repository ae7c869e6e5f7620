"""Videos by the nodes, without ComfyUI: sonic_ms in its process, files in and out, bad inputs, labels that stay."""

import os
import sys
import wave

import numpy as np
import pytest
import torch

from integrations.comfyui import interpreters, jobs, media, nodes, process
from integrations.comfyui.process import NodeError
from sonic_ms.labels import aigc, manifest, mp4
from sonic_ms.media.audio import load_audio
from sonic_ms.media.image import load_image
from tests.labels.test_manifest import write_pair
from tests.support.comfyui_call import FakeCall

pytestmark = pytest.mark.slow
SMALL = {"min_resolution": 128, "duration": 0.5}
EDGE = jobs.Model("sonic-edge", "onnxruntime", python=sys.executable)


@pytest.fixture
def portrait(astronaut):
    return torch.from_numpy(astronaut[:256, 96:352].astype("f4") / 255)[None]


@pytest.fixture
def speech(make_speech):
    return {"waveform": torch.from_numpy(make_speech(2.5)[0])[None, None], "sample_rate": 16000}


@pytest.fixture(scope="module", autouse=True)
def one_process():
    yield
    process.close_all()


def files(call):
    return sorted(path.name for path in call.folder.rglob("*") if path.is_file())


def pid():
    return process.worker(sys.executable, interpreters.environment(sys.executable)).pid


def test_pictures_and_sound_keep_every_bit(tmp_path, astronaut):
    media.write_image(torch.from_numpy(astronaut.astype("f4") / 255)[None], tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") == astronaut).all()
    media.write_image(torch.full((1, 64, 64, 3), 100.6 / 255), tmp_path / "between.png")
    assert (load_image(tmp_path / "between.png") == 101).all()
    grey = torch.linspace(0, 1, 64 * 64).view(1, 64, 64, 1)
    media.write_image(grey, tmp_path / "grey.png")
    assert load_image(tmp_path / "grey.png").shape == (64, 64, 3)
    sound = np.random.default_rng(0).uniform(-1, 1, (1, 1, 8000)).astype("f4")
    media.write_sound({"waveform": torch.from_numpy(sound), "sample_rate": 16000}, tmp_path / "a.wav")
    assert (load_audio(tmp_path / "a.wav") == sound[0, 0]).all()


def test_a_stereo_recording_of_16_bits_is_heard_as_its_file(tmp_path):
    levels = np.random.default_rng(0).integers(-(2**15), 2**15, (8000, 2)).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        file.writeframes(levels.tobytes())
    sound = torch.from_numpy(levels.T.astype("f4") / 2**15)[None]  # as ComfyUI reads it
    media.write_sound({"waveform": sound, "sample_rate": 16000}, tmp_path / "b.wav")
    assert (load_audio(tmp_path / "a.wav") == load_audio(tmp_path / "b.wav")).all()


def test_a_video_and_its_frames(tmp_path, portrait, speech):
    call = FakeCall(tmp_path)
    video, images, sound, fps = jobs.make(call, EDGE, portrait, speech, SMALL | {"duration": 2.0})
    assert images.shape == (50, 128, 128, 3) and images.dtype == torch.float32 and fps == 25
    assert images.min() >= 0 and 0.5 < images.max() <= 1
    assert sound["waveform"].shape == (1, 1, 32000)
    assert (50, 50) in call.steps
    assert [f"temp/{name}" for name in files(call)] == [str(video.path.relative_to(tmp_path))]  # and no other file
    label = aigc.parse(mp4.read_keys(video.path)["AIGC"])
    assert label.ProduceID.startswith(video.path.name.split("-")[1])
    before = pid()
    _, first, *_ = jobs.make(call, EDGE, portrait, speech, SMALL | {"duration": 2.0}, many=False)
    assert torch.equal(first, images[:1]) and pid() == before


def test_frames_are_those_of_the_file(tmp_path, portrait, speech):
    """With the watermark: what is made of them further on still says what it is."""
    import sonic_ms
    from sonic_ms.labels.save import mark_of
    from sonic_ms.labels.watermark import Marker

    media.write_image(portrait, tmp_path / "a.png")
    options = SMALL | {"duration": 2.0}
    video = sonic_ms.load_model(engine="onnxruntime").generate(
        tmp_path / "a.png", speech["waveform"][0, 0].numpy(), sample_rate=16000, **options
    )
    mark = Marker(mark_of(video.labels.number))
    expected = np.stack([mark(frame, index / 25) for index, frame in enumerate(video)])
    _, images, *_ = jobs.make(FakeCall(tmp_path), EDGE, portrait, speech, options)
    assert ((images.numpy() * 255).round().astype("u1") == expected).all()


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"image": torch.zeros(1, 128, 128, 3)}, {}, "no face"),
        ({"image": torch.zeros(2, 128, 128, 3)}, {}, "image holds 2 pictures; expected one"),
        ({"image": torch.zeros(1, 128, 128, 2)}, {}, r"image has shape \(1, 128, 128, 2\)"),
        ({"image": torch.full((1, 64, 64, 3), torch.nan)}, {}, "not finite numbers"),
        ({"audio": {"waveform": torch.zeros(1, 1, 100), "sample_rate": 16000}}, {}, "0.01 s of audio, expected at"),
        ({"audio": {"waveform": torch.zeros(1, 1, 0), "sample_rate": 16000}}, {}, r"audio has shape \(1, 1, 0\)"),
        ({"audio": {"waveform": torch.zeros(2, 1, 9), "sample_rate": 16000}}, {}, r"audio has shape \(2, 1, 9\)"),
        ({}, {"crop": True}, "crop is for sonic-base; leave it out"),
        ({}, {"motion_scale": float("nan")}, "motion_scale is nan; expected 0 to 3"),
        ({}, {"watermark": True}, "watermark: .* leave it out"),
        ({}, {"duration": 0.1}, "expected at least 0.25 s"),
        ({"model": jobs.Model("/gone", python=sys.executable)}, {}, "model '/gone' is not known"),
        ({"model": jobs.Model("sonic-edge", "acl", python=sys.executable)}, {}, "engine acl runs exported graphs"),
    ],
)
def test_bad_inputs_are_one_line_and_no_file(tmp_path, portrait, speech, change, options, words):
    call = FakeCall(tmp_path)
    given = {"model": EDGE, "image": portrait, "audio": speech} | change
    with pytest.raises(NodeError, match=words) as error:
        jobs.make(call, given["model"], given["image"], given["audio"], SMALL | options)
    assert "\n" not in str(error.value) and files(call) == []
    if "crop" in options:
        assert call.steps == []  # before a model is loaded, which may take minutes


def test_an_interrupt_leaves_no_file_and_a_warm_process(tmp_path, portrait, speech):
    call = FakeCall(tmp_path)
    jobs.make(call, EDGE, portrait, speech, SMALL)
    before, there = pid(), files(call)
    call.stop = lambda: any(0 < done < total for done, total in call.steps[-3:])
    call.steps.clear()
    with pytest.raises(InterruptedError):
        jobs.make(call, EDGE, portrait, speech, SMALL | {"duration": 2.5})
    assert files(call) == there and pid() == before


def test_frames_that_memory_cannot_hold(tmp_path, portrait, speech):
    call = FakeCall(tmp_path)
    call.memory = 1 << 20
    with pytest.raises(NodeError, match=r"IMAGE of 12 frames needs 0\.0 GB.*switch all_frames off"):
        jobs.make(call, EDGE, portrait, speech, SMALL)
    assert files(call) == []
    jobs.make(call, EDGE, portrait, speech, SMALL, many=False)


def test_signed_by_the_operator_of_the_machine_and_still_valid_when_saved(tmp_path, portrait, speech, monkeypatch):
    for variable, value in zip(("SONIC_MS_C2PA_CERT", "SONIC_MS_C2PA_KEY"), write_pair(tmp_path)):
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("SONIC_MS_PRODUCER", "example.org")
    call = FakeCall(tmp_path)
    video, *_ = jobs.make(call, EDGE, portrait, speech, SMALL)
    nodes.save(call, video, "talk")
    saved = tmp_path / "output" / "talk_00001_.mp4"
    assert saved.read_bytes() == video.path.read_bytes()
    assert manifest.check(saved).startswith("Valid, signed by Operator")
    assert aigc.parse(mp4.read_keys(saved)["AIGC"]).ContentProducer == "example.org"


def test_operators_that_are_none(tmp_path, portrait, speech, monkeypatch):
    certificate, key = write_pair(tmp_path, days=(-30, -1))
    call = FakeCall(tmp_path)
    monkeypatch.setenv("SONIC_MS_C2PA_CERT", certificate)
    there = files(call)
    with pytest.raises(NodeError, match="SONIC_MS_C2PA_CERT and SONIC_MS_C2PA_KEY belong together"):
        jobs.make(call, EDGE, portrait, speech, SMALL)
    monkeypatch.setenv("SONIC_MS_C2PA_KEY", key)
    with pytest.raises(NodeError, match=r"valid from .* only; renew it"):
        jobs.make(call, EDGE, portrait, speech, SMALL)
    monkeypatch.setenv("SONIC_MS_PRODUCER", "two words")
    with pytest.raises(NodeError, match="'two words'"):
        jobs.make(call, EDGE, portrait, speech, SMALL)
    assert files(call) == there


def test_a_copy_that_cannot_be_written_leaves_nothing(tmp_path, portrait, speech, monkeypatch):
    call = FakeCall(tmp_path)
    video, *_ = jobs.make(call, EDGE, portrait, speech, SMALL)

    def full(source, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nodes.shutil, "copyfile", full)
    with pytest.raises(NodeError, match="No space left on device"):
        nodes.save(call, video, "talk")
    assert os.listdir(tmp_path / "output") == []


def test_in_comfyuis_own_process_when_asked(tmp_path, portrait, speech):
    call = FakeCall(tmp_path)
    here = jobs.Model("sonic-edge", "onnxruntime")
    video, *_ = jobs.make(call, here, portrait, speech, SMALL)
    other, *_ = jobs.make(call, EDGE, portrait, speech, SMALL)
    assert video.path.read_bytes() == other.path.read_bytes()
    there = files(call)
    with pytest.raises(NodeError, match="crop is for sonic-base"):
        jobs.make(call, here, portrait, speech, SMALL | {"crop": True})
    call.memory = 1 << 20
    with pytest.raises(NodeError, match=r"^IMAGE of 12 frames needs"):
        jobs.make(call, here, portrait, speech, SMALL)
    call.memory = 1 << 40
    call.steps.clear()
    call.stop = lambda: any(0 < done < total for done, total in call.steps)
    with pytest.raises(InterruptedError):
        jobs.make(call, here, portrait, speech, SMALL)
    assert files(call) == there
