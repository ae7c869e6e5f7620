"""sonic-edge while the speech comes in, against what it shows of the whole recording."""

from pathlib import Path

import numpy as np
import pytest

from bench.live import live_curves
from sonic_ms.edge.curves import OPEN
from sonic_ms.edge.idle import idle_motion
from sonic_ms.edge.live import LiveEdge, LiveUnits
from sonic_ms.edge.live_idle import LiveIdle
from sonic_ms.edge.live_voice import LiveVoice
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.rig import POSE
from sonic_ms.edge.units import LIVE_WINDOW
from sonic_ms.errors import FaceError, UsageError
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.audio import SAMPLES_PER_FRAME, load_audio, log_mel, speech_envelope, voice_activity
from sonic_ms.pipeline import load_model
from tests.support.live_speech import SteppedClock

UNITS = LiveUnits("edge_live_audio", LIVE_WINDOW, "edge_live_256", 1)
STILL = {"motion_scale": 0.0, "watermark": False, "min_resolution": 128}


@pytest.fixture(scope="module")
def model():
    return load_model(engine="onnxruntime")


@pytest.fixture(scope="module")
def generator(model):
    return model.generator


@pytest.fixture(scope="module")
def speech():
    return load_audio(DEMO_AUDIO)


def frames_of(samples):
    count = len(samples) // SAMPLES_PER_FRAME
    return samples[: count * SAMPLES_PER_FRAME].reshape(count, -1)


@pytest.mark.slow
def test_the_shown_opening_is_that_of_the_offline_video(generator, speech):
    offline, _ = generator.curves(speech, EdgeOptions())
    found = []
    for ahead in (0, 5):
        live = live_curves(generator, speech, ahead, EdgeOptions())[: len(offline)]
        found.append(np.corrcoef(live[:, OPEN], offline[:, OPEN])[0, 1])
    assert found[1] >= 0.95 and found[0] < found[1]


def test_voice_is_heard_where_it_is_in_the_whole_recording(speech):
    voice, live = LiveVoice(), []
    frames = frames_of(np.concatenate([np.zeros(16000, np.float32), speech]))
    for i, frame in enumerate(frames):
        voice.append(frame)
        if i >= 5:
            live.append(voice.active()[-6])
    offline = voice_activity(frames.ravel())
    assert np.mean(np.array(live) == offline[: len(live)]) > 0.93


def test_mel_is_that_of_the_recording_so_far(speech):
    voice, frames = LiveVoice(), frames_of(speech)[:40]
    for i, frame in enumerate(frames):
        if i == 30:
            voice.append(frames[0])
            voice.append(frames[1])
            voice.drop(2)  # as if they had never come
        voice.append(frame)
        expected = log_mel(frames[: i + 1].ravel(), max_log=-10)[:, -20 * 4 :]
        assert np.abs(voice.mel(20)[:, -expected.shape[1] :] - expected).max() < 1e-5, i
        assert (voice.mel(20)[:, : -expected.shape[1]] == -1.5).all()


def test_loudness_is_that_of_the_whole_recording(speech):
    voice, live = LiveVoice(), []
    for frame in frames_of(speech):
        voice.append(frame)
        voice.active()
        live.append(voice.loudness(1))
    offline = speech_envelope(speech)[: len(live) - 1]
    assert np.corrcoef(live[1:], offline)[0, 1] > 0.85  # which is divided by what is loud in all of it


def test_noise_and_silence_keep_the_mouth_shut(generator):
    noise = np.random.default_rng(0).normal(0, 0.01, 16000 * 6).astype(np.float32)
    for samples in (noise, np.zeros(16000 * 3, np.float32)):
        assert not live_curves(generator, samples, 5, EdgeOptions())[:, OPEN].any()


def test_an_interruption_closes_the_mouth_within_three_frames(generator, speech):
    speaker = LiveEdge(generator.engine, generator.heard, UNITS, None, EdgeOptions())
    shown = []
    for i, frame in enumerate(frames_of(speech)):
        speaker.append(frame)
        if i < 5:
            continue
        shown.append(speaker.next_curves()[OPEN])
        if len(shown) > 20 and shown[-1] > 0.3:
            break
    assert shown[-1] > 0.3
    speaker.interrupt()
    assert speaker.ahead == 0
    after = []
    for _ in range(8):
        speaker.append(np.zeros(SAMPLES_PER_FRAME, np.float32))
        after.append(speaker.next_curves()[OPEN])
    assert 0 <= after[0] < 0.6 * shown[-1]  # on its way, not shut at once
    assert not np.any(after[2:])


def test_it_speaks_again_after_an_interruption(generator, speech):
    speaker = LiveEdge(generator.engine, generator.heard, UNITS, None, EdgeOptions())
    speaker.interrupt()  # while it says nothing
    frames, shown = frames_of(speech), []
    for frame in frames[:5]:
        speaker.append(frame)
    for frame in frames[5:60]:
        speaker.append(frame)
        shown.append(speaker.next_curves()[OPEN])
    assert max(shown) > 0.3


def test_idle_motion_is_like_that_of_a_video():
    idle = LiveIdle(3, 1.0)
    live = np.array([idle.next(0.0) for _ in range(25 * 60)])
    offline = idle_motion(25 * 60, 3, np.zeros(25 * 60), 1.0)
    assert (live[:, :4].std(0) / offline[:, :4].std(0)).min() > 0.6
    assert (live[:, :4].std(0) / offline[:, :4].std(0)).max() < 1.6
    blinks = np.diff((live[:, POSE.index("blink")] > 0.9).astype(int)) == 1
    assert 8 <= blinks.sum() <= 30
    assert np.abs(np.diff(live[:, :4], axis=0)).max() < 0.01 and not live[0, :4].any()
    again = LiveIdle(3, 1.0)
    np.testing.assert_array_equal(live[:50], [again.next(0.0) for _ in range(50)])


def test_no_motion_means_none():
    idle = LiveIdle(0, 0.0)
    assert not np.any([idle.next(1.0) for _ in range(200)])


def test_a_session_shows_the_photo_until_somebody_speaks(model, speech):
    with model.live(str(DEMO_IMAGE), clock=SteppedClock(), **STILL) as session:
        still = [session.pull().image for _ in range(10)]
        assert all((image == still[0]).all() for image in still)
        session.push(speech[: 2 * 16000])
        spoken = [session.pull() for _ in range(40)]
    moved = [np.abs(frame.image.astype(int) - still[0]).max() for frame in spoken if frame.position is not None]
    assert max(moved) > 40
    assert session.size == (still[0].shape[1], still[0].shape[0]) and session.dropped == 0


def test_a_still_portrait_breathes_and_is_marked(model):
    with model.live(str(DEMO_IMAGE), clock=SteppedClock(), min_resolution=128, visible_label="en") as session:
        frames = [session.pull().image for _ in range(60)]
    assert len({image.tobytes() for image in frames}) > 40
    assert len(session.number) == 32


@pytest.mark.parametrize("wrong", [{"duration": 2.0}, {"align_offset": 0.1}, {"lip_sync_correction": True}])
def test_options_of_whole_recordings_are_refused(model, wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is for whole recordings"):
        model.live(str(DEMO_IMAGE), **wrong)


def test_other_wrong_things(model):
    with pytest.raises(UsageError, match="look_ahead"):
        model.live(str(DEMO_IMAGE), look_ahead=3)
    with pytest.raises(UsageError, match="unknown keys"):
        model.live(str(DEMO_IMAGE), wobble=3)
    with pytest.raises(FaceError):
        model.live(np.zeros((256, 256, 3), np.uint8))


def test_sonic_base_says_that_it_makes_whole_videos():
    from types import SimpleNamespace

    from sonic_ms.base.generator import BaseGenerator
    from sonic_ms.base.options import BaseOptions
    from sonic_ms.pipeline import TalkingModel

    assert not hasattr(BaseGenerator, "live")
    base = TalkingModel(SimpleNamespace(name="sonic-base", Options=BaseOptions))
    with pytest.raises(UsageError, match="sonic-base makes whole videos only; live needs sonic-edge"):
        base.live(str(DEMO_IMAGE))


@pytest.mark.slow
@pytest.mark.needs("recordings")
@pytest.mark.parametrize("name", ["numbers.raw", "something.raw", "goforward.raw"])
def test_other_voices(generator, name):
    path = Path("/usr/share/pocketsphinx/test/data") / name
    samples = np.fromfile(path, "<i2") / np.float32(32768)
    offline, _ = generator.curves(samples, EdgeOptions())
    live = live_curves(generator, samples, 5, EdgeOptions())
    count = min(len(live), len(offline))
    assert np.corrcoef(live[:count, OPEN], offline[:count, OPEN])[0, 1] > 0.85
