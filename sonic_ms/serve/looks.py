"""Questions to a worker, each of which gets its own answer: what a photo shows, whether a request will do."""

import secrets
import threading
from concurrent.futures import Future


class Looks:
    """Those that wait for an answer, from any thread. tell: sends an order to the worker."""

    def __init__(self, tell):
        self._tell, self._lock, self._waiting = tell, threading.Lock(), {}  # number -> Future

    def ask(self, **order):
        """Future of the worker's answer. Raises EOFError when the worker has ended."""
        future, number = Future(), secrets.token_hex(8)
        with self._lock:
            if self._waiting is None:
                raise EOFError
            self._waiting[number] = future
        self._tell(do="look", look=number, **order)
        return future

    def answer(self, message):
        with self._lock:
            future = self._waiting.pop(message["look"], None) if self._waiting else None
        if future:
            future.set_result(message)

    def end(self):
        """The worker has ended: who waits gets EOFError."""
        with self._lock:
            waiting, self._waiting = self._waiting or {}, None
        for future in waiting.values():
            future.set_exception(EOFError())
