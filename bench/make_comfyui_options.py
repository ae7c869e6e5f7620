"""Write integrations/comfyui/options.json: the declaration of sonic_ms's options, as plain data for ComfyUI's nodes.

    python -m bench.make_comfyui_options

The nodes live in ComfyUI's interpreter, where sonic_ms is usually not installed. The order of options is kept, as saved
workflows know widgets by it: new options go to the end of their group.
"""

import json
from pathlib import Path

from sonic_ms import __version__
from sonic_ms.options import Options, choices, expected
from sonic_ms.pipeline import MODELS, all_options, shipped_models
from sonic_ms.runtime.choose import ENGINES

FILE = Path(__file__).resolve().parents[1] / "integrations" / "comfyui" / "options.json"
LEAST = 0.01  # for numbers that must be above 0
AS_THE_MODEL = "as the model"
TYPES = {int: "INT", float: "FLOAT", bool: "BOOLEAN"}


def limits(field):
    """{low, high} of a number."""
    found = {key: getattr(one, key) for one in field.metadata for key in ("gt", "ge", "le", "lt") if hasattr(one, key)}
    low, high = found.get("ge", LEAST if "gt" in found else None), found.get("le")
    if "lt" in found:
        high = found["lt"] - 1
    return {key: value for key, value in (("low", low), ("high", high)) if value is not None}


def kind_of(field):
    """(type, default is None) of an option. Several numbers are a text with commas."""
    if isinstance(field.default, tuple):
        return "STRING", False
    kinds = getattr(field.annotation, "__args__", (field.annotation,))
    kind = next((TYPES[one] for one in (field.annotation, *kinds) if one in TYPES), "STRING")
    return kind, field.default is None


def widget(name, field, differs):
    """An option as a widget. differs: its default is not the same for every model."""
    kind, nothing = kind_of(field)
    extra = field.json_schema_extra or {}
    unit = extra.get("unit", "")
    text = f"{field.description}; {unit}" if unit and unit not in field.description else field.description
    common = {"name": name, "help": text}
    if extra.get("aliases"):
        common["aliases"] = extra["aliases"]
    if name == "face":  # a number is checked by ComfyUI: 0 and "largest" are the same
        return common | {"kind": "INT", "default": 0, "low": 0, "high": 9999, "help": "which face; 0 is the largest"}
    if differs:
        return common | {"kind": "COMBO", "default": AS_THE_MODEL, "choices": [AS_THE_MODEL, "on", "off"]}
    if words := choices(field):
        words = ["none", *words] if nothing else words
        return common | {"kind": "COMBO", "default": words[0] if nothing else field.default, "choices": words}
    if kind == "STRING":
        numbers = ",".join(f"{one:g}" for one in field.default or ())
        wanted = expected(field) if numbers else f"{expected(field)}, or nothing"
        return common | {"kind": kind, "default": numbers, "help": f"{text}; {wanted}"}
    common |= {"kind": kind, "default": field.default, **limits(field)}
    if nothing:
        common |= {"default": 0.0, "low": 0.0, "help": f"{text}; 0 for all"}
    if kind == "FLOAT":
        common["step"] = 0.05 if common.get("high", 1e9) <= 5 else 0.1
    return common


def groups():
    """{"common" or model: widgets}."""
    models = all_options()
    common = Options.model_fields
    found = {"common": {}}
    for name, field in common.items():
        differs = len({kind.model_fields[name].default for kind in models.values()}) > 1
        found["common"][name] = widget(name, field, differs)
    for model, kind in models.items():
        own = {name: field for name, field in kind.model_fields.items() if name not in common}
        found[model] = {name: widget(name, field, False) for name, field in own.items()}
    return found


def made():
    """The content of the file; options that it has already keep their place."""
    before = json.loads(FILE.read_text(encoding="utf-8"))["groups"] if FILE.exists() else {}
    ordered = {}
    for group, widgets in groups().items():
        known = [one["name"] for one in before.get(group, ()) if one["name"] in widgets]
        ordered[group] = [widgets[name] for name in [*known, *(name for name in widgets if name not in known)]]
    return {
        "version": __version__,
        "models": shipped_models().split(", "),
        "parts": {name: list(entry.parts) for name, entry in MODELS.items()},
        "engines": list(ENGINES),
        "groups": ordered,
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(made(), indent=1) + "\n", encoding="utf-8")
    print(FILE)
