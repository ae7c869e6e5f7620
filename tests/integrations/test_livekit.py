"""The LiveKit avatar under the real AvatarRunner; the room is one that keeps what is published."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.live.protocol import pcm
from sonic_ms.media.audio import load_audio
from sonic_ms.pipeline import load_model

pytestmark = [pytest.mark.slow, pytest.mark.needs("livekit")]


class LocalRoom:
    """Connected, and everything that is published is subscribed at once."""

    def __init__(self):
        self.published = []
        self.local_participant = SimpleNamespace(publish_track=self._publish)

    def isconnected(self):
        return True

    def on(self, *_):
        pass

    off = on

    async def _publish(self, track, options):
        self.published.append(track.name)

        async def subscribed():
            pass

        return SimpleNamespace(wait_for_subscription=subscribed)


@pytest.fixture(scope="module")
def model():
    return load_model(engine="onnxruntime")


async def run(model, samples, rate, act):
    """(room, what it got, finished playbacks) of an agent that says the samples, while act(output, finished) runs."""
    from livekit import rtc
    from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput

    from integrations.livekit.avatar import SonicVideoGenerator

    room, got, finished = LocalRoom(), [], []
    generator = SonicVideoGenerator(model, str(DEMO_IMAGE), min_resolution=128)
    output = QueueAudioOutput(sample_rate=rate)
    output.on("playback_finished", finished.append)
    runner = AvatarRunner(room, audio_recv=output, video_gen=generator, options=generator.options)
    forward = runner.av_sync.push

    async def push(frame, *more):
        got.append(frame)
        await forward(frame, *more)

    runner.av_sync.push = push
    await runner.start()
    data = pcm(samples)
    for first in range(0, len(data), rate // 10):
        part = data[first : first + rate // 10]
        await output.capture_frame(rtc.AudioFrame(part.tobytes(), rate, 1, len(part)))
    output.flush()
    await act(output, finished)
    await generator.aclose()
    await runner.aclose()
    return room, got, finished


def sound(got):
    parts = [np.frombuffer(one.data, np.int16) for one in got if type(one).__name__ == "AudioFrame"]
    return np.concatenate([*parts, np.zeros(0, np.int16)])


def test_the_agent_gets_a_face(model):
    samples = load_audio(DEMO_AUDIO)[:24000]

    async def until_finished(output, finished):
        while not finished:
            await asyncio.sleep(0.02)

    room, got, finished = asyncio.run(asyncio.wait_for(run(model, samples, 16000, until_finished), 60))
    assert sorted(room.published) == ["avatar_audio", "avatar_video"]
    np.testing.assert_array_equal(sound(got)[: len(samples)], pcm(samples))
    pictures = [one for one in got if type(one).__name__ == "VideoFrame"]
    assert len(pictures) > 3 and (pictures[0].width, pictures[0].height) == (128, 128)
    assert len({bytes(one.data) for one in pictures}) > 3
    assert finished[0].playback_position == pytest.approx(1.5, abs=0.05) and not finished[0].interrupted


def test_an_interruption(model):
    samples = load_audio(DEMO_AUDIO)

    async def interrupt(output, finished):
        await asyncio.sleep(1)
        output.clear_buffer()
        while not finished:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)

    _, got, finished = asyncio.run(asyncio.wait_for(run(model, samples, 16000, interrupt), 60))
    assert finished[0].interrupted and len(sound(got)) < 4 * 16000


def test_other_rates(model):
    samples = load_audio(DEMO_AUDIO)[:12000]

    async def until_finished(output, finished):
        while not finished:
            await asyncio.sleep(0.02)

    _, got, _ = asyncio.run(asyncio.wait_for(run(model, np.repeat(samples, 3), 48000, until_finished), 60))
    assert len(sound(got)) == pytest.approx(12000, abs=1280)
