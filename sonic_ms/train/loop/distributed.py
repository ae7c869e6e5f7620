"""Several processes as one training: what `msrun` or a rank table starts, one process a device."""

import os
from dataclasses import dataclass

from sonic_ms.errors import EngineError


@dataclass(frozen=True)
class Group:
    """Number of this process, and how many there are."""

    rank: int = 0
    size: int = 1


def started_in_group():
    """Whether this process is one of several that msrun or scripts/train/train_rank_table.sh started."""
    return any(int(os.environ.get(name, "1")) > 1 for name in ("MS_WORKER_NUM", "RANK_SIZE"))


def join():
    """The group that this process was started in, by msrun (MS_WORKER_NUM) or by a rank table (RANK_SIZE); one process
    on its own is a group of one.

    Call once, before anything is computed. EngineError when the other processes cannot be reached.
    """
    if not started_in_group():
        return Group()
    from mindspore import communication

    try:
        communication.init()
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"the processes of this training did not find each other: {reason}") from error
    return Group(communication.get_rank(), communication.get_group_size())
