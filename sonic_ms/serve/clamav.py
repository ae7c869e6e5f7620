"""Uploads are shown to ClamAV before anything is kept: clamd's INSTREAM over its unix socket."""

import socket
import struct

from sonic_ms.serve.problems import Problem

BLOCK = 1 << 16  # bytes
TIMEOUT = 60.0  # seconds for each step; clamd looks at a large file for a while
LONGEST = 4096  # bytes of an answer


def check(path, file, param):
    """Let clamd at the socket `path` look at an open file; it is rewound. Problem 422 for what clamd knows, 503 when it
    does not answer: nothing is taken unseen."""
    try:
        answer = _ask(path, file)
    except OSError as error:
        raise _unseen(param, f"does not answer ({error.strerror or error})") from error
    finally:
        file.seek(0)
    words = answer.removeprefix("stream: ")
    if words == "OK":
        return
    if words.endswith(" FOUND"):
        name = words.removesuffix(" FOUND")
        raise Problem(422, "infected", f"{param}: the virus scanner found {name} in it; send another file", param)
    raise _unseen(param, f"says {words!r}")


def _ask(path, file):
    """clamd's answer to the bytes of a file. OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as clamd:
        clamd.settimeout(TIMEOUT)
        clamd.connect(str(path))
        clamd.sendall(b"zINSTREAM\0")
        try:
            while block := file.read(BLOCK):
                clamd.sendall(struct.pack("!I", len(block)) + block)
            clamd.sendall(struct.pack("!I", 0))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it said why before it hung up: a file beyond its StreamMaxLength
        answer = b""
        while not answer.endswith(b"\0") and len(answer) < LONGEST and (part := clamd.recv(LONGEST)):
            answer += part
        return answer.rstrip(b"\0").decode("utf-8", "replace")


def _unseen(param, why):
    return Problem(503, "scanner_unavailable", f"{param}: the virus scanner {why}; nothing is taken unseen, try later",
                   param)  # fmt: skip
