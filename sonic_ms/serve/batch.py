"""Many videos from a list, by the queue of the service and without HTTP."""

import csv
import os
import queue
import time
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import InputMissingError, UsageError
from sonic_ms.files.reading import parse_json, read_small
from sonic_ms.files.temporary import Temporary
from sonic_ms.media.video import check_output
from sonic_ms.options import from_texts, owners, parse
from sonic_ms.pipeline import MODELS, all_options, model_of
from sonic_ms.serve.database import Database
from sonic_ms.serve.files import Folders, LocalFiles, place, result_key, upload_key
from sonic_ms.serve.jobs import Jobs
from sonic_ms.serve.process import kind_of
from sonic_ms.serve.slots import Slots

MAX_LIST = 16 << 20  # bytes
TENANT = "batch"


@dataclass
class Line:
    """A video to make. number: its line in the list."""

    number: int
    image: Path
    audio: Path
    output: Path
    options: dict


def read_list(path, out, model):
    """Lines of a list, all checked. Raises UsageError that names file and line, InputMissingError.

    path: .csv with a heading, or .jsonl; columns image, audio, output (else NUMBER.mp4) and any option. Paths are
    relative to the list, outputs to the folder `out`.
    """
    path, out = Path(path), Path(out)
    text = read_small(path, "a list of videos", MAX_LIST, UsageError).decode("utf-8-sig", "replace")
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(text.splitlines(), strict=True)
        found = []
        try:
            for row in rows:
                if None in row or None in row.values():
                    raise UsageError(f"{path}:{rows.line_num}: as many values are expected as the heading has names")
                found.append((rows.line_num, {name: value for name, value in row.items() if value != ""}))
        except csv.Error as error:
            raise UsageError(f"{path}:{rows.line_num}: not CSV ({error})") from error
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        found = [(number, parse_json(line, f"{path}:{number}: not JSON", UsageError))
                 for number, line in enumerate(text.splitlines(), 1) if line.strip()]  # fmt: skip
    else:
        raise UsageError(f"{path}: suffix {path.suffix!r}, expected .csv or .jsonl")
    if not found:
        raise UsageError(f"{path}: no line names a video; expected at least one")
    lines = [_line(number, row, path, out, model) for number, row in found]
    outputs = {}
    for line in lines:
        if (other := outputs.setdefault(line.output, line.number)) != line.number:
            raise UsageError(f"{path}:{line.number}: output {line.output} is that of line {other} too")
    return lines


def _line(number, row, path, out, model):
    where = f"{path}:{number}"
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected an object with image and audio")
    row = dict(row)
    files = {name: row.pop(name, None) for name in ("image", "audio")}
    output = row.pop("output", f"{number}.mp4")
    for name, value in {**files, "output": output}.items():
        if not isinstance(value, str) or not value:
            raise UsageError(f"{where}: {name} is missing; name a file")
    paths = {name: path.parent / value for name, value in files.items()}
    for one in paths.values():
        if not os.path.isfile(one):
            raise InputMissingError(f"{where}: file {one}: no such file; check the path")
    kind = MODELS[model].Options
    texts = {name: value for name, value in row.items() if isinstance(value, str)}
    options = parse(kind, row | from_texts(kind, texts), where, owners(all_options(), model))
    return Line(number, **paths, output=out / output, options=options.model_dump(mode="json", exclude_unset=True))


def make_all(lines, settings, overwrite, say):
    """Make the videos of `lines`; those that are there already are left, unless `overwrite`. say: called with a text.

    Returns one {line, output, state, ...} each. settings: Settings, whose `data` is not used.
    """
    todo = [line for line in lines if overwrite or not line.output.exists()]
    for line in todo:
        check_output(line.output, overwrite)
    report = [{"line": line.number, "output": str(line.output), "state": "there already"}
              for line in lines if line not in todo]  # fmt: skip
    if not todo:
        return report
    with Temporary(todo[0].output.absolute().parent, is_folder=True) as folder:
        folders, files = Folders(folder), LocalFiles(folder)
        database = Database(folder)
        jobs = Jobs(database)
        waiting = {}
        for line in todo:
            names = [_as_upload(files, one, f"{line.number}-{kind}") for kind, one in
                     (("image", line.image), ("audio", line.audio))]  # fmt: skip
            shown = [str(line.image), str(line.audio)]
            waiting[jobs.add(TENANT, settings.model, line.options, *names, {"names": shown}).id] = line
        slots = Slots(settings, jobs, folders, files)
        changed = queue.Queue()
        jobs.listeners.append(changed.put)
        slots.start()
        try:
            while waiting:
                report += _next(slots, jobs, files, changed, waiting, say)
        finally:
            slots.stop()
            database.close()
    return sorted(report, key=lambda one: one["line"])


def _as_upload(files, path, name):
    files.path(upload_key(TENANT, name)).symlink_to(path.absolute())
    return name


def _next(slots, jobs, files, changed, waiting, say):
    """Reports of the job that changed, if it has ended. Raises EngineError when there is no model."""
    try:
        name = changed.get(timeout=1)
    except queue.Empty:
        if problem := slots.problem:
            raise kind_of(problem["code"])(problem["message"]) from None
        return []
    job = jobs.get(TENANT, name)
    if name not in waiting or job is None or not job.ended:
        return []
    line = waiting.pop(name)
    report = {"line": line.number, "output": str(line.output), "state": job.state}
    if job.state == "completed":
        place(files.path(result_key(TENANT, job.result["file"])), line.output)
        say(f"{line.output}")
        return [report | {key: job.result[key] for key in ("frames", "fps", "sha256", "notes", "work_seconds")}]
    say(f"line {line.number}: {job.error['message']}")
    return [report | {"error": job.error}]


def run(args, settings):
    """`sonic-ms batch`; its report. Raises the first failure of a line, after all were tried."""
    lines = read_list(args.jobs, args.out, model_of(args.model, args.bundle))
    started = time.monotonic()
    report = make_all(lines, settings, args.overwrite, print)
    failed = [one for one in report if one.get("error")]
    made = sum(one["state"] == "completed" for one in report)
    whole = {"made": made, "failed": len(failed), "seconds": round(time.monotonic() - started, 3), "jobs": report}
    if not failed:
        return whole
    error = kind_of(failed[0]["error"]["code"])(
        f"{len(failed)} of {len(report)} videos could not be made; the first is line {failed[0]['line']}: "
        f"{failed[0]['error']['message']}"
    )
    error.report = whole
    raise error
