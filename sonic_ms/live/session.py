"""Speech in while it is spoken, frames out at 25 a second. The session keeps time; a model draws.

Frame i is due i / 25 s after the session began, whatever was pushed. Every frame carries the 40 ms of sound that belong
to it, so picture and sound cannot drift apart. Sound is shown late by the look-ahead, which the mouth needs to see what
comes. Who pulls too late gets the sound without a picture; who stays away for long finds the time passed over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sonic_ms.errors import Cancelled, UsageError
from sonic_ms.live.sound import Chunk, SoundQueue
from sonic_ms.media.audio import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

MOST_AHEAD = 1.0  # seconds of look-ahead
MOST_QUEUED = 120.0  # seconds of sound that may wait
LATE = 1.0  # frames after which a picture comes too late
AWAY = 25  # frames of absence that are passed over at once
MICROPHONE_SLACK = 4  # frames that a microphone's sound may wait beyond the look-ahead


class Clock(Protocol):
    """Seconds from any beginning, and how to wait. Tests bring one that does not wait."""

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class WallClock:
    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


class Speaker(Protocol):
    """What a model brings: see edge/live.py. ahead: frames of sound that were appended and not shown."""

    ahead: int

    def append(self, samples: np.ndarray) -> None: ...

    def next(self) -> np.ndarray: ...

    def skip(self) -> None: ...

    def interrupt(self) -> None: ...


@dataclass(frozen=True)
class LiveFrame:
    """index: it is due index / 25 s after the session began. image: uint8 RGB (h, w, 3), None for one that was dropped.
    audio: its 40 ms, float32 (640,) at 16 kHz. position: seconds of pushed sound before its first sample, None for
    silence that nobody pushed. delay: seconds since its last pushed sample came in."""

    index: int
    image: np.ndarray | None
    audio: np.ndarray
    position: float | None
    delay: float | None

    @property
    def time(self) -> float:
        return self.index / FPS


@dataclass(frozen=True)
class _Slot:
    """Sound that has its frame. position in samples."""

    audio: np.ndarray
    position: int | None
    came: float


class LiveSession:
    """One face that speaks what is pushed. Push and interrupt from any thread; pull from one at a time.

    speaker: draws; finish: what is done to its pictures, frame and index in, frame out. size: (width, height) of the
    frames. number: their ProduceID, which the watermark holds. look_ahead: seconds, rounded to frames. microphone: the
    sound comes as it is spoken, and what waits too long is left out.
    """

    def __init__(
        self,
        speaker: Speaker,
        finish: Callable[[np.ndarray, int], np.ndarray],
        size: tuple[int, int],
        number: str,
        look_ahead: float = 0.2,
        microphone: bool = False,
        most_queued: float = MOST_QUEUED,
        clock: Clock | None = None,
    ) -> None:
        self.size, self.number = size, number
        self.look_ahead = frames_ahead(look_ahead)
        self.microphone = microphone
        self._speaker, self._finish, self._clock = speaker, finish, clock or WallClock()
        self._queue = SoundQueue(most_queued)
        self._lock = threading.Lock()
        self._slots: list[_Slot] = []  # sound of the frames to come, at most the look-ahead and one
        self._index, self._start = 0, None
        self._last_push = -np.inf
        self._ended = self._interrupted = self._closed = False
        self.dropped = 0  # pictures that came too late
        self.left_out = 0  # samples of a microphone, or of a time that nobody pulled, that were not played

    # in --------------------------------------------------------------------------------------------------------

    def push(self, chunk: Chunk, sample_rate: int = SAMPLE_RATE) -> None:
        """Sound that follows what was pushed before, of any length: see sound.SoundQueue.push.

        Raises AudioError, ResourceError when too much waits, Cancelled when the session is closed."""
        with self._lock:
            self._check_open()
            if self._ended:
                raise UsageError("sound after its end; open another session")
            self._last_push = self._clock.now()
            self._queue.push(chunk, sample_rate, self._last_push)

    def flush(self) -> None:
        """An utterance is over: what waits is played without waiting for more."""
        with self._lock:
            self._queue.flush(self._clock.now())
            self._last_push = -np.inf

    def end(self) -> None:
        """No more sound will come: the frames end with it."""
        self.flush()
        with self._lock:
            self._ended = True

    def interrupt(self) -> None:
        """Be quiet: what waits is dropped, and the mouth closes within three frames."""
        with self._lock:
            self._check_open()
            self._queue.clear()
            self._interrupted = True

    def close(self) -> None:
        """Free everything; a `pull` that waits ends within a frame. May be called twice."""
        with self._lock:
            self._closed = True
            self._queue.clear()

    @property
    def queued(self) -> float:
        """Seconds of sound that wait."""
        return self._queue.seconds

    @property
    def pushed(self) -> float:
        """Seconds of sound that were pushed so far, played or not: what a LiveFrame's position counts."""
        return self._queue.pushed / SAMPLE_RATE

    @property
    def closed(self) -> bool:
        return self._closed

    # out -------------------------------------------------------------------------------------------------------

    def pull(self) -> LiveFrame | None:
        """The next frame, when it is due; None after the last one of a session that has ended.

        Raises Cancelled when the session is closed, EngineError."""
        self._wait()
        with self._lock:
            self._check_open()
            if self._interrupted:
                self._speaker.interrupt()
                self._slots, self._interrupted = [], False
            late = self._behind()
            if late > AWAY:
                self._pass_over(int(late))
                late = 0
            if not self._fill():
                return None
            slot, index = self._slots.pop(0), self._index
            self._index += 1
        if late > LATE:
            self._speaker.skip()
            self.dropped += 1
            image = None
        else:
            image = self._finish(self._speaker.next(), index)
        position = None if slot.position is None else slot.position / SAMPLE_RATE
        delay = None if slot.position is None else self._clock.now() - slot.came
        return LiveFrame(index, image, slot.audio, position, delay)

    def __iter__(self) -> Iterator[LiveFrame]:
        while (frame := self.pull()) is not None:
            yield frame

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Cancelled("the live session is closed; open another")

    def _behind(self) -> float:
        """Frames by which the next frame is late."""
        assert self._start is not None
        return (self._clock.now() - self._start) * FPS - self._index

    def _wait(self) -> None:
        if self._start is None:
            self._start = self._clock.now()
        while (early := -self._behind() / FPS) > 1e-6 and not self._closed:
            self._clock.sleep(min(early, 1 / FPS))

    def _fill(self) -> bool:
        """Give sound to the next frame and, as far as there is some, to those of the look-ahead. False at the end."""
        self._trim()
        silent = not self._slots
        if silent and self._queue.length < (1 + self.look_ahead) * SAMPLES_PER_FRAME and not self._stopped():
            self._append(_Slot(np.zeros(SAMPLES_PER_FRAME, np.float32), None, 0.0))  # wait until enough is there
            return True
        while len(self._slots) <= self.look_ahead and self._enough():
            position = self._queue.pushed - self._queue.length
            audio, came = self._queue.take()
            self._append(_Slot(audio, position, came))
        if self._slots:
            return True
        if self._ended:
            return False
        self._append(_Slot(np.zeros(SAMPLES_PER_FRAME, np.float32), None, 0.0))
        return True

    def _stopped(self) -> bool:
        """Whether nothing more belongs to what waits: what is there is played without look-ahead."""
        return self._ended or self._clock.now() - self._last_push > max(self.look_ahead, 2) / FPS

    def _enough(self) -> bool:
        return self._queue.length >= SAMPLES_PER_FRAME or (self._queue.length > 0 and self._stopped())

    def _append(self, slot: _Slot) -> None:
        self._slots.append(slot)
        self._speaker.append(slot.audio)

    def _trim(self) -> None:
        """A microphone's sound that has waited too long is late: leave it out."""
        if self.microphone:
            most = (1 + self.look_ahead - len(self._slots) + MICROPHONE_SLACK) * SAMPLES_PER_FRAME
            self._leave_out(self._queue.length - most)

    def _leave_out(self, samples: int) -> None:
        if samples > 0:
            self._queue.take(samples)
            self.left_out += samples

    def _pass_over(self, frames: int) -> None:
        """Nobody pulled for a while: the time is over, and the sound of it."""
        self._speaker.interrupt()
        self._leave_out(min((frames - len(self._slots)) * SAMPLES_PER_FRAME, self._queue.length))
        self._slots = []
        self._index += frames
        self.dropped += frames


def frames_ahead(seconds: float) -> int:
    """Look-ahead in whole frames. Raises UsageError."""
    if not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_AHEAD:
        raise UsageError(f"look_ahead is {seconds!r}; expected 0 to {MOST_AHEAD:g} seconds")
    return round(seconds * FPS)
