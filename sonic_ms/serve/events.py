"""Server-sent events: rows of the table of events, as they come; a client that comes back gets what it missed."""

import asyncio
import contextlib
import json

from sonic_ms.serve.jobs import ENDED

KEEP_ALIVE = 15.0  # seconds
RETRY = 2000  # milliseconds after which a browser asks again


class Hub:
    """Wakes the streams of a job when it changes, from any thread."""

    def __init__(self):
        self.loop = None
        self._waiting = {}  # job -> set of asyncio.Event

    def changed(self, job):
        if self.loop is not None and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self.loop.call_soon_threadsafe(self._wake, job)

    def _wake(self, job):
        for one in self._waiting.get(job, ()):
            one.set()

    def wake_all(self):
        for job in list(self._waiting):
            self.changed(job)

    @contextlib.contextmanager
    def watching(self, job):
        """An asyncio.Event that is set when the job changes."""
        event = asyncio.Event()
        self._waiting.setdefault(job, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[job].discard(event)
            if not self._waiting[job]:
                del self._waiting[job]


async def stream(service, tenant, job, after, show):
    """Bytes of the events of a job after number `after`, until it has ended. show: Job -> its object."""
    yield f"retry: {RETRY}\n\n".encode()
    with service.hub.watching(job) as changed:
        while not service.draining.is_set():
            changed.clear()
            found, now = await asyncio.to_thread(_look, service, tenant, job, after, show)
            for number, name, data in found:
                after = number
                yield f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()
            if now is None or now.state in ENDED:
                return
            try:
                await asyncio.wait_for(changed.wait(), KEEP_ALIVE)
            except asyncio.TimeoutError:
                yield b": still here\n\n"


def _look(service, tenant, job, after, show):
    """(events after a number, the job): the job first, so that no event before its end is missed."""
    now = service.jobs.get(tenant, job)
    found = service.jobs.events(job, after) if now else []
    if now and found:  # the last one shows the job as it is
        number, name, data = found[-1]
        found[-1] = (number, name, show(now) | data)
    return found, now
