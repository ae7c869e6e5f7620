"""The implicit label of GB 45438-2025: the key `AIGC` of an mp4, bare JSON of seven strings.

Source: quotations of GB 45438-2025, annex E, and of TC260-PG-20257A, 6.1.1, in public code; the original texts were not
read (docs/labels.md).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields, replace

from sonic_ms.errors import UsageError, short

KEY = "AIGC"
GENERATED = "1"  # Label: "1" is generated, "2" may be, "3" is suspected to be
# The characters that annex E allows in a value: printable ASCII without space, quotation mark and backslash.
ALLOWED = re.compile(r"[!#-\[\]-~]*\Z")
DEFAULT_PRODUCER = "sonic_ms"  # the program's name; an operator has to give his own name or code


@dataclass(frozen=True)
class Aigc:
    """The seven values, named as in the file. ContentProducer: name or code of who made the content; ProduceID: his
    number of it; ContentPropagator, PropagateID: the same of who spread it, the producer's pair at the first writing;
    ReservedCode1, ReservedCode2: for integrity data of one's own, empty here."""

    Label: str
    ContentProducer: str
    ProduceID: str
    ReservedCode1: str
    ContentPropagator: str
    PropagateID: str
    ReservedCode2: str

    def text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


NAMES = [field.name for field in fields(Aigc)]


def check_producer(producer: str) -> None:
    """Raise UsageError unless a name or code of a producer can stand in the label."""
    if not producer or not ALLOWED.match(producer):
        raise UsageError(
            f"producer is {short(producer)}; expected letters, digits and signs of ASCII without space, quotation mark "
            "and backslash, as GB 45438-2025 allows"
        )


def first(producer: str, number: str) -> Aigc:
    """The label of content that `producer` made under `number`. Raises UsageError."""
    check_producer(producer)
    return Aigc(GENERATED, producer, number, "", producer, number, "")


def over(old: Aigc | None, producer: str, number: str) -> Aigc:
    """The one label of a file that had `old`: a producer's own stays as it is, somebody else's pair stays as the
    propagator's. Raises UsageError."""
    new = first(producer, number)
    if old is None:
        return new
    if old.ContentProducer == producer and old.Label == GENERATED:
        return old
    return replace(new, ContentPropagator=old.ContentProducer, PropagateID=old.ProduceID)


def parse(text: str) -> Aigc:
    """The label in the text of the key. Raises ValueError, which says what is wrong with it."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"no JSON: {short(text)}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{short(values)}, expected an object")
    if missing := [name for name in NAMES if name not in values]:
        raise ValueError(f"{', '.join(missing)} missing")
    for name in NAMES:
        if not isinstance(values[name], str) or not ALLOWED.match(values[name]):
            raise ValueError(f"{name} is {short(values[name])}, expected a string of the characters that are allowed")
    if values["Label"] not in ("1", "2", "3"):
        raise ValueError(f"Label is {short(values['Label'])}, expected 1, 2 or 3")
    return Aigc(**{name: values[name] for name in NAMES})
