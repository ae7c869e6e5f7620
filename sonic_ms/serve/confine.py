"""What a worker process may use: strangers' files are decoded in it."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
MAX_FILE = 8 << 30  # bytes of one file
NICE = 5


def confine(settings, network=False):
    """Limit this process, before it has threads. settings: {"memory": bytes of address space or None}. network: it
    keeps what it has of one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(resource.RLIMIT_FSIZE, MAX_FILE)
    if settings["memory"]:
        _limit(resource.RLIMIT_AS, settings["memory"])
    if not network and not without_network():
        print("the worker may not give up its network; a container without one does the same", file=sys.stderr)


def stand_back():
    """Let the server go first, which somebody waits for at this moment: within the session of this process, and as a
    whole where Linux shares the processors out by sessions."""
    os.nice(NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))


def _limit(what, value):
    hard = resource.getrlimit(what)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def without_network():
    """Leave this process no network but a loopback of its own; whether the system let us."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
    return libc.unshare(flags) == 0
