"""How many threads a process may use: where several share a machine, each is told by the environment."""

import os

from sonic_ms.errors import UsageError

VARIABLE = "SONIC_MS_THREADS"


def threads():
    """Threads of a graph in onnxruntime and of the video's encoder; 0, which is as many as there are cores, unless the
    variable SONIC_MS_THREADS says otherwise. Raises UsageError."""
    text = os.environ.get(VARIABLE, "0")
    if not text.isdecimal() or int(text) > 1024:
        raise UsageError(f"{VARIABLE} is {text[:80]!r}; expected a whole number from 0 to 1024, 0 for all cores")
    return int(text)


def limited(count):
    """The variables of a process that may use `count` threads, in each library that starts some."""
    return {name: str(count) for name in (VARIABLE, "OPENCV_FOR_THREADS_NUM", "OMP_NUM_THREADS")}
