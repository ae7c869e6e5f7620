"""What labels a file has, and whether they are as they should be: one line each."""

import math

from sonic_ms.errors import EngineError
from sonic_ms.labels import aigc, manifest, mp4, visible, watermark

BROKEN = ("not valid", "Invalid")  # how the line of a label begins that does not hold
LABELS = {"1": "generated", "2": "may be generated", "3": "suspected to be generated"}


def look(path):
    """{label: one line} of an mp4. Raises InputMissingError, VideoError."""
    return {
        "AIGC": aigc_line(mp4.read_keys(path).get(aigc.KEY)),
        "visible": visible_line(path),
        "watermark": watermark_line(path),
        "C2PA": manifest_line(path),
    }


def broken(report):
    """The labels of `look` that are there and do not hold."""
    return [name for name, text in report.items() if text.startswith(BROKEN)]


def manifest_line(path):
    """Whether a file has a C2PA manifest that holds, and whose. Raises InputMissingError, VideoError."""
    if not mp4.has_manifest(path):
        return "none"
    try:
        return manifest.check(path)
    except EngineError as error:
        return f"there, not checked: {error}"


def visible_line(path):
    """The label that the first two seconds show, and its corner; of labels drawn as ours. Raises as watermark_line."""
    found = visible.find(path)
    return "none that was drawn by sonic_ms" if found is None else f"{found[0]}, {found[1]}"


def watermark_line(path):
    """The number in the frames of a video, 12 hexadecimal digits, and how sure that is. Raises InputMissingError,
    VideoError, ResourceError, EngineError."""
    number, likeness, chance = watermark.read_mark(*watermark.cells_of(path))
    if number is None:
        return "no watermark found"
    return f"{number:012x}, confidence {likeness:.2f} (chance of a false alarm below 1e{math.ceil(chance):d})"


def aigc_line(text):
    """The implicit label in words; text: of its key, or None."""
    if text is None:
        return "none"
    try:
        label = aigc.parse(text)
    except ValueError as error:
        return f"not valid: {error}"
    line = f"{LABELS[label.Label]}, by {label.ContentProducer or 'nobody'}, number {label.ProduceID or 'none'}"
    if (label.ContentPropagator, label.PropagateID) != (label.ContentProducer, label.ProduceID):
        line += f"; before that by {label.ContentPropagator or 'nobody'}, number {label.PropagateID or 'none'}"
    return line
