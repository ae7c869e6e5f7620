"""The Pipecat service in a real pipeline, with an output transport that keeps what it is told to send."""

import asyncio

import numpy as np
import pytest

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.live.protocol import pcm
from sonic_ms.media.audio import load_audio
from sonic_ms.pipeline import load_model

pytestmark = [pytest.mark.slow, pytest.mark.needs("pipecat")]


def kept_transport(size):
    from pipecat.transports.base_output import BaseOutputTransport
    from pipecat.transports.base_transport import TransportParams

    class Kept(BaseOutputTransport):
        """A local transport: what would be played is kept."""

        def __init__(self):
            super().__init__(
                TransportParams(
                    audio_out_enabled=True, audio_out_sample_rate=16000, video_out_enabled=True, video_out_is_live=True,
                    video_out_width=size[0], video_out_height=size[1], video_out_framerate=25,
                )
            )  # fmt: skip
            self.sound, self.pictures = [], []

        async def start(self, frame):
            await super().start(frame)
            await self.set_transport_ready(frame)

        async def write_audio_frame(self, frame):
            self.sound.append(np.frombuffer(frame.audio, "<i2"))
            return True

        async def write_video_frame(self, frame):
            self.pictures.append((frame.size, frame.image))
            return True

    return Kept()


async def speak(service, transport, talk):
    from pipecat.frames.frames import EndFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.workers.runner import WorkerRunner

    worker = PipelineWorker(
        Pipeline([service, transport]), params=PipelineParams(audio_out_sample_rate=16000), enable_rtvi=False
    )

    async def send():
        await asyncio.sleep(0.3)
        await talk(worker)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await asyncio.wait_for(asyncio.gather(runner.run(), send()), 60)


@pytest.fixture(scope="module")
def model():
    return load_model(engine="onnxruntime")


def chunks(samples, frames):
    from pipecat.frames.frames import TTSAudioRawFrame

    data = pcm(samples).tobytes()
    return [
        TTSAudioRawFrame(audio=data[i : i + frames * 640], sample_rate=16000, num_channels=1)
        for i in range(0, len(data), frames * 640)
    ]


def test_the_voice_comes_with_a_face(model):
    from integrations.pipecat.video import SonicVideoService

    samples = load_audio(DEMO_AUDIO)[:24000]

    async def go():
        service = SonicVideoService(model, str(DEMO_IMAGE), min_resolution=128)
        transport = kept_transport(service.size)

        async def talk(worker):
            for frame in chunks(samples, 3):
                await worker.queue_frame(frame)

        await speak(service, transport, talk)
        return service, transport

    service, transport = asyncio.run(go())
    sound = np.concatenate(transport.sound)
    first = np.flatnonzero(sound)[0] - np.flatnonzero(pcm(samples))[0]
    heard = sound[max(first, 0) :][:20000]
    assert np.abs(heard.astype(int) - pcm(samples)[max(-first, 0) :][: len(heard)]).max() <= 1
    assert len(transport.pictures) > 3 and transport.pictures[-1][0] == service.size
    assert len({image for _, image in transport.pictures}) > 3  # it moves
    assert service._session.closed


def test_an_interruption_stops_the_voice(model):
    from pipecat.frames.frames import InterruptionFrame

    from integrations.pipecat.video import SonicVideoService

    samples = load_audio(DEMO_AUDIO)

    async def go():
        service = SonicVideoService(model, str(DEMO_IMAGE), min_resolution=128)
        transport = kept_transport(service.size)

        async def talk(worker):
            for frame in chunks(samples, 10):
                await worker.queue_frame(frame)
            await asyncio.sleep(1)
            await worker.queue_frame(InterruptionFrame())
            await asyncio.sleep(0.5)

        await speak(service, transport, talk)
        return transport

    sound = np.concatenate(asyncio.run(go()).sound)
    assert np.count_nonzero(sound) < 4 * 16000  # of eight seconds
