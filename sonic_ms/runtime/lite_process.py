"""The parent's side of lite_worker.py: start it, talk to it, share memory with it, and notice every way it can fail."""

import contextlib
import json
import mmap
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from sonic_ms.errors import EngineError

SCRIPT = Path(__file__).with_name("lite_worker.py")
START_TIMEOUT = 120  # seconds until it has imported Lite
ALIGNMENT = 64  # bytes between tensors in the arena
# what C++, Python, Lite and the loader of shared libraries say when memory ends
MEMORY_WORDS = re.compile(
    r"bad_alloc|MemoryError|annot allocate memory|[Mm]alloc\w* .*(fail|null)|failed to map segment"
)
LOG_PREFIX = re.compile(r"^\[ERROR\].*?\[mindspore/[^\]]*\] ")

INSTALL = (
    "make one: python3.7 -m venv ~/.cache/sonic_ms/lite && ~/.cache/sonic_ms/lite/bin/pip install mindspore-lite==2.0.0"
)


class Worker:
    """One running worker. Every method raises EngineError. `alive` is False after it died or was killed."""

    def __init__(self, python, environment):
        """python: path of an interpreter that has mindspore_lite; environment: its variables."""
        self._arena = _nameless_file()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        self._log_start = 0  # of what it wrote since the last request
        self._unread = b""
        inherited, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [python, str(SCRIPT), str(inherited), str(self._arena)],
                pass_fds=(inherited, self._arena),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the parent, which then closes the worker
            )
        except OSError as error:
            self._release()
            raise EngineError(f"cannot start {python} for MindSpore Lite ({error.strerror}); {INSTALL}") from error
        finally:
            os.close(inherited)
        self.alive = True
        try:
            hello = self._read("start MindSpore Lite", time.monotonic() + START_TIMEOUT)
            if "error" in hello and not MEMORY_WORDS.search(hello["message"]):
                raise EngineError(f"{python} has no MindSpore Lite it can import ({hello['message']}); {INSTALL}")
            self._refuse("start MindSpore Lite", hello)
            self.version, self.python = hello["version"], hello["python"]
        except BaseException:
            self.close()
            raise

    def share(self, tensors):
        """Room for the tensors (name, shape, dtype) of a unit in the arena, which all units use in turn.

        Returns (size, [[name, shape, dtype, offset]] for the worker, {name: array} for this side).
        """
        rows, size = [], 0
        for tensor in tensors:
            rows.append([tensor.name, list(tensor.shape), tensor.dtype, size])
            length = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
            size += -(-length // ALIGNMENT) * ALIGNMENT
        size = -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        try:
            os.posix_fallocate(self._arena, 0, size)  # a hole in a full file system would kill at first touch
            memory = mmap.mmap(self._arena, size)
        except OSError as error:
            raise EngineError(
                f"no room for {size >> 20} MB of tensors shared with MindSpore Lite ({error.strerror}); free memory"
            ) from error
        return size, rows, {name: np.ndarray(shape, dtype, memory, at) for name, shape, dtype, at in rows}

    def call(self, what, timeout, **request):
        """Send a request, return the answer. what: words for messages; timeout: seconds, then the worker is killed."""
        self._log_start = self._log.seek(0, os.SEEK_END)
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._death(what) from None
        answer = self._read(what, time.monotonic() + timeout)
        self._refuse(what, answer)
        return answer

    def _refuse(self, what, answer):
        """Raise what a worker reports that goes on."""
        if "error" in answer:
            log, words = self._last_words()
            message = f"{answer['message']} {words}".strip()
            if answer["error"] == "memory" or MEMORY_WORDS.search(message + log):
                raise EngineError(f"MindSpore Lite ran out of memory while it had to {what}: {message}")
            raise EngineError(f"MindSpore Lite failed to {what}: {message}")

    def _read(self, what, deadline):
        """The next answer."""
        output = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            if not select.select([output], [], [], max(0, deadline - time.monotonic()))[0]:
                self.close(kill=True)
                raise EngineError(
                    f"MindSpore Lite took too long to {what} and was stopped; set SONIC_MS_LITE_TIMEOUT to more "
                    "seconds if that was only slow"
                )
            block = os.read(output, 1 << 16)
            if not block:
                raise self._death(what)
            self._unread += block
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def _death(self, what):
        """EngineError for a worker that ended by itself; frees what is left of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code, (log, words) = self._process.poll(), self._last_words()
        self.close(kill=True)
        if MEMORY_WORDS.search(log):
            return EngineError(f"MindSpore Lite ran out of memory while it had to {what}: {words}")
        if code == -signal.SIGKILL:
            return EngineError(f"MindSpore Lite was killed while it had to {what}; the system may be out of memory")
        if code is not None and code < 0:
            return EngineError(f"MindSpore Lite crashed ({signal.Signals(-code).name}) while it had to {what}: {words}")
        python = self._process.args[0]
        return EngineError(
            f"{python} ended with code {code} while it had to {what}; is it a Python 3.7 or newer? {words}".strip()
        )

    def _last_words(self):
        """(log since the last request, the line of it that says most: Lite's first error, else the last line)."""
        self._log.seek(self._log_start)
        log = self._log.read(1 << 20).decode(errors="replace")
        lines = [line for line in log.splitlines() if line.strip()] or [""]
        errors = [line for line in lines if line.startswith("[ERROR]")]
        return log, LOG_PREFIX.sub("", errors[0] if errors else lines[-1])[:400]

    def close(self, kill=False):
        """End the worker; kill: now, else it may finish what it does in five seconds."""
        if not self.alive:
            return
        self.alive = False
        self._process.stdin.close()
        if not kill:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._release()

    def _release(self):
        os.close(self._arena)
        os.close(self._lifeline)
        self._log.close()


def _nameless_file():
    """Descriptor of a file in memory that nobody has to delete."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("sonic_ms_lite")
    with tempfile.TemporaryFile() as file:  # a Python built for an old C library
        return os.dup(file.fileno())
