"""Every failure a user can meet, as one exception kind each.

A message is one line: what is wrong, the value, what was expected, what to do. `EXIT_CODES` is the single table that
turns a kind into the exit code of the command line and the status code of the HTTP service.
"""


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


# kind -> (exit code, HTTP status). 1 is left to unexpected errors and 130 to Ctrl-C, as shells expect.
EXIT_CODES = {
    UsageError: (2, 400),
    InputMissingError: (3, 404),
    ImageError: (4, 422),
    FaceError: (5, 422),
    AudioError: (6, 422),
    OutputError: (7, 507),
    WeightsError: (8, 500),
    AssetError: (9, 503),
    EngineError: (10, 500),
    ResourceError: (11, 413),
    VideoError: (12, 422),
}


def exit_code(error):
    """Exit code of the process for `error`; 1 for anything outside the table."""
    return next((code for kind, (code, _) in EXIT_CODES.items() if isinstance(error, kind)), 1)


def http_status(error):
    """HTTP status for `error`; 500 for anything outside the table."""
    return next((status for kind, (_, status) in EXIT_CODES.items() if isinstance(error, kind)), 500)
