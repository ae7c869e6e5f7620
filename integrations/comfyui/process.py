"""The parent's side of worker.py: a process that stays warm, one job at a time, and every way it can fail."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("worker.py")
START_TIMEOUT = 120  # seconds until it has imported sonic_ms
GRACE = 5  # seconds a job has to end after it was cancelled, then its process is killed
POLL = 0.05  # seconds between two looks at whether the user interrupted
MOST_WORDS = 300  # characters of what a dead process said
INSTALL = "install sonic_ms there (pip install sonic_ms), or name an interpreter that has it in SONIC_MS_PYTHON"


class NodeError(Exception):
    """What ComfyUI shows: one line."""


Check = Callable[[], None]  # raises when the user interrupted
Say = Callable[[dict[str, Any]], None]  # gets what a job says before it ends


class Worker:
    """sonic_ms under one interpreter. Threads take turns; the process starts with the first job, and anew after it died
    or was killed."""

    def __init__(self, python: str, environment: dict[str, str] | None = None) -> None:
        self._python, self._environment = python, environment
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._log: Any = None
        self._unread = b""

    @property
    def pid(self) -> int | None:
        """Of the process, None when there is none."""
        return self._process.pid if self._process else None

    def run(self, request: dict[str, Any], say: Say, check: Check) -> dict[str, Any]:
        """Do a job; what it made. check is asked all the time, while others have their turn too: when it raises, or
        when `say` does, this job alone ends and the error goes on. Raises NodeError."""
        while not self._turn.acquire(timeout=POLL):
            check()
        try:
            if self._process is None:
                self._start(check)
            return self._talk(request, say, check)
        finally:
            self._turn.release()

    def _talk(self, request: dict[str, Any], say: Say, check: Check) -> dict[str, Any]:
        self._log.seek(0)  # the process writes on from there: both share one position
        self._log.truncate()
        self._send(request)
        try:
            while True:
                answer = self._answer(check)
                if "made" in answer:
                    return answer["made"]
                if "error" in answer:
                    raise NodeError(str(answer["message"]))
                if "cancelled" in answer:  # nobody asked it to
                    raise self._nonsense(answer)
                try:
                    say(answer)
                except Exception:
                    self._cancel()
                    raise
        except _Interrupted as interruption:
            self._cancel()
            raise interruption.cause from None

    def _start(self, check: Check) -> None:
        inherited, self._lifeline = os.pipe()
        self._unread, self._log = b"", tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        try:
            self._process = subprocess.Popen(
                [self._python, str(SCRIPT), str(inherited)],
                pass_fds=(inherited,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=self._environment,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for ComfyUI, whose end closes the lifeline
            )
        except OSError as error:
            os.close(self._lifeline)
            self._log.close()
            raise NodeError(f"cannot start {self._python} ({error.strerror}); {INSTALL}") from None
        finally:
            os.close(inherited)
        try:
            hello = self._answer(check, time.monotonic() + START_TIMEOUT)
        except _Interrupted as interruption:
            self.close()
            raise interruption.cause from None
        if "sonic_ms" not in hello:
            self.close()
            raise NodeError(f"{self._python} has no sonic_ms it can import ({hello.get('message')}); {INSTALL}")

    def _send(self, request: dict[str, Any]) -> None:
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._death() from None

    def _answer(self, check: Check, deadline: float | None = None) -> dict[str, Any]:
        """The next line. Raises _Interrupted with what `check` raised."""
        output = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            try:
                check()
            except BaseException as error:
                raise _Interrupted(error) from None
            if not select.select([output], [], [], POLL)[0]:
                if deadline is not None and time.monotonic() > deadline:
                    self.close()
                    raise NodeError(f"{self._python} took too long to start sonic_ms and was ended; run it again")
                continue
            block = os.read(output, 1 << 16)
            if not block:
                raise self._death()
            self._unread += block
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._nonsense(line.decode(errors="replace"))
        return answer

    def _cancel(self) -> None:
        """End the job that runs: it is asked to, and what does not listen is killed with its process."""
        with contextlib.suppress(NodeError, _Interrupted):
            self._send({"do": "cancel"})
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline:
                answer = self._answer(_until(deadline))
                if {"made", "error", "cancelled"} & set(answer):
                    return
        self.close()

    def _nonsense(self, said: Any) -> NodeError:
        self.close()
        return NodeError(
            f"sonic_ms's process said {str(said)[:80]!r}, which is no answer, and was ended; see that the nodes and "
            "sonic_ms have the same version, and run it again"
        )

    def _death(self) -> NodeError:
        """NodeError for a process that ended by itself; frees what is left of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.poll()
        self._log.seek(0)
        lines = [line for line in self._log.read(1 << 20).decode(errors="replace").splitlines() if line.strip()]
        words = f": {lines[-1].strip()[:MOST_WORDS]}" if lines else ""
        self.close()
        if code == -signal.SIGKILL:
            return NodeError("sonic_ms's process was killed; the system may be out of memory; run it again")
        if code is not None and code < 0:
            return NodeError(f"sonic_ms's process crashed ({signal.Signals(-code).name}){words}; run it again")
        return NodeError(f"{self._python} ended with code {code} while it ran sonic_ms{words}; {INSTALL}")

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        os.close(self._lifeline)
        self._log.close()


class _Interrupted(Exception):
    """Carries what `check` raised, apart from errors of the job."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


def _until(deadline: float) -> Check:
    def check() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    return check


_workers: dict[str, Worker] = {}
_list = threading.Lock()


def worker(python: str, environment: dict[str, str]) -> Worker:
    """The worker of an interpreter, the same for all nodes; its first user gives it its environment."""
    with _list:
        return _workers.setdefault(python, Worker(python, environment))


@atexit.register
def close_all() -> None:
    for one in list(_workers.values()):
        one.close()
