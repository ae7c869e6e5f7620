"""Settings of recipes and networks: frozen dataclasses read from YAML or JSON; unknown keys are refused."""

import dataclasses
import math
import typing

from sonic_ms.errors import UsageError, printable, short
from sonic_ms.files.reading import MAX_DEPTH, read_small

MAX_YAML_BYTES = 1 << 17  # the recipes have one kilobyte; PyYAML takes a second for this
# Besides its own errors, PyYAML raises these on dates, numbers and tags that are none, and on texts that are not UTF-8.
UNREADABLE = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)


def require(config, checks, where=""):
    """UsageError for the first of `checks`, rows of (field, whether it is good, what is expected), that does not hold.

    where: names the settings in front of the message.
    """
    for name, good, expected in checks:
        if not good:
            raise UsageError(f"{where}{name} is {short(getattr(config, name))}; expected {expected}")


def read_yaml(path):
    """A YAML file as a dict; InputMissingError or UsageError when it is missing or is not one."""
    import yaml

    try:
        text = read_small(path, "a configuration", MAX_YAML_BYTES, UsageError).decode("utf-8")
        _refuse_bombs(path, yaml, text)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, *UNREADABLE) as error:
        raise UsageError(f"{path} is not YAML ({printable(' '.join(str(error).split()))})") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds a {type(content).__name__}; expected a mapping of names to values")
    return content


def _refuse_bombs(path, yaml, text):
    """UsageError for what a few lines can make endless: names for values used again and again, and deep nesting."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UsageError(f"{path} is nested too deeply; at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{path} uses the alias *{printable(event.anchor)}; write the value out instead")


def from_dict(kind, values, where, error=UsageError):
    """Build the dataclass `kind` from plain values, nested dataclasses included. `where` names the source in messages.

    Raises `error`, one line, for unknown and missing names and values of the wrong type.
    """
    if not isinstance(values, dict):
        raise error(f"{where} is {short(values)}; expected a mapping of names to values")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    unknown = [name if isinstance(name, str) else short(name) for name in values if name not in fields]
    if unknown:
        raise error(f"{where}: unknown keys {', '.join(sorted(unknown)):.200}; known are {', '.join(fields)}")
    nothing = dataclasses.MISSING
    required = [name for name, one in fields.items() if one.default is nothing and one.default_factory is nothing]
    missing = [name for name in required if name not in values]
    if missing:
        raise error(f"{where}: missing keys {', '.join(missing)}")
    return kind(**{name: _convert(hints[name], value, f"{where}: {name}", error) for name, value in values.items()})


def _convert(hint, value, where, error):
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where, error)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise error(f"{where} is {short(value)}; expected a mapping of names to values")
        inner = typing.get_args(hint)[1]
        return {name: _convert(inner, one, f"{where}: {name:.80}", error) for name, one in value.items()}
    options = typing.get_args(hint) if typing.get_origin(hint) not in (tuple, list) else ()
    if options:  # X | None
        if value is None:
            return None
        return _convert(next(option for option in options if option is not type(None)), value, where, error)
    if hint is tuple or typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise error(f"{where} is {short(value)}; expected a list")
        inner = typing.get_args(hint) or (type(value[0]) if value else str, Ellipsis)
        if inner[-1] is not Ellipsis and len(inner) != len(value):
            raise error(f"{where} is {short(value)}; expected {len(inner)} values")
        return tuple(_convert(inner[0], item, where, error) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else math.inf
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if type(value) is not hint:
        raise error(f"{where} is {short(value)}; expected {hint.__name__}")
    return value
