"""The other end of worker.py: a process that makes videos, to whom orders are told and from whom messages come."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

from sonic_ms.errors import OUTCOMES, EngineError, code_of
from sonic_ms.files.threads import limited
from sonic_ms.serve.looks import Looks

WORKER = (sys.executable, "-m", "sonic_ms.serve.worker")
GRACE = 0.5  # seconds from SIGTERM to SIGKILL


def arguments_of(settings):
    """What worker.py wants to know of a server's Settings, as JSON."""
    return json.dumps({
        "model": settings.model, "engine": settings.engine, "bundle": settings.bundle, "delta": settings.delta,
        "precision": settings.precision, "memory": settings.worker_memory, "c2pa_cert": settings.c2pa_cert,
        "c2pa_key": settings.c2pa_key, "producer": settings.producer,
    })  # fmt: skip


class Worker:
    """A worker process. Its messages, and None at its end, are put into `inbox` with itself. arguments: as
    `arguments_of` gives them. threads: of its graphs and its encoder, 0 for all cores.

    moves_files: whether it gets the files of a job by itself. blameless: whether its end says nothing of its jobs."""

    moves_files = blameless = False

    def __init__(self, arguments, inbox, threads=0):
        self.process = subprocess.Popen(
            [*WORKER, arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env={**os.environ, **(limited(threads) if threads else {})},
        )  # fmt: skip
        self.ready, self.engine, self.broken = False, None, None
        self.jobs = {}  # id -> Job
        self.kill_at = {}  # id -> when patience with a cancelled job ends
        self._looks = Looks(self.tell)
        self._lock = threading.Lock()
        threading.Thread(target=self._read, args=(inbox,), daemon=True, name="worker-output").start()

    def _read(self, inbox):
        for line in self.process.stdout:
            message = json.loads(line)
            if message["is"] == "looked":
                self._looks.answer(message)
            else:
                inbox.put((self, message))
        self._looks.end()
        inbox.put((self, None))

    def tell(self, **order):
        # ValueError: it was closed
        with contextlib.suppress(OSError, ValueError), self._lock:  # it has gone; its end is in the inbox
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()

    def look(self, **order):
        """Future of what a worker sees in a photo, or of its check of a request. EOFError when it ended."""
        return self._looks.ask(**order)

    @property
    def ended(self):
        """How the process ended, in words; waits for it."""
        code = self.process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        return f"the process that made the video ended ({how})"

    def end(self):
        """SIGTERM, then SIGKILL; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def kind_of(code):
    """The class of errors.OUTCOMES that has a code; EngineError for a code of the service."""
    return next((kind for kind in OUTCOMES if code_of(kind()) == code), EngineError)
