"""The whole pipeline with the shipped weights, through the Python interface."""

import itertools
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sonic_ms
from sonic_ms.errors import UsageError
from sonic_ms.face import choose, mesh
from sonic_ms.files.shipped import PRETRAINED

pytestmark = [pytest.mark.slow]

EXAMPLES = Path(sonic_ms.__file__).parent / "examples"


@pytest.fixture(scope="module")
def model():
    return sonic_ms.load_model("sonic-edge")


@pytest.fixture(scope="module")
def speech():
    with wave.open(str(EXAMPLES / "speech.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


@pytest.fixture(scope="module")
def video(model, astronaut, speech):
    return model.generate(image=astronaut, audio=speech, sample_rate=16000, duration=4.0, motion_scale=0.0)


@pytest.fixture(scope="module")
def frames(video):
    return list(video)


def test_length_and_size(video, frames):
    assert len(frames) == video.n_frames == 100
    assert all(frame.shape == (512, 512, 3) and frame.dtype == np.uint8 for frame in frames)


def test_the_mouth_opens_and_closes_as_seen_in_the_pictures(frames, analyzer):
    openings = np.array([mesh.mouth_opening(found.points) for found in analyzer.track(frames)])
    assert openings.max() > 0.05
    assert openings.min() < 0.35 * np.percentile(openings, 90)


def test_with_motion_scale_zero_the_upper_face_is_the_photo(frames, astronaut, analyzer):
    landmarks, _ = choose.find_mesh(astronaut, analyzer)
    eyes = int(landmarks.points[list(mesh.RIGHT_EYE_LOWER + mesh.LEFT_EYE_LOWER), 1].max())
    for frame in frames[::10]:
        np.testing.assert_array_equal(frame[:eyes], astronaut[:eyes])


def test_frames_are_made_when_they_are_asked_for(model, astronaut, speech):
    long = np.tile(speech, 8)
    stream = iter(model.generate(image=astronaut, audio=long, sample_rate=16000))
    assert len(list(itertools.islice(stream, 3))) == 3


def test_same_seed_same_frames(model, astronaut, speech):
    def some(seed):
        video = model.generate(image=astronaut, audio=speech, sample_rate=16000, duration=3.0, seed=seed)
        return np.stack([frame[::4, ::4] for frame in video])

    one = some(1)
    assert np.array_equal(one, some(1))
    assert not np.array_equal(one, some(2))


def test_silence_gives_a_still_mouth_but_a_living_face(model, astronaut):
    video = model.generate(image=astronaut, audio=np.zeros(16000 * 6), sample_rate=16000)
    frames = np.stack(list(video)).astype(int)
    assert len(frames) == 150
    assert np.abs(frames[-1] - frames[0]).max() > 5  # head, lids
    still = model.generate(image=astronaut, audio=np.zeros(16000), sample_rate=16000, motion_scale=0.0)
    still = np.stack(list(still))
    assert np.array_equal(still[0], still[-1])


def test_dynamic_scale_opens_the_mouth_more(model, astronaut, speech, analyzer):
    means = []
    for scale in (0.5, 1.0, 1.5):
        video = model.generate(
            image=astronaut, audio=speech, sample_rate=16000, duration=3.0, motion_scale=0.0, dynamic_scale=scale
        )
        means.append(np.mean([mesh.mouth_opening(found.points) for found in analyzer.track(video)]))
    assert means[1] > 1.2 * means[0] and means[2] > 1.2 * means[1]


def test_notes_tell_of_several_faces(model, astronaut, speech):
    two = np.concatenate([astronaut, astronaut[:, ::-1]], axis=1)
    said = []
    video = model.generate(image=two, audio=speech, sample_rate=16000, duration=1.0, note=said.append)
    assert any("2 faces" in note for note in video.notes) and said == video.notes


def test_unknown_options_and_models_are_refused(model, astronaut, speech):
    with pytest.raises(UsageError, match="dynamic_scal"):
        model.generate(image=astronaut, audio=speech, sample_rate=16000, dynamic_scal=1)
    with pytest.raises(UsageError, match="sonic-huge"):
        sonic_ms.load_model("sonic-huge")


def test_the_visible_label_is_in_every_frame_and_not_on_the_face(model, astronaut, speech):
    options = {"image": astronaut, "audio": speech, "sample_rate": 16000, "duration": 0.4, "min_resolution": 300}
    plain, labelled = list(model.generate(**options)), list(model.generate(**options, visible_label="zh"))
    face = choose.choose_face(astronaut, model.generator.detector)[0].box
    x, y, width, height = (round(value * 300 / 512) for value in face)
    for frame, other in zip(plain, labelled, strict=True):
        changed = (frame != other).any(2)
        could = (frame > 40).any(2)  # under the dark box black stays black
        assert changed[-36:-10, -80:-10][could[-36:-10, -80:-10]].mean() > 0.9
        assert not changed[y : y + height, x : x + width].any()
    with pytest.raises(UsageError, match="no corner of the frame"):
        model.generate(**options, visible_label="zh", face_box=(10, 0, 500, 512))


def test_a_video_too_short_for_the_watermark(model, astronaut, speech):
    options = {"image": astronaut, "audio": speech, "sample_rate": 16000, "duration": 0.4, "min_resolution": 300}
    video = model.generate(**options)
    assert not video.labels.watermark
    assert "no watermark: 0.4 s are too short for a watermark; it needs 2 s" in video.notes
    with pytest.raises(UsageError, match=r"watermark: 0\.4 s are too short"):
        model.generate(**options, watermark=True)


def test_the_same_request_has_the_same_number(model, astronaut, speech):
    def number(**options):
        return model.generate(image=astronaut, audio=speech, sample_rate=16000, duration=0.4, **options).labels.number

    assert number() == number() and len(number()) == 32
    assert len({number(), number(seed=1), number(min_resolution=300)}) == 3


def test_other_weights_give_other_numbers(model, astronaut, speech, tmp_path):
    def number(one):
        return one.generate(image=astronaut, audio=speech, sample_rate=16000, duration=0.4).labels.number

    copy = tmp_path / "copy"
    shutil.copytree(PRETRAINED / "sonic-edge", copy)
    assert number(sonic_ms.load_model(copy)) == number(model)
    path = copy / "painter" / "model.safetensors"
    weights = {name: array * np.float32(1.001) for name, array in load_file(path).items()}
    save_file(weights, path)
    assert number(sonic_ms.load_model(copy)) != number(model)
