"""sonic-edge as an avatar of LiveKit Agents: a VideoGenerator for livekit.agents' AvatarRunner.

    generator = SonicVideoGenerator(model, "portrait.jpg")
    runner = AvatarRunner(room, audio_recv=audio, video_gen=generator, options=generator.options)
    await runner.start()

`audio` is the DataStreamAudioReceiver of an avatar's own process, or the QueueAudioOutput of an agent in this one.
"""

from collections import deque

from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from sonic_ms.live.feed import Feed
from sonic_ms.live.protocol import pcm
from sonic_ms.media.audio import FPS, SAMPLE_RATE


class SonicVideoGenerator(VideoGenerator):
    """A face that says what an agent speaks; still and breathing in between.

    model: of sonic_ms.load_model; image: the portrait; options: of model.live, such as look_ahead and min_resolution.
    Raises what model.live raises, when it is made. To be made and used in one event loop.
    """

    def __init__(self, model, image, **options):
        self._session = model.live(image, **options)
        self._feed = None
        self._ends = deque()  # seconds of pushed sound after which a segment is over

    @property
    def options(self):
        """AvatarOptions for the AvatarRunner."""
        width, height = self._session.size
        return AvatarOptions(width, height, FPS, SAMPLE_RATE, 1)

    async def push_audio(self, frame):
        """Sound of the agent, or the end of a segment."""
        if isinstance(frame, AudioSegmentEnd):
            self._session.flush()
            self._ends.append(self._session.pushed)
            return
        samples = memoryview(frame.data).cast("B")
        if frame.num_channels == 1:
            self._session.push(samples, frame.sample_rate)
        else:
            import numpy as np

            self._session.push(np.frombuffer(samples, "<i2").reshape(-1, frame.num_channels), frame.sample_rate)

    def clear_buffer(self):
        self._ends.clear()
        self._session.interrupt()

    async def __aiter__(self):
        self._feed = Feed(self._session)
        width, height = self._session.size
        async for frame in self._feed:
            if frame.image is not None:
                yield rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, frame.image.tobytes())
            if frame.position is not None:
                sound = pcm(frame.audio)
                yield rtc.AudioFrame(sound.tobytes(), SAMPLE_RATE, 1, len(sound))
                if self._ends and frame.position + 1 / FPS >= self._ends[0] - 1e-6:
                    self._ends.popleft()
                    yield AudioSegmentEnd()

    async def aclose(self):
        """Free the processor."""
        self._session.close()
        if self._feed:
            await self._feed.close()
