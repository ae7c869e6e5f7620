"""Turn upstream checkpoints into our folders: <dst>/<network>/model.safetensors and config.json.

Two passes. `plan` reads names and shapes only and refuses everything that does not fit, all in one error. `convert`
then moves the tensors one at a time, so that a 6 GB network passes through the memory of its largest tensor, into a
hidden folder beside the result; only when all is written and compared does it take the final names.
"""

import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore.nn.utils import no_init_parameters
from sonic_ms.convert import ctranslate2, monolith
from sonic_ms.convert.families import recognise
from sonic_ms.convert.maps import TRANSFORMS, NameMap
from sonic_ms.convert.readers import open_checkpoint

from sonic_ms.errors import InputMissingError, OutputError, WeightsError
from sonic_ms.files.weights import CONFIG_FILE, DTYPES, FLOATS, MODEL_FILE, cast, save_config, summary, write_tensors

REAL = ("F64", "F32", "F16", "BF16")
SUFFIXES = (".safetensors", ".pth", ".pt", ".pkl", ".bin", ".ckpt")


@dataclass(frozen=True)
class Job:
    """One network to convert: `targets` is {parameter: (source tensor, Transform)}; `dropped` are source names."""

    family: object
    path: Path
    config: object
    targets: dict
    shapes: dict
    dropped: tuple
    bytes: int


def parameter_shapes(cell_of, config):
    """{parameter: shape} of a Cell; its weights are never allocated."""
    with no_init_parameters():
        cell = cell_of(config)
    return {name: tuple(parameter.shape) for name, parameter in cell.parameters_and_names()}


def match(family, config, shapes, wanted):
    """Map source shapes (prefix removed) onto `wanted` {parameter: shape}.

    Returns ({parameter: (source, Transform)}, dropped names, problems). There are no problems exactly when every
    source is known, every parameter has one source, and all shapes agree.
    """
    names = NameMap(family.table(config))
    targets, dropped, unknown, wrong, twice = {}, [], [], [], []
    for source, shape in shapes.items():
        goals = names.targets(source)
        if goals is None:
            unknown.append(source)
        elif not goals:
            dropped.append(source)
        for target, transform in goals or []:
            if target not in wanted:
                unknown.append(source)
            elif target in targets:
                twice.append(f"{target} from {targets[target][0]} and {source}")
            elif len(shape) < 1 or transform.shape(tuple(shape)) != wanted[target]:
                wrong.append(f"{source} {tuple(shape)} does not make {target} {wanted[target]}")
            else:
                targets[target] = (source, transform)
    named_wrong = {text.split(" does not make ")[1].split(" (")[0] for text in wrong}
    missing = sorted(set(wanted) - set(targets) - named_wrong)
    kinds = (("missing", missing), ("unknown", unknown), ("wrong shape", wrong), ("two sources", twice))
    problems = [f"{kind}: {summary(entries)}" for kind, entries in kinds if entries]
    return targets, tuple(dropped), problems


def find_files(src):
    """Checkpoint files of a tree, or the single file `src`."""
    src = Path(src)
    if src.is_dir():
        files = sorted(path for path in src.rglob("*") if path.suffix in SUFFIXES and path.is_file())
        if not files:
            raise InputMissingError(f"{src} holds no checkpoint ({', '.join(SUFFIXES)})")
        return files
    if not src.is_file():
        raise InputMissingError(f"{src} does not exist")
    return [src]


def find_hints(family, path, src):
    """Fields of the JSON file that describes a checkpoint.

    In this order: a file of the same name ending in .json, the config.json beside it, any config.json of the tree.
    The last two count if they name a class of the family; the one beside it also if it names none at all.
    """
    beside = path.parent / CONFIG_FILE
    others = sorted(Path(src).rglob(CONFIG_FILE)) if Path(src).is_dir() else []
    for place in [path.with_suffix(".json"), beside, *others]:
        if not place.is_file():
            continue
        try:
            fields = json.loads(place.read_text(encoding="utf-8"))
            named = {fields.get("_class_name"), *(fields.get("architectures") or [])} - {None}
        except (ValueError, AttributeError, TypeError) as error:
            raise WeightsError(f"{place} is not the JSON description of a network ({error})") from error
        if place.stem == path.stem or named & set(family.classes) or (place == beside and not named):
            return fields
    return {}


def views_of(checkpoint):
    """What a file holds, as [{published name: (tensor of the file, Transform)}], one dictionary a network.

    Most files are one network in its published names; for the others the names are translated first.
    """
    for layout in (monolith.views, ctranslate2.views):
        known = layout(checkpoint.shapes)
        if known is not None:
            views, unknown = known
            if unknown:
                raise WeightsError(f"{checkpoint.path} holds unknown tensors: {summary(unknown)}")
            return views
    return [{name: (name, TRANSFORMS["keep"]) for name in checkpoint.shapes}]


def plan_file(path, src):
    """Jobs of one checkpoint; none if its keys are of no known network; WeightsError if they do not fit it."""
    with open_checkpoint(path) as checkpoint:
        return [job for view in views_of(checkpoint) if (job := plan_view(checkpoint, view, src))]


def plan_view(checkpoint, view, src):
    """Job of one network of an open checkpoint, or None; see `views_of`."""
    path = checkpoint.path
    shapes = {name: transform.shape(checkpoint.shapes[source]) for name, (source, transform) in view.items()}
    known = recognise(shapes)
    if known is None:
        return None
    family, prefix = known
    shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()}

    def origin(name):
        return view[prefix + name if prefix + name in view else name]

    def read(name):
        source, transform = origin(name)
        return transform.apply(checkpoint.read(source))

    try:
        config = family.config(shapes, {**described(checkpoint), **find_hints(family, path, src)}, read)
        wanted = parameter_shapes(family.cell, config)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{path} looks like {family.name}, but its sizes cannot be read ({error!r})") from error
    if family.name == "svd_unet":
        wanted = {name: shape for name, shape in wanted.items() if "audio_" not in name}
    targets, dropped, problems = match(family, config, shapes, wanted)
    sources = dict.fromkeys(origin(name)[0] for name, _ in targets.values())
    integer = [f"{source} ({checkpoint.dtypes[source]})" for source in sources if checkpoint.dtypes[source] not in REAL]
    if integer:  # quantised weights mean nothing without their scales
        problems.append(f"not of a float type: {summary(integer)}")
    if problems:
        raise WeightsError(f"{path} does not fit {family.name}: {'; '.join(problems)}")
    joined = {}
    for target, (name, last) in targets.items():
        source, first = origin(name)
        joined[target] = (source, first.then(last))
    dropped = tuple(origin(name)[0] for name in dropped)
    size = sum(
        int(np.prod(checkpoint.shapes[source])) * DTYPES[checkpoint.dtypes[source]].itemsize
        for source in {source for source, _ in view.values()}
    )
    return Job(family, path, config, joined, wanted, dropped, size)


def described(checkpoint):
    """Sizes that the file itself states, in the names of upstream's config.json."""
    if isinstance(checkpoint, ctranslate2.CTranslate2Checkpoint):
        return {"encoder_attention_heads": int(checkpoint.read(ctranslate2.HEADS_NAME))}
    return {}


def plan(src, only=None):
    """Jobs of a tree or file, and notes on files left out. WeightsError lists everything that does not fit.

    only: names of the networks wanted; each of them must be there.
    """
    jobs, notes, problems = {}, [], []
    found = []
    for path in find_files(src):
        try:
            parts = plan_file(path, src)
        except WeightsError as error:
            problems.append(str(error))
            continue
        if not parts:
            notes.append(f"{path}: not a network of sonic-base, left alone")
        found += parts
    for job in found:
        name = job.family.name
        if only and name not in only:
            continue
        if name in jobs:
            # Published trees hold some networks twice, in half and in full precision: the larger one is exact.
            job, other = sorted((job, jobs[name]), key=lambda one: -one.bytes)
            notes.append(f"{other.path}: the same network as {job.path} in less precision, left alone")
        jobs[name] = job
    base = jobs.pop("svd_unet", None)
    if base and "unet" not in jobs:
        problems.append(f"{base.path} is the UNet without Sonic's audio branch; Sonic/unet.pth is needed as well")
    elif base:
        notes.append(f"{base.path}: contained in {jobs['unet'].path}, left alone")
    absent = sorted(set(only or []) - set(jobs))
    if absent and not problems:
        problems.append(f"{src} does not hold {', '.join(absent)}")
    if not jobs and not problems:
        problems.append(f"{src} holds no network of sonic-base")
    if problems:
        raise WeightsError("\n".join(problems))
    return [jobs[name] for name in sorted(jobs)], notes


def write_job(job, folder, dtype):
    """Convert one network into `folder`; returns the report of it."""
    started = time.perf_counter()
    with open_checkpoint(job.path) as checkpoint:

        def loader(target, source, transform):
            def load():
                values = transform.apply(checkpoint.read(source))
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise WeightsError(f"{job.path}: {source} holds values that are not finite")
                return cast(target, values.astype(np.float32, copy=False), dtype)[0]

            return load

        entries = [
            (target, FLOATS[dtype], job.shapes[target], loader(target, source, transform))
            for target, (source, transform) in sorted(job.targets.items())
        ]
        save_config(job.config, folder)
        write_tensors(
            folder / MODEL_FILE, entries, {"format": "mindspore", "network": job.family.name, "source": job.path.name}
        )
    return {
        "network": job.family.name,
        "source": str(job.path),
        "tensors": len(job.targets) + len(job.dropped),
        "parameters": len(job.targets),
        "dropped": list(job.dropped),
        "dtype": dtype,
        "bytes": (folder / MODEL_FILE).stat().st_size,
        "seconds": round(time.perf_counter() - started, 2),
    }


def convert(jobs, dst, dtype="fp32", progress=None):
    """Write all jobs under `dst`, or nothing. progress(report) is called after each network; returns all reports."""
    dst = Path(dst)
    try:
        dst.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".converting-", dir=dst))
    except OSError as error:
        raise OutputError(f"cannot write in {dst}: {error.strerror}") from error
    try:
        reports = []
        for job in jobs:
            reports.append(write_job(job, staging / job.family.name, dtype))
            if progress:
                progress(reports[-1])
        for job in jobs:
            final = dst / job.family.name
            final.mkdir(exist_ok=True)
            for file in (staging / job.family.name).iterdir():
                os.replace(file, final / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return reports
