"""One graph at a time in a process, and none in a child that was forked off after a model was loaded.

MindSpore deadlocks when two threads compile or run graphs, OpenCV's nets and the protocols of the other engines mix up
two callers. So whatever compiles, loads or runs one takes the same lock, for that call only: videos of several threads
take turns batch by batch, and a video that is half read holds nothing up. Threads of a runtime do not live on in a
fork, which would wait for them for ever.
"""

import functools
import os
import threading

from sonic_ms.errors import EngineError

_lock = threading.RLock()
_home = None  # id of the process in which the first runtime began


def check_process():
    """Raise EngineError in a process that was forked off after a runtime had begun."""
    global _home
    if _home is None:
        _home = os.getpid()
    if _home != os.getpid():
        raise EngineError(
            f"process {os.getpid()} was forked off process {_home} after a model was loaded there; start processes "
            "with multiprocessing's spawn, or load models only in the children"
        )


def in_turn(function):
    """Decorator of what compiles, loads or runs a graph."""

    @functools.wraps(function)
    def alone(*args, **kwargs):
        check_process()
        with _lock:
            return function(*args, **kwargs)

    return alone
