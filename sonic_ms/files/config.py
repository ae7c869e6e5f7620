"""Configuration: frozen dataclasses read from YAML. Unknown keys and wrong types are refused, all at once.

`GenerateOptions` is the one list of what a user can set for a video; the command line, the Python API and config files
share its names.
"""

import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import InputMissingError, UsageError


def require(config, checks, where=""):
    """UsageError for the first of `checks`, rows of (field, whether it is good, what is expected), that does not hold.

    where: names the settings in front of the message.
    """
    for name, good, expected in checks:
        if not good:
            raise UsageError(f"{where}{name} is {getattr(config, name)!r}; expected {expected}")


@dataclass(frozen=True)
class GenerateOptions:
    """Settings of one video. Names and meaning follow Sonic where Sonic has them."""

    duration: float | None = None  # seconds; may only shorten the video
    min_resolution: int = 512  # short side of the video in pixels
    keep_resolution: bool = False  # keep the photo's own size instead
    expand_ratio: float = 0.2  # room around the face box that may move, as a share of its size
    dynamic_scale: float = 1.0  # strength of the mouth's motion
    motion_scale: float = 1.0  # strength of everything else: head, blinks, brows; 0 keeps them still
    lip_sync_correction: bool = True  # measure and remove a lag between mouth and speech
    smooth_motion: bool = True  # temporal smoothing that keeps lip closures sharp
    align_offset: float = 0.0  # seconds; positive makes the mouth later
    seed: int = 0  # of blinks and head motion
    face: str = "largest"  # or the index of a face, largest first
    face_box: tuple[float, float, float, float] | None = None  # x, y, w, h in photo pixels; skips the detector
    max_audio_seconds: float = 3600.0

    def __post_init__(self):
        checks = (
            ("duration", self.duration is None or self.duration > 0, "a positive number of seconds"),
            ("min_resolution", 64 <= self.min_resolution <= 4096, "64 to 4096 pixels"),
            ("expand_ratio", 0 <= self.expand_ratio <= 2, "0 to 2"),
            ("dynamic_scale", 0 <= self.dynamic_scale <= 3, "0 to 3"),
            ("motion_scale", 0 <= self.motion_scale <= 3, "0 to 3"),
            ("align_offset", -2 <= self.align_offset <= 2, "-2 to 2 seconds"),
            ("seed", 0 <= self.seed < 2**63, "0 to 2^63-1"),
            ("face", self.face == "largest" or str(self.face).isdigit(), "'largest' or an index such as 0"),
            ("max_audio_seconds", self.max_audio_seconds > 0, "a positive number of seconds"),
        )
        require(self, checks)


def read_yaml(path):
    """A YAML file as a dict; InputMissingError or UsageError when it is missing or is not one."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputMissingError(f"cannot open {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML ({' '.join(str(error).split())})") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds a {type(content).__name__}; expected a mapping of names to values")
    return content


def from_dict(kind, values, where):
    """Build the dataclass `kind` from plain values, nested dataclasses included. `where` names the source in errors."""
    if not isinstance(values, dict):
        raise UsageError(f"{where} is {values!r}; expected a mapping of names to values")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UsageError(f"{where}: unknown keys {', '.join(unknown)}; known are {', '.join(fields)}")
    nothing = dataclasses.MISSING
    required = [name for name, one in fields.items() if one.default is nothing and one.default_factory is nothing]
    missing = [name for name in required if name not in values]
    if missing:
        raise UsageError(f"{where}: missing keys {', '.join(missing)}")
    return kind(**{name: _convert(hints[name], value, f"{where}: {name}") for name, value in values.items()})


def _convert(hint, value, where):
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    options = typing.get_args(hint) if typing.get_origin(hint) not in (tuple, list) else ()
    if options:  # X | None
        if value is None:
            return None
        return _convert(next(option for option in options if option is not type(None)), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where} is {value!r}; expected a list")
        inner = typing.get_args(hint)
        if inner[-1] is not Ellipsis and len(inner) != len(value):
            raise UsageError(f"{where} is {value!r}; expected {len(inner)} values")
        return tuple(_convert(inner[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if type(value) is not hint:
        raise UsageError(f"{where} is {value!r}; expected {hint.__name__}")
    return value
