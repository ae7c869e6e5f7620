"""sonic-edge as a video service of Pipecat: place it behind the TTS service and in front of the output transport.

    face = SonicVideoService(model, "portrait.jpg")
    pipeline = Pipeline([transport.input(), stt, ..., tts, face, transport.output()])

The bot's voice comes out of it in step with the face; an interruption closes the mouth. The transport needs
video_out_enabled, video_out_is_live and the size of the frames, see `size`.
"""

import asyncio
import time

from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.services.ai_service import AIService
from pipecat.services.settings import ServiceSettings

from sonic_ms.errors import SonicError
from sonic_ms.live.feed import Feed
from sonic_ms.live.protocol import pcm
from sonic_ms.media.audio import SAMPLE_RATE

DRAIN = 2.0  # seconds beyond what is queued that an ending pipeline waits for the last words


class SonicVideoService(AIService):
    """A face that says what a TTS service speaks.

    model: of sonic_ms.load_model; image: the portrait; options: of model.live, such as look_ahead and min_resolution.
    Raises what model.live raises, when it is made.
    """

    def __init__(self, model, image, **options):
        super().__init__(settings=ServiceSettings(model=model.name))
        self._session = model.live(image, **options)
        self._feed = self._task = self._spoken_at = None

    @property
    def size(self):
        """(width, height) of the frames."""
        return self._session.size

    async def start(self, frame: StartFrame):
        await super().start(frame)
        self._feed = Feed(self._session)
        self._task = self.create_task(self._show())

    async def stop(self, frame: EndFrame):
        await super().stop(frame)
        self._session.flush()
        until = time.monotonic() + self._session.queued + DRAIN
        while self._speaking() and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await self._close()

    async def cancel(self, frame: CancelFrame):
        await super().cancel(frame)
        await self._close()

    async def cleanup(self):
        await super().cleanup()
        await self._close()

    def _speaking(self):
        """Whether sound that was pushed has not been shown."""
        return self._session.queued > 0 or (self._spoken_at or 0.0) < self._session.pushed - 0.08

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            await self._speak(frame)
            return
        if isinstance(frame, InterruptionFrame):
            self._session.interrupt()
        elif isinstance(frame, TTSStoppedFrame):
            self._session.flush()
        await self.push_frame(frame, direction)

    async def _speak(self, frame):
        try:
            self._session.push(frame.audio, frame.sample_rate)
        except SonicError as error:
            await self.push_error(error_msg=str(error), exception=error)

    async def _show(self):
        try:
            async for frame in self._feed:
                if frame.image is not None:
                    picture = OutputImageRawFrame(image=frame.image.tobytes(), size=self.size, format="RGB")
                    await self.push_frame(picture)
                if frame.position is not None:
                    sound = pcm(frame.audio).tobytes()
                    await self.push_frame(TTSAudioRawFrame(audio=sound, sample_rate=SAMPLE_RATE, num_channels=1))
                    self._spoken_at = frame.position + frame.audio.size / SAMPLE_RATE
        except SonicError as error:
            logger.error(str(error))
            await self.push_error(error_msg=str(error), exception=error)

    async def _close(self):
        if self._feed:
            await self._feed.close()
        self._session.close()
        if self._task:
            task, self._task = self._task, None
            await self.cancel_task(task)
