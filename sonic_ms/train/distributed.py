"""Several processes as one training: what `msrun` starts, one process a device."""

import os
from dataclasses import dataclass

from sonic_ms.errors import EngineError


@dataclass(frozen=True)
class Group:
    """Number of this process, and how many there are."""

    rank: int = 0
    size: int = 1


def join():
    """The group that msrun started this process in; a group of one when it was not msrun that started it.

    Call once, before anything is computed. EngineError when the other processes cannot be reached.
    """
    if int(os.environ.get("MS_WORKER_NUM", "1")) < 2:
        return Group()
    from mindspore import communication

    try:
        communication.init()
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"the processes of this training did not find each other: {reason}") from error
    return Group(communication.get_rank(), communication.get_group_size())
