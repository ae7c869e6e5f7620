"""What a client sends to make a video: a multipart form or JSON, as options, files and the rest, all checked."""

import contextlib
import json
import re
from dataclasses import dataclass, field

from starlette.datastructures import UploadFile

from sonic_ms.errors import UsageError
from sonic_ms.options import from_texts, names, owners, parse
from sonic_ms.pipeline import MODELS, all_options
from sonic_ms.serve.problems import Problem
from sonic_ms.serve.uploads import too_large

OTHERS = ("model", "prompt", "seconds", "size", "metadata", "webhook_url", "consent")
MAX_FIELDS, MAX_TEXT = 100, 1 << 16  # fields of a form, characters of a text
MAX_METADATA, MAX_KEY, MAX_VALUE = 16, 64, 512
FILES = {"input_reference": "image", "audio_reference": "audio"}
ALIASES = {"image": "input_reference", "image_reference": "input_reference", "audio": "audio_reference"}
SPARE = 1 << 20  # bytes of a form besides its files


@dataclass
class Wanted:
    """A request for a video. files: {param: UploadFile or id of an upload}."""

    options: dict
    files: dict
    prompt: str = ""
    metadata: dict = field(default_factory=dict)
    webhook_url: str | None = None
    consent: bool = False


@contextlib.asynccontextmanager
async def read_form(request, limit):
    """{name: text, value or UploadFile} of a request whose body has at most `limit` bytes, counted as they come."""
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > limit:
        raise too_large("body", limit)
    receive, count = request._receive, 0

    async def counted():
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > limit:
            raise too_large("body", limit)
        return message

    request._receive = counted
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        yield _object(await request.body())
    elif kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        try:
            form = await request.form(max_files=4, max_fields=MAX_FIELDS, max_part_size=SPARE)
        except Exception as error:
            if isinstance(error, Problem):
                raise
            text = getattr(error, "detail", None) or getattr(error, "message", None) or "it is damaged"
            raise Problem(400, "bad_form", f"the form cannot be read: {text}") from error
        try:
            yield _fields(form)
        finally:
            await form.close()
    else:
        raise Problem(415, "unsupported_media_type",
                      f"content type {kind[:80]!r}; send multipart/form-data or application/json")  # fmt: skip


def _object(data):
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "bad_json", "the body is not JSON") from error
    if not isinstance(value, dict):
        raise Problem(400, "bad_json", "the body is not a JSON object")
    return value


def _fields(form):
    """{name: value}; metadata[key]=value are gathered, a name that comes twice is refused."""
    fields, metadata = {}, {}
    for name, value in form.multi_items():
        if found := re.fullmatch(r"metadata\[([^\]]*)\]", name):
            metadata[found[1]] = value
        elif name in fields:
            raise Problem(422, "usage_error", f"{name[:80]} is given twice; leave one out", name[:80])
        else:
            fields[name] = value
    if metadata:
        fields["metadata"] = metadata
    return fields


def wanted(fields, settings, model):
    """Wanted, of the fields of a request. Raises Problem, UsageError."""
    fields = {ALIASES.get(name, name): value for name, value in fields.items()}
    files = {param: _file(fields.pop(param, None), param) for param in FILES}
    asked = fields.pop("model", None)
    if asked not in (None, "", model):
        raise Problem(
            404, "model_not_found", f"model {str(asked)[:80]!r} is not served here; there is {model}", "model"
        )
    other = {name: fields.pop(name, None) for name in OTHERS[1:]}
    kind = MODELS[model].Options
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    if wrong := next((name for name, value in fields.items() if isinstance(value, UploadFile)), None):
        raise Problem(422, "usage_error", f"{wrong[:80]} is a file, expected a value", wrong[:80])
    values = dict(fields) | from_texts(kind, texts)
    values |= _openai(other, values, kind)
    values.setdefault("max_audio_seconds", settings.max_audio_seconds)
    options = _options(values, settings, model)
    if options.max_audio_seconds > settings.max_audio_seconds:
        raise Problem(422, "usage_error", f"max_audio_seconds is {options.max_audio_seconds:g}; this service takes at "
                      f"most {settings.max_audio_seconds:g}", "max_audio_seconds")  # fmt: skip
    return Wanted(
        options.model_dump(mode="json", exclude_unset=True), files, _text(other["prompt"], "prompt"),
        _metadata(other["metadata"]), _text(other["webhook_url"], "webhook_url") or None,
        _truth(other["consent"]),
    )  # fmt: skip


def wanted_live(options, consent, settings, model):
    """Wanted, without files, of the options of a live session: texts or values. Raises Problem."""
    values = options | from_texts(MODELS[model].Options, {k: v for k, v in options.items() if isinstance(v, str)})
    checked = _options(values, settings, model)
    return Wanted(checked.model_dump(mode="json", exclude_unset=True), {}, consent=_truth(consent))


def _options(values, settings, model):
    """The model's Options, labelled as the service does it unless they say. Raises Problem."""
    values.setdefault("visible_label", settings.visible_label)
    try:
        return parse(MODELS[model].Options, values, "options", owners(all_options(), model))
    except UsageError as error:
        found = re.match(r"options: (?:unknown keys ')?(\w+)", str(error))
        raise Problem(422, "usage_error", str(error), found[1] if found else None) from error


def _file(value, param):
    if isinstance(value, dict) and isinstance(value.get("file_id"), str):  # OpenAI's way
        value = value["file_id"]
    if isinstance(value, UploadFile) or (isinstance(value, str) and value.startswith("upl_")):
        return value
    if (isinstance(value, str) and re.match(r"https?:", value)) or isinstance(value, dict):
        raise Problem(422, "urls_not_taken", f"{param}: addresses are not fetched; send the file", param)
    what = "a photo" if param == "input_reference" else "a recording"
    raise Problem(
        422, "input_missing_error", f"{param} is missing; send {what} as a file, or the id of an upload", param
    )


def _openai(other, values, kind):
    """Options that OpenAI's fields stand for: seconds is a cap of the length, size says the short side."""
    more = {}
    seconds, size = other["seconds"], other["size"]
    if seconds not in (None, ""):
        try:
            more["duration"] = float(seconds)
        except (TypeError, ValueError):
            raise Problem(
                422, "usage_error", f"seconds is {str(seconds)[:80]!r}; expected a number", "seconds"
            ) from None
    if size not in (None, ""):
        found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", str(size))
        if not found:
            raise Problem(422, "usage_error", f"size is {str(size)[:80]!r}; expected WIDTHxHEIGHT", "size")
        more["min_resolution"] = min(int(found[1]), int(found[2]))
    known = names(kind)
    given = {known.get(name) for name in values}
    return {name: value for name, value in more.items() if name not in given}


def _text(value, param):
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise Problem(422, "usage_error", f"{param}: expected a text of at most {MAX_TEXT} characters", param)
    return value


def _truth(value):
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "1", "on", "yes"))


def _metadata(value):
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else {}
        except (ValueError, RecursionError):
            value = None
    if value is None:
        value = {}
    sound = isinstance(value, dict) and len(value) <= MAX_METADATA
    if not sound or not all(
        isinstance(key, str) and isinstance(one, str) and len(key) <= MAX_KEY and len(one) <= MAX_VALUE
        for key, one in value.items()
    ):
        raise Problem(
            422, "usage_error", f"metadata: expected at most {MAX_METADATA} texts of up to {MAX_VALUE} characters, "
            f"with names of up to {MAX_KEY}", "metadata",
        )  # fmt: skip
    return value


def form_schema(model):
    """JSON schema of the form, from the one declaration of options."""
    schema = MODELS[model].Options.model_json_schema()
    file = {"type": "string", "format": "binary"}
    own = {
        "input_reference": file | {"description": "the portrait: a file, or the id of an upload"},
        "audio_reference": file | {"description": "the speech: a file, or the id of an upload"},
        "model": {"type": "string", "description": f"{model}, or nothing"},
        "prompt": {"type": "string", "description": "taken, and not used"},
        "seconds": {"type": "string", "description": "the same as duration"},
        "size": {"type": "string", "description": "WIDTHxHEIGHT: the smaller one is min_resolution"},
        "metadata": {"type": "string", "description": f"JSON: up to {MAX_METADATA} texts that come back with the job"},
        "webhook_url": {"type": "string", "description": "https address that is told of the end"},
        "consent": {"type": "string", "description": "true: the person in the portrait agrees"},
    }
    properties = own | schema["properties"]
    return {"type": "object", "properties": properties, "required": ["input_reference", "audio_reference"]}
