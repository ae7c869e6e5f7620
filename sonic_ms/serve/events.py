"""Server-sent events: rows of the table of events, as they come; a client that comes back gets what it missed."""

import asyncio
import contextlib
import json
import threading

from sonic_ms.serve.jobs import ENDED
from sonic_ms.serve.problems import Unavailable

KEEP_ALIVE = 15.0  # seconds
LOOK = 0.5  # seconds between two looks at what other servers did
AT_ONCE = 500  # jobs in one statement
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

    def watched(self):
        """Ids of the jobs that streams wait for."""
        return list(self._waiting)


class Follower:
    """A thread that tells a Hub what happens on other servers of the same database: one look at the events of the jobs
    that are watched here, however many streams there are."""

    def __init__(self, database, hub):
        self.database, self.hub = database, hub
        self._seen = {}  # job -> number of its newest event
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="follower")

    def start(self):
        self._thread.start()

    def stop(self):
        self._stopping.set()
        self._thread.join()

    def _run(self):
        while not self._stopping.wait(LOOK):
            watched = self.hub.watched()
            try:
                newest = self._newest(watched)
            except Unavailable:
                continue
            for job in watched:
                if self._seen.get(job, -1) != newest.get(job):  # also of one that is gone
                    self.hub.changed(job)
            self._seen = newest

    def _newest(self, watched):
        found = {}
        for start in range(0, len(watched), AT_ONCE):
            names = watched[start : start + AT_ONCE]
            marks = ", ".join("?" * len(names))
            rows = self.database.rows(
                f"SELECT job, max(seq) AS newest FROM events WHERE job IN ({marks}) GROUP BY job", *names
            )
            found |= {row["job"]: row["newest"] for row in rows}
        return found


async def stream(service, tenant, job, after, show):
    """Bytes of the events of a job after number `after`, until it has ended. show: Job -> its object."""
    yield f"retry: {RETRY}\n\n".encode()
    with service.hub.watching(job) as changed:
        while not service.draining.is_set():
            changed.clear()
            try:
                found, now = await asyncio.to_thread(_look, service, tenant, job, after, show)
            except Unavailable:  # it goes on when the database is back
                yield b": wait\n\n"
                await asyncio.sleep(LOOK)
                continue
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
