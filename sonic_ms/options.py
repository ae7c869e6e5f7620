"""What a user can set for a video: each option once, with help, unit, range, default and its other names.

A model's options are a subclass of `Options` in its own folder (edge/options.py, base/options.py), which adds what only
that model has and gives its own defaults. Flags, YAML files, the Python API, the README's table and the JSON schema of
a service all come from these declarations. Names and meaning are Sonic's where Sonic has them.
"""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from sonic_ms.errors import UsageError, short


def option(default: Any, text: str, unit: str = "", aliases: tuple[str, ...] = (), off: str = "", **limits: Any) -> Any:
    """A field of an options class.

    text: its help, one line without the default. unit: of the value. aliases: other names that mean the same,
    everywhere. off: a flag of its own that switches a boolean off. limits: gt, ge, le, pattern as pydantic names them.
    """
    extra: dict[str, Any] = {
        key: value for key, value in (("unit", unit), ("aliases", list(aliases)), ("off", off)) if value
    }
    return Field(default, description=text, json_schema_extra=extra or None, **limits)


def _text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _in_order(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] <= value[1] <= 1:
        raise ValueError("not in order")
    return value


FaceIndex = Annotated[str, BeforeValidator(_text)]
Box = Annotated[tuple[float, float, float, float], BeforeValidator(_tuple)]
Interval = Annotated[tuple[float, float], BeforeValidator(_tuple), AfterValidator(_in_order)]
# What a tuple of so many numbers is: (its parts, in words).
TUPLES = {
    2: ("FIRST,LAST", "two shares from 0 to 1, the first no larger than the last"),
    4: ("X,Y,W,H", "four numbers x, y, width, height in photo pixels"),
}


class Options(BaseModel):
    """Settings of one video that every model has. Frozen; unknown names, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    duration: float | None = option(None, "use only the first so many seconds of the audio", "seconds", gt=0)
    min_resolution: int = option(512, "short side of the video", "pixels", ("resolution",), ge=64, le=4096)
    keep_resolution: bool = option(False, "keep the photo's own size")
    dynamic_scale: float = option(1.0, "strength of the mouth's motion", ge=0, le=3)
    motion_scale: float = option(
        1.0, "strength of head motion, blinks and brows; 0 keeps everything but the mouth still", ge=0, le=3
    )
    lip_sync_correction: bool = option(
        True, "measure and remove a lag between mouth and speech", aliases=("lip_sync_refinement",)
    )
    align_offset: float = option(0.0, "positive makes the mouth later", "seconds", ge=-2, le=2)
    seed: int = option(0, "same seed, same video", ge=0, lt=2**63)
    face: FaceIndex = option(
        "largest", "which face: 'largest', or an index, 0 is the largest", pattern=r"^(largest|[0-9]{1,4})$"
    )
    face_box: Box | None = option(
        None, "where the face is, x,y,width,height; skips the detector (drawings, animals)", "photo pixels"
    )
    visible_label: Literal["zh", "en"] | None = option(None, "says in a corner that it is generated, never on the face")
    label_corner: Literal["bottom-right", "bottom-left", "top-right", "top-left"] = option(
        "bottom-right", "where the visible label goes, unless the face is there"
    )
    watermark: bool = option(True, "invisible watermark that says which video it is, in the file that is written")
    max_audio_seconds: float = option(3600.0, "longer recordings are refused", "seconds", gt=0)


def parse(
    kind: type[Options], values: Mapping[str, Any], where: str = "options", elsewhere: Mapping[str, str] | None = None
) -> Options:
    """Options of `kind` from plain values, whose names may be aliases. Raises UsageError, one line.

    where: names the source in messages. elsewhere: {option that `kind` lacks: the model that has it}.
    """
    fields = kind.model_fields
    named: dict[str, Any] = {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} is {short(values)}; expected a mapping of names to values")
    known = names(kind)
    for given, value in values.items():
        name = known.get(given) if isinstance(given, str) else None
        owner = (elsewhere or {}).get(given) if isinstance(given, str) else None
        if name is None and owner:
            raise UsageError(f"{where}: {given} is for {owner}; leave it out")
        if name is None:
            raise UsageError(f"{where}: unknown keys {short(given)}; known are {', '.join(fields)}")
        if name in named and named[name] != value:
            raise UsageError(f"{where}: {given} is another name of {name}, and both are given; leave one out")
        named[name] = value
    try:
        return kind(**named)
    except ValidationError as error:
        problem = error.errors()[0]
        if not problem["loc"]:  # a rule over several options says itself what is wrong
            raise UsageError(f"{where}: {problem['ctx']['error']}") from None
        name = str(problem["loc"][0])
        raise UsageError(f"{where}: {name} is {short(named[name])}; expected {expected(fields[name])}") from None


def from_texts(kind: type[Options], texts: Mapping[str, str]) -> dict[str, Any]:
    """Values of texts, as forms and CSV files give them, for `parse`, which also refuses what is left a text here.

    "true", "on", "1" and their opposites for booleans, "x,y,width,height" for boxes, "none" for what may be none.
    """
    known = names(kind)
    return {name: _from_text(kind.model_fields[known[name]], text) if name in known else text
            for name, text in texts.items()}  # fmt: skip


def _from_text(field: FieldInfo, text: str) -> Any:
    plain, word = _plain(field.annotation), text.strip().lower()
    if word == "none" and type(None) in typing.get_args(field.annotation):
        return None
    if plain is bool:
        return {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}.get(word, text)
    try:
        if plain in (int, float):
            return plain(word)
        if plain is tuple:
            return tuple(float(part) for part in word.strip("[]()").split(","))
    except ValueError:
        return text
    return text


def names(kind: type[Options]) -> dict[str, str]:
    """{name or alias: name} of the options of a class."""
    return {other: name for name, field in kind.model_fields.items() for other in (name, *_extra(field, "aliases", ()))}


def expected(field: FieldInfo) -> str:
    """What an option takes, in words: "64 to 4096 pixels", "true or false"."""
    limits = {key: getattr(one, key) for one in field.metadata for key in ("gt", "ge", "le", "lt") if hasattr(one, key)}
    unit = f" {field_unit}" if (field_unit := _extra(field, "unit", "")) else ""
    kind = _plain(field.annotation)
    if chosen := choices(field):
        return f"{', '.join(chosen[:-1])} or {chosen[-1]}"
    if kind is bool:
        return "true or false"
    if kind is str:
        return "'largest' or an index such as 0"
    if kind is tuple:
        return TUPLES[_length(field.annotation)][1]
    number = "a whole number" if kind is int else "a number"
    if "ge" in limits and "lt" in limits:
        return f"{number} from {limits['ge']} to 2^{limits['lt'].bit_length() - 1}-1"
    if "ge" in limits and "le" in limits:
        words = "" if kind is float else f"{number} from "
        return f"{words}{limits['ge']:g} to {limits['le']:g}{unit}"
    if "gt" in limits:
        return f"a positive number of{unit}" if unit else "a positive number"
    return number + unit


def choices(field: FieldInfo) -> list[str]:
    """The words an option can be; none for one that is not a word out of a list."""
    kinds = (field.annotation, *typing.get_args(field.annotation))
    return [word for kind in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind)]


def schema(kind: type[Options]) -> dict[str, Any]:
    """JSON schema of the options, for a service or a form."""
    return kind.model_json_schema()


def _extra(field: FieldInfo, key: str, default: Any) -> Any:
    extra = field.json_schema_extra
    return extra.get(key, default) if isinstance(extra, dict) else default


def _plain(annotation: Any) -> type:
    """The type in `X | None`, Annotated[X, ...] and tuple[...]."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _plain(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _plain(next(one for one in typing.get_args(annotation) if one is not type(None)))
    return origin or annotation


def _length(annotation: Any) -> int:
    """Numbers in the tuple of an annotation; 0 where there is none."""
    if typing.get_origin(annotation) is tuple:
        return len(typing.get_args(annotation))
    return max((_length(one) for one in typing.get_args(annotation)), default=0)


def _numbers(length: int) -> Callable[[str], tuple[float, ...]]:
    """The type of a flag that takes so many numbers, separated by commas."""

    def parse_numbers(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) != length:
            raise argparse.ArgumentTypeError(f"{text!r} is not {TUPLES[length][0].lower()}")
        return values

    return parse_numbers


def _merged(kinds: Mapping[str, type[Options]]) -> dict[str, dict[str, FieldInfo]]:
    """{option: {model: its field}} of several models, common options first."""
    merged: dict[str, dict[str, FieldInfo]] = {}
    for model, kind in kinds.items():
        for name, field in kind.model_fields.items():
            merged.setdefault(name, {})[model] = field
    return merged


def _default(fields: Mapping[str, FieldInfo]) -> str:
    """The default as help says it, with models where they differ."""

    def word(value: Any) -> str:
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, tuple):
            return ",".join(f"{one:g}" for one in value)
        return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    values = {model: word(field.default) for model, field in fields.items()}
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{model} {value}" for model, value in values.items())


def _meaning(fields: Mapping[str, FieldInfo], everywhere: int) -> str:
    """The help of an option, model by model where they differ."""
    texts: dict[str, list[str]] = {}
    for model, field in fields.items():
        texts.setdefault(str(field.description), []).append(model)
    if len(texts) == 1 and len(fields) == everywhere:
        return next(iter(texts))
    if len(texts) == 1:
        return f"{', '.join(fields)} only: {next(iter(texts))}"
    return "; ".join(f"{', '.join(models)}: {text}" for text, models in texts.items())


def add_flags(parser: argparse.ArgumentParser, kinds: Mapping[str, type[Options]]) -> None:
    """One flag an option, and one for each alias; a flag that is not given leaves None. kinds: {model: its class}."""
    for name, fields in _merged(kinds).items():
        field = next(iter(fields.values()))
        unit, text = _extra(field, "unit", ""), _meaning(fields, len(kinds))
        unit = f", in {unit}" if unit and unit not in text else ""
        text = f"{text}{unit} (default: {_default(fields)})".replace("%", "%%")
        flags = [f"--{other.replace('_', '-')}" for other in (name, *_extra(field, "aliases", ()))]
        kind = _plain(field.annotation)
        common: dict[str, Any] = {"dest": name, "default": None, "help": text}
        if kind is bool:
            parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **common)
            if off := _extra(field, "off", ""):
                parser.add_argument(off, dest=name, action="store_false", default=None, help=f"as --no-{flags[0][2:]}")
        elif chosen := choices(field):
            parser.add_argument(*flags, choices=chosen, **common)
        elif kind is tuple:
            length = _length(field.annotation)
            parser.add_argument(*flags, type=_numbers(length), metavar=TUPLES[length][0], **common)
        else:
            parser.add_argument(*flags, type=kind, metavar=kind.__name__.upper(), **common)


def from_flags(args: argparse.Namespace, kinds: Mapping[str, type[Options]]) -> dict[str, Any]:
    """{option: value} of the flags that were given."""
    return {name: getattr(args, name) for name in _merged(kinds) if getattr(args, name, None) is not None}


def owners(kinds: Mapping[str, type[Options]], model: str) -> dict[str, str]:
    """{option or alias that `model` lacks: the models that have it}, for `parse`."""
    have: dict[str, list[str]] = {}
    for other, kind in kinds.items():
        for name in names(kind):
            have.setdefault(name, []).append(other)
    return {name: ", ".join(models) for name, models in have.items() if model not in models}


def table(kinds: Mapping[str, type[Options]]) -> str:
    """The options as the README's table, in Markdown."""
    lines = ["| option (flag: `--with-dashes`) | default | takes | meaning |", "|---|---|---|---|"]
    for name, fields in _merged(kinds).items():
        field = next(iter(fields.values()))
        takes = list(dict.fromkeys(expected(one) for one in fields.values()))
        also = "".join(f", `{other}`" for other in _extra(field, "aliases", ()))
        cells = (f"`{name}`{also}", _default(fields), "; ".join(takes), _meaning(fields, len(kinds)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
