"""The standard streams as shells hand them over: closed, with a reader that goes away, or full."""

import codecs
import contextlib
import os
import sys

from sonic_ms.errors import OutputError


class Stream:
    """A standard stream that outlives its reader: that nobody listens is no reason to lose a video. Other errors than
    those forgiven, such as a full disk, are an OutputError. Text that the encoding does not have is written as the
    bytes of a file name, or as an escape."""

    def __init__(self, stream, forgiven):
        self._stream, self._forgiven = stream, forgiven
        if hasattr(stream, "reconfigure"):  # a test's may be another kind
            stream.reconfigure(errors="sonic_ms.names")

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        try:
            self._stream.write(text)
            self._stream.flush()  # now, so that it fails where it was said and not when the process ends
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is still in its buffer must go somewhere in the end
            os.close(nowhere)
            if not isinstance(error, self._forgiven):
                raise OutputError(f"cannot write to {self._stream.name}: {error.strerror}") from error


def _names(error):
    """Codec error handler: file names that are not UTF-8 go out as the bytes they are."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("sonic_ms.names", _names)


@contextlib.contextmanager
def usable():
    """While the block runs, the standard streams are there and can be written to."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        # Else the next file that is opened gets the number of a standard stream, and what others print goes into it.
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = (
            stream or open(os.devnull, mode)  # noqa: SIM115 (theirs for as long as the process lives)
            for stream, mode in ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w"))
        )
    out, err = Stream(sys.stdout, BrokenPipeError), Stream(sys.stderr, OSError)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
