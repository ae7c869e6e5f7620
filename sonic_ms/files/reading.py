"""Read files that strangers may have made: regular files only, of a size that is known before, and JSON of a depth.

Everything of this package that opens a JSON or YAML file comes through here, so that whatever is wrong with one ends in
one line of sonic_ms.errors.
"""

import errno
import json
import os
import stat

from sonic_ms.errors import InputMissingError, SonicError, WeightsError, printable

MAX_SMALL_BYTES = 1 << 20  # of a description or a manifest; real ones have two to a hundred kilobytes
MAX_DEPTH = 100  # containers in one another; the deepest file of ours has six


def open_regular(path, flags=os.O_RDONLY, mode=0o644):
    """File descriptor of a regular file; OSError for anything else.

    Not blocking: who opens a pipe waits for its other end, for ever if nobody has it. flags: O_NOFOLLOW refuses a link.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            error.strerror = "it is a link"
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file")
    return descriptor


def open_binary(path):
    """A regular file, open for reading bytes. InputMissingError if there is none."""
    try:
        return os.fdopen(open_regular(path), "rb")
    except OSError as error:
        raise InputMissingError(f"cannot open {path}: {error.strerror}") from error
    except ValueError as error:  # a zero or half a surrogate in the name
        raise InputMissingError(f"cannot open {printable(str(path))}: no file can have this name") from error


def read_small(path, what, limit=MAX_SMALL_BYTES, error=WeightsError):
    """Bytes of a small file; `error` for a longer one. `what` names its purpose in messages."""
    with open_binary(path) as file:
        try:
            data = file.read(limit + 1)
        except OSError as fault:
            raise InputMissingError(f"cannot read {path}: {fault.strerror}") from fault
    if len(data) > limit:
        raise error(f"{path} is not {what}: more than {limit} bytes")
    return data


def read_json(path, what, limit=MAX_SMALL_BYTES, error: type[SonicError] = WeightsError):
    """The value of a small JSON file. InputMissingError, or `error` for what is none."""
    return parse_json(read_small(path, what, limit, error), f"{path} is not {what}", error)


def parse_json(data, problem, error: type[SonicError] = WeightsError):
    """JSON, bytes or text -> value. Python's parser fails in more ways than ValueError; all become `error`, which
    begins with `problem`."""
    try:
        value = json.loads(data)
    except RecursionError as fault:
        raise error(f"{problem} (it is nested too deeply)") from fault
    except (ValueError, MemoryError) as fault:
        raise error(f"{problem} ({printable(str(fault))})") from fault
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [one for node in level if isinstance(node, dict | list) for one in _children(node)]
        if not level:
            return value
    raise error(f"{problem} (it is nested too deeply: more than {MAX_DEPTH} levels)")


def _children(node):
    return node.values() if isinstance(node, dict) else node
