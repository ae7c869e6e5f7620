"""Every failure a user can meet, as one exception kind each.

A message is one line: what is wrong, the value, what was expected, what to do. `OUTCOMES` is the single table that
turns a kind into the exit code of the command line and the status of an HTTP answer.
"""

import re
import reprlib

MAX_SHOWN = 200  # characters of a name or value in a message
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def short(value: object) -> str:
    """repr of any value, cut to what a one-line message can hold; untrusted files hold values that expand for ever."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # a whole number of thousands of digits
        return f"a {type(value).__name__}"


def printable(text: str) -> str:
    """A text of a file as it may stand in a message: on one line, short, and nothing in it moves a cursor."""
    text = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class SonicError(Exception):
    """Base of all errors this package raises on purpose."""


class UsageError(SonicError):
    """A parameter or a configuration file is wrong (unknown key, value out of range)."""


class InputMissingError(SonicError):
    """A file that was named does not exist or cannot be opened for reading."""


class ImageError(SonicError):
    """The portrait cannot be read, is truncated, too small or too large."""


class FaceError(SonicError):
    """No usable face: none found, too small, turned too far, or the chosen index does not exist."""


class AudioError(SonicError):
    """The recording cannot be read, is empty, too short or longer than the configured limit."""


class VideoError(SonicError):
    """A video cannot be read: not a video, corrupt or cut short, without a frame rate, or its frames are too large."""


class OutputError(SonicError):
    """The result cannot be written: folder missing or read-only, file exists, disk full, encoder failed."""


class WeightsError(SonicError):
    """A checkpoint is missing, corrupt, of another size, or holds values that are not finite."""


class AssetError(SonicError):
    """A third-party asset cannot be fetched, or its sha256 is not the pinned one."""


class EngineError(SonicError):
    """A runtime is missing, refuses the graph, crashed or timed out."""


class ResourceError(SonicError):
    """The request needs more memory or time than there is (predicted before the run)."""


class Cancelled(SonicError):
    """The request was cancelled by who made it."""


# kind -> (exit code of the command line, HTTP status of the service). 1 and 500 are left to unexpected errors, 130 to
# Ctrl-C, as shells expect.
OUTCOMES = {
    UsageError: (2, 422),
    InputMissingError: (3, 422),
    ImageError: (4, 422),
    FaceError: (5, 422),
    AudioError: (6, 422),
    OutputError: (7, 507),
    WeightsError: (8, 503),
    AssetError: (9, 503),
    EngineError: (10, 503),
    ResourceError: (11, 413),
    VideoError: (12, 422),
    Cancelled: (130, 409),
}
EXIT_CODES = {kind: code for kind, (code, _) in OUTCOMES.items()}


# Shared libraries that OpenCV's package with windows needs and servers lack -> package of Debian and Ubuntu.
LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libSM.so.6": "libsm6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
}


def of_the_host(error: Exception) -> Exception:
    """EngineError for an import that failed because this machine lacks a shared library; any other error as it is."""
    found = re.match(r"(\S+\.so\S*): cannot open shared object file", str(error))
    if not isinstance(error, ImportError) or not found:
        return error
    package = LIBRARIES.get(found[1])
    if package is None:
        return EngineError(f"the shared library {found[1]} is missing; install the package of your system that has it")
    return EngineError(
        f"the shared library {found[1]} is missing, which OpenCV needs; install it (apt-get install {package}), or "
        "opencv-python-headless in place of opencv-python"
    )


def exit_code(error: BaseException) -> int:
    """Exit code of the process for `error`; 1 for anything outside the table."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def http_status(error: BaseException) -> int:
    """Status of an HTTP answer for `error`; 500 for anything outside the table."""
    return next((status for kind, (_, status) in OUTCOMES.items() if isinstance(error, kind)), 500)


def code_of(error: BaseException) -> str:
    """The kind of an error in one word for programs: "image_error", "usage_error", "cancelled"."""
    kind = next((kind for kind in OUTCOMES if isinstance(error, kind)), type(error))
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
