"""WebRTC by aiortc: a browser's microphone into a session, the session's face and voice back."""

from __future__ import annotations

import asyncio
import contextlib
from fractions import Fraction
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from sonic_ms.errors import UsageError
from sonic_ms.live.feed import WAITING, Feed
from sonic_ms.live.protocol import pcm
from sonic_ms.live.session import LiveFrame, LiveSession
from sonic_ms.media.audio import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME


class Track(MediaStreamTrack):
    """Frames of av as they are put in; who does not take them loses the oldest."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._frames: asyncio.Queue[Any] = asyncio.Queue(WAITING)

    def put(self, frame: Any) -> None:
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(frame)

    async def recv(self) -> Any:
        if self.readyState != "live":
            raise MediaStreamError
        return await self._frames.get()


def video_frame(frame: LiveFrame) -> VideoFrame | None:
    if frame.image is None:
        return None
    made = VideoFrame.from_ndarray(frame.image, format="rgb24")
    made.pts, made.time_base = frame.index, Fraction(1, FPS)
    return made


def audio_frame(frame: LiveFrame) -> AudioFrame:
    made = AudioFrame.from_ndarray(pcm(frame.audio)[None], format="s16", layout="mono")
    made.pts, made.time_base, made.sample_rate = frame.index * SAMPLES_PER_FRAME, Fraction(1, SAMPLE_RATE), SAMPLE_RATE
    return made


class Call:
    """One browser: `answer` its offer, `close` when it is gone."""

    def __init__(self, session: LiveSession) -> None:
        self.session = session
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.video, self.audio = Track("video"), Track("audio")
        self.feed: Feed | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def answer(self, sdp: str) -> str:
        """SDP of the answer to an offer; from now on the face moves. Raises UsageError for what is no offer."""
        connection = self.connection

        @connection.on("track")
        def on_track(track: Any) -> None:
            if track.kind == "audio":
                self._tasks.append(asyncio.ensure_future(self._listen(track)))

        try:
            await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            connection.addTrack(self.video)
            connection.addTrack(self.audio)
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:  # aiortc has no base class for what it cannot read
            raise UsageError(f"no offer of WebRTC: {type(error).__name__}") from error
        self.feed = Feed(self.session, lambda frame: (video_frame(frame), audio_frame(frame)))
        self._tasks.append(asyncio.ensure_future(self._show(self.feed)))
        return connection.localDescription.sdp

    async def _listen(self, track: Any) -> None:
        with contextlib.suppress(MediaStreamError):
            while not self.session.closed:
                frame = await track.recv()
                samples = frame.to_ndarray()  # packed: (1, n * channels)
                channels = len(frame.layout.channels)
                self.session.push(samples.reshape(-1, channels), frame.sample_rate)

    async def _show(self, feed: Feed) -> None:
        async for picture, sound in feed:
            if picture is not None:
                self.video.put(picture)
            self.audio.put(sound)

    async def finished(self) -> None:
        """Returns, or raises what went wrong, when the session ends."""
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self.feed:
            await self.feed.close()
        else:
            self.session.close()
        await self.connection.close()
