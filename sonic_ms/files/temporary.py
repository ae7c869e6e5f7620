"""Files and folders that get their name when they are whole; what a process that died left of them is removed.

A `Temporary` lies in the folder of what it will become, so that the last step is a rename. It is removed whatever ends
the block, but nothing runs after kill -9, or after SIGTERM in a program that does not catch it. So each is locked while
its process lives, and the next `Temporary` in the folder removes those that nobody holds. A lock says nothing of a
process on another machine that shares the disk: what was made there, or before a restart, stays for a day.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import threading
import time
from pathlib import Path

PREFIX = ".sonic-ms-"
DAY = 86400  # seconds


def _machine():
    """Eight letters that only processes under the same running kernel share, in containers too."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return "unknown"


class Temporary:
    """Context manager: an empty file in `folder`, or a folder there, `path`, removed at the end if it is still there.

    suffix: end of its name. is_folder: make a folder. Its name is short, whatever the final one is. Raises OSError.
    """

    def __init__(self, folder, suffix="", is_folder=False):
        remove_stale(folder)
        self._handle = None
        while self._handle is None:
            self.path = Path(folder, f"{PREFIX}{_machine()}-{secrets.token_hex(6)}{suffix}")
            try:
                self._make(is_folder)
            except BaseException:  # a signal too may come between making and keeping it
                _remove(self.path)
                raise

    def _make(self, is_folder):
        """Make and lock it; without a handle when it was taken for stale before the lock was there."""
        if is_folder:
            self.path.mkdir()
            handle = os.open(self.path, os.O_RDONLY)
        else:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if self.path.exists():
            self._handle = handle
        else:
            os.close(handle)

    def remove(self):
        """Remove it, unless it was renamed."""
        _remove(self.path)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        self.remove()


@contextlib.contextmanager
def signals_held():
    """SIGINT, SIGTERM and SIGHUP come after the block, not within it: what it makes is known to whoever cleans up."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    came = []
    names = [name for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(name) is not None]
    names = [name for name in names if signal.getsignal(name) != signal.SIG_IGN]
    before = {name: signal.signal(name, lambda number, _: came.append(number)) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
        for number in came:
            os.kill(os.getpid(), number)


def remove_stale(folder):
    """Remove what processes that are dead left in a folder."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(PREFIX):
                _remove_if_stale(Path(folder, name))


def _remove_if_stale(path):
    with contextlib.suppress(OSError):  # another user's, or just gone
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # NFS locks only what may be written
        try:
            known = path.name.startswith(f"{PREFIX}{_machine()}-")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its process lives
                return
            except OSError:  # a file system without locks
                known = False
            if known or time.time() - os.stat(handle).st_mtime > DAY:
                _remove(path)
        finally:
            os.close(handle)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
