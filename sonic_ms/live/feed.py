"""The frames of a session for asyncio: a thread of its own pulls and draws, a bounded queue hands over."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from sonic_ms.errors import Cancelled
from sonic_ms.live.session import LiveFrame, LiveSession

WAITING = 12  # frames that wait for a receiver: half a second


class Feed:
    """`async for` over what `dress` makes of every LiveFrame in the thread that draws; to be made in the loop.

    What a slow receiver does not take in time is dropped, the oldest first. Ends with the session; raises what the
    session raised."""

    def __init__(self, session: LiveSession, dress: Callable[[LiveFrame], Any] = lambda frame: frame) -> None:
        self.session, self._dress = session, dress
        self._loop, self._there = asyncio.get_running_loop(), asyncio.Event()
        self._frames: deque[Any] = deque(maxlen=WAITING)
        self._over, self._error = False, None
        self._thread = threading.Thread(target=self._run, name="sonic-ms live", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for frame in self.session:
                self._tell(self._frames.append, self._dress(frame))
        except Cancelled:
            pass
        except Exception as error:
            self._error = error
        self._over = True
        self._tell(lambda: None)

    def _tell(self, function: Callable[..., None], *values: Any) -> None:
        def here() -> None:
            function(*values)
            self._there.set()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(here)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            await self._there.wait()
            while self._frames:
                yield self._frames.popleft()
            self._there.clear()
            if self._over and not self._frames:
                break
        if self._error:
            raise self._error

    async def close(self) -> None:
        """Close the session and wait until its thread has left the processor."""
        self.session.close()
        await asyncio.to_thread(self._thread.join)
