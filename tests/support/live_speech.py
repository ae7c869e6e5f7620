"""What tests of live sessions share: a clock that does not wait, a speaker that draws at once, and a sender in step."""

import numpy as np

from sonic_ms.live.session import LiveSession


class SteppedClock:
    """Time passes only where somebody sleeps; `work` seconds pass in every call of `works`."""

    def __init__(self, work=0.0):
        self.time, self.work, self.before = 1000.0, work, lambda: None

    def now(self):
        return self.time

    def sleep(self, seconds):
        assert 0 < seconds <= 0.05
        self.time += seconds
        self.before()

    def works(self):
        self.time += self.work


class PlainSpeaker:
    """Draws the number of the sound it was given; remembers what was asked."""

    def __init__(self, clock=None):
        self.ahead, self.clock, self.most_ahead = 0, clock, 0
        self.drawn, self.skipped, self.interrupted = [], 0, 0
        self._known = []

    def append(self, samples):
        assert samples.shape == (640,) and samples.dtype == np.float32
        self._known.append(samples)
        self.ahead += 1
        self.most_ahead = max(self.most_ahead, self.ahead)

    def next(self):
        self.ahead -= 1
        self.drawn.append((self._known.pop(0), self.ahead))
        if self.clock:
            self.clock.works()
        return np.zeros((4, 4, 3), np.uint8)

    def skip(self):
        self.ahead -= 1
        self._known.pop(0)
        self.skipped += 1

    def interrupt(self):
        self.interrupted += 1
        self.ahead, self._known = 0, []


class InStep:
    """Pushes samples as a microphone does, in chunks, while the clock runs."""

    def __init__(self, session, clock, samples, chunk=320, rate=16000, begin=None):
        self.session, self.clock, self.samples, self.chunk, self.rate = session, clock, samples, chunk, rate
        self.begin = clock.now() if begin is None else begin
        self.sent = 0
        clock.before = self

    def __call__(self):
        while self.sent < len(self.samples) and (self.sent + self.chunk) / self.rate <= self.clock.now() - self.begin:
            self.session.push(self.samples[self.sent : self.sent + self.chunk], self.rate)
            self.sent += self.chunk


def plain_session(clock=None, speaker=None, **settings):
    clock = clock or SteppedClock()
    speaker = speaker or PlainSpeaker(clock)
    return LiveSession(speaker, lambda square, index: square, (4, 4), "0" * 32, clock=clock, **settings), speaker, clock


def numbered(frames):
    """Samples in which frame i is the value (i + 1) / 4096."""
    return np.repeat((np.arange(frames, dtype=np.float32) % 4000 + 1) / 4096, 640)
