"""What goes over the WebSocket of docs/live.md: 16-bit PCM in, frames with their sound out."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from sonic_ms.errors import SonicError
from sonic_ms.labels import aigc
from sonic_ms.live.session import LiveFrame, LiveSession
from sonic_ms.media.audio import FPS, SAMPLE_RATE

HEADER = struct.Struct("<IId")  # index; bytes of sound that follow; seconds of pushed sound before it, or NaN
QUALITY = 85  # of the JPEG


def hello(session: LiveSession, producer: str = aigc.DEFAULT_PRODUCER) -> dict[str, Any]:
    """First message of the server; the label says that what follows is generated."""
    return {
        "type": "hello",
        "width": session.size[0],
        "height": session.size[1],
        "fps": FPS,
        "sample_rate": SAMPLE_RATE,
        "look_ahead": session.look_ahead / FPS,
        aigc.KEY: aigc.first(producer, session.number).text(),
    }


def pack(frame: LiveFrame) -> bytes:
    """A message of one frame; its picture is empty when it was dropped."""
    import cv2

    sound = pcm(frame.audio).tobytes()
    position = math.nan if frame.position is None else frame.position
    picture = b""
    if frame.image is not None:
        written = cv2.imencode(".jpg", frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        picture = written.tobytes()
    return HEADER.pack(frame.index, len(sound), position) + sound + picture


def unpack(message: bytes) -> tuple[int, float | None, np.ndarray, bytes]:
    """(index, position, sound int16 (n,), JPEG or b"") of a message."""
    index, length, position = HEADER.unpack_from(message)
    end = HEADER.size + length
    sound = np.frombuffer(message[HEADER.size : end], "<i2")
    return index, None if math.isnan(position) else position, sound, message[end:]


def pcm(samples: np.ndarray) -> np.ndarray:
    """float32 of -1..1 -> int16, little-endian."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")


def problem(error: Exception) -> dict[str, str]:
    """The message of an error: one line for a SonicError, its kind alone for a defect of ours."""
    if isinstance(error, SonicError):
        return {"type": "error", "kind": type(error).__name__, "message": str(error).replace("\n", " ")}
    return {
        "type": "error",
        "kind": "Unexpected",
        "message": f"unexpected {type(error).__name__}; see the server's log",
    }
