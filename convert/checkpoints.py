"""Turn upstream checkpoints into our folders: <dst>/<network>/model.safetensors and config.json.

Two passes. `plan` reads names and shapes only and refuses everything that does not fit, all in one error. `convert`
then moves the tensors one at a time, so that a 6 GB network passes through the memory of its largest tensor, into a
hidden folder beside the result; only when all is written and compared does it take the final names.
"""

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore.nn.utils import no_init_parameters
from sonic_ms.convert import ctranslate2, monolith
from sonic_ms.convert.families import places, recognise, wrappers
from sonic_ms.convert.files import NETWORKS, find, published, spoken_of, unwritten
from sonic_ms.convert.maps import TRANSFORMS, NameMap
from sonic_ms.convert.readers import open_checkpoint

from sonic_ms.errors import OutputError, SonicError, UsageError, WeightsError, printable
from sonic_ms.files.reading import read_json
from sonic_ms.files.temporary import Temporary
from sonic_ms.files.weights import (
    CONFIG_FILE,
    DTYPES,
    FLOATS,
    MODEL_FILE,
    cast,
    config_from_fields,
    save_config,
    summary,
    write_tensors,
)

REAL = ("F64", "F32", "F16", "BF16")
OUR_FORMAT = "mindspore"  # in the metadata of what is written here
MAX_SIZE = 1 << 20  # of a side of a known network's tensor; the largest is Whisper's vocabulary of 51,865
HOLE, MIN_MATRIX = 1 << 14, 256  # elements: see unwritten_part
# What a family's reading of shapes, or a Cell, raises on sizes that make no network.
UNBUILDABLE = (LookupError, ValueError, ArithmeticError, TypeError, AttributeError, RuntimeError, MemoryError)


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
    precision: int  # bytes of the narrowest float that is used


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


class Misfit(WeightsError):
    """Tensors that are clearly meant to be a network, and are not all of it. `network` is its name."""

    def __init__(self, message, network):
        super().__init__(message)
        self.network = network


def find_hints(family, path, src, notes=None):
    """Fields of the JSON file that describes a checkpoint.

    In this order: a file of the same name ending in .json, the config.json beside it, any config.json of the tree.
    The last two count if they name a class of the family; the one beside it also if it names none at all. A damaged
    one is an error in the first two places, and a line in `notes` elsewhere: it may belong to anything.
    """
    beside = path.parent / CONFIG_FILE
    others = sorted(Path(src).rglob(CONFIG_FILE)) if Path(src).is_dir() else []
    for place in [path.with_suffix(".json"), beside, *others]:
        if not place.is_file():
            continue
        own = place.stem == path.stem
        try:
            fields, named = read_description(place)
        except SonicError as error:
            if own or place == beside:
                raise
            if notes is not None and str(error) not in notes:
                notes.append(str(error))
            continue
        if own or named & set(family.classes) or (place == beside and not named):
            return fields
    return {}


def read_description(place):
    """A config.json -> (its fields, the classes it names)."""
    what = "the JSON description of a network"
    fields = read_json(place, what)
    if isinstance(fields, dict):
        architectures = fields.get("architectures") or []
        if isinstance(architectures, list):
            named = [fields.get("_class_name"), *architectures]
            if all(name is None or isinstance(name, str) for name in named):
                return fields, set(named) - {None}
    raise WeightsError(f"{place} is not {what} (a class in it is no text, or it is no object)")


def views_of(checkpoint, notes=None):
    """What a file holds, as [{published name: (tensor of the file, Transform)}], one dictionary a network.

    Names lose what training code puts before them (`state_dict.`, `module.`), and a file may hold networks in several
    such places. Most hold one, in its published names; for other layouts the names are translated. Tensors beside the
    networks, such as an optimizer's, are counted in `notes`.
    """
    for layout, signature in ((monolith.views, monolith.SIGNATURE), (ctranslate2.views, (ctranslate2.HEADS_NAME,))):
        for prefix in places(signature, checkpoint.shapes)[:1]:
            inside = {name.removeprefix(prefix): name for name in checkpoint.shapes if name.startswith(prefix)}
            views, unknown = layout({name: checkpoint.shapes[source] for name, source in inside.items()})
            if unknown:
                raise WeightsError(f"{checkpoint.path} holds unknown tensors: {summary(unknown)}")
            return [{name: (inside[source], first) for name, (source, first) in view.items()} for view in views]
    views = []
    for prefix in wrappers(checkpoint.shapes):
        names = [name for name in checkpoint.shapes if name.startswith(prefix)]
        views.append({name.removeprefix(prefix): (name, TRANSFORMS["keep"]) for name in names})
    beside = len(set(checkpoint.shapes) - {source for view in views for source, _ in view.values()})
    if views and beside and notes is not None:
        notes.append(f"{checkpoint.path}: {beside} tensors beside the network, left alone")
    return views


def plan_file(path, src, notes):
    """(jobs of one checkpoint, its Misfits); none if its keys are of no known network. SonicError if it is unreadable.

    What the file holds beside networks is said in `notes`.
    """
    jobs, misfits = [], []
    with open_checkpoint(path) as checkpoint:
        if getattr(checkpoint, "metadata", {}).get("format") == OUR_FORMAT:
            notes.append(f"{path}: a network that this converter wrote, left alone")
            return [], []
        for view in views_of(checkpoint, notes):
            try:
                jobs.append(plan_view(checkpoint, view, src, notes))
            except Misfit as error:
                misfits.append(error)
    if not jobs and not misfits:
        some = ", ".join(sorted(checkpoint.shapes)[:3])
        notes.append(f"{path}: not a network of sonic-base, left alone (it holds {some})")
    return [job for job in jobs if job], misfits


def plan_view(checkpoint, view, src, notes=None):
    """Job of one network of an open checkpoint, see `views_of`. Misfit if something is missing or does not fit."""
    path = checkpoint.path
    # Only shapes of the names under which a network is known: a transform says which shape it makes of another.
    shapes = {}
    for name, (source, transform) in view.items():
        try:
            shapes[name] = tuple(transform.shape(checkpoint.shapes[source]))
        except (LookupError, TypeError) as error:
            raise WeightsError(f"{path}: {source} {checkpoint.shapes[source]} cannot make {name}") from error
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

    unusable = [f"{name} {shape}" for name, shape in shapes.items() if not all(1 <= side <= MAX_SIZE for side in shape)]
    if unusable:  # before anything is built: Cells keep tables as long as their sizes
        raise Misfit(f"{path} does not fit {family.name}: no such sizes: {summary(unusable)}", family.name)
    try:
        config = family.config(shapes, {**described(checkpoint), **find_hints(family, path, src, notes)}, read)
        wanted = parameter_shapes(family.cell, config)
    except WeightsError as error:
        raise Misfit(f"{path}: {error}", family.name) from error
    except UNBUILDABLE as error:
        problem = printable(repr(error))
        raise Misfit(
            f"{path} looks like {family.name}, but its sizes cannot be read ({problem})", family.name
        ) from error
    if family.name == "svd_unet":
        wanted = {name: shape for name, shape in wanted.items() if "audio_" not in name}
    try:
        targets, dropped, problems = match(family, config, shapes, wanted)
    except (LookupError, TypeError) as error:  # a transform of a tensor with too few axes
        raise Misfit(
            f"{path} does not fit {family.name}: a tensor has too few axes ({error!r})", family.name
        ) from error
    sources = dict.fromkeys(origin(name)[0] for name, _ in targets.values())
    integer = [f"{source} ({checkpoint.dtypes[source]})" for source in sources if checkpoint.dtypes[source] not in REAL]
    if integer:  # quantised weights mean nothing without their scales
        problems.append(f"not of a float type: {summary(integer)}")
    try:  # what is written must be what loading accepts
        config_from_fields(type(config), dataclasses.asdict(config), "config.json")
    except WeightsError as error:
        problems.append(str(error))
    if problems:
        raise Misfit(f"{path} does not fit {family.name}: {'; '.join(problems)}", family.name)
    joined = {}
    for target, (name, last) in targets.items():
        source, first = origin(name)
        joined[target] = (source, first.then(last))
    dropped = tuple(origin(name)[0] for name in dropped)
    size = sum(
        int(np.prod(checkpoint.shapes[source])) * DTYPES[checkpoint.dtypes[source]].itemsize
        for source in {source for source, _ in view.values()}
    )
    precision = min(DTYPES[checkpoint.dtypes[source]].itemsize for source in sources)
    return Job(family, path, config, joined, wanted, dropped, size, precision)


def described(checkpoint):
    """Sizes that the file itself states, in the names of upstream's config.json."""
    if isinstance(checkpoint, ctranslate2.CTranslate2Checkpoint):
        return {"encoder_attention_heads": checkpoint.heads()}
    return {}


def plan(src, only=None):
    """Jobs of a tree or file, and notes on files left out. WeightsError lists everything that does not fit.

    only: names of the networks wanted; each of them must be there. A file that cannot be read, or does not fit, stops
    the run when it may be a network that nothing else supplies; otherwise it is a note.
    """
    wanted = set(only or NETWORKS)
    unknown = sorted(wanted - set(NETWORKS))
    if unknown:
        raise UsageError(f"no network is called {', '.join(unknown)}; expected some of {', '.join(NETWORKS)}")
    paths, blocked = find(src)
    notes, found, faults = [], {}, [(path, text, spoken_of(path, Path(src))) for path, text in blocked]
    for path in paths:
        try:
            jobs, misfits = plan_file(path, src, notes)
        except SonicError as error:
            faults.append((path, str(error), spoken_of(path, Path(src))))
            continue
        for job in jobs:
            found.setdefault(job.family.name, []).append(job)
        faults += [(path, str(error), {"unet" if error.network == "svd_unet" else error.network}) for error in misfits]
    base = found.pop("svd_unet", [])
    jobs, problems = {}, []
    for name in sorted(wanted & set(found)):
        try:
            jobs[name] = choose(found[name], notes)
        except WeightsError as error:
            problems.append(str(error))
    for job in base:
        if "unet" in found:
            notes.append(f"{job.path}: contained in {found['unet'][0].path}, left alone")
        elif "unet" in wanted:
            problems.append(f"{job.path} is the UNet without Sonic's audio branch; Sonic/unet.pth is needed as well")
    missing = wanted - set(found)
    for path, text, networks in faults:
        replaced = any(published(name, path) and not published(name, job.path) for name, job in jobs.items())
        lost = networks & missing or replaced or not jobs or Path(src).is_file()
        (problems if lost else notes).append(text if lost else f"left alone: {text}")
    absent = sorted(missing) if only else []
    if absent and not problems:
        problems.append(f"{src} does not hold {', '.join(absent)}")
    if not jobs and not problems:
        problems += [f"{src} holds no network of sonic-base", *notes]
    if problems:
        raise WeightsError("\n".join(problems))
    return [jobs[name] for name in sorted(jobs)], notes


def choose(jobs, notes):
    """The job to convert of those that all make one network, and why not the others, in `notes`.

    Published trees hold some networks twice, in half and in full precision: the exact one is taken. Files that hold
    different weights are no copies: the one with the published name is taken, and without one nothing is.
    """
    name = jobs[0].family.name
    groups = []  # of the same weights, the most precise first
    for job in sorted(jobs, key=lambda one: (-one.precision, not published(name, one.path), str(one.path))):
        group = next((group for group in groups if same_weights(group[0], job)), None)
        if group:
            group.append(job)
        else:
            groups.append([job])
    named = [group for group in groups if any(published(name, job.path) for job in group)]
    chosen = groups if len(groups) == 1 else named
    if len(chosen) != 1:
        places = ", ".join(str(group[0].path) for group in groups)
        raise WeightsError(
            f"different weights for {name} in {places}; move all but one away, or convert that file alone"
        )
    best, *copies = chosen[0]
    for job in copies:
        how = "in less precision" if job.precision < best.precision else "again"
        notes.append(f"{job.path}: the same network as {best.path} {how}, left alone")
    for group in groups:
        if group is not chosen[0]:
            notes += [
                f"{job.path}: other weights than {best.path}, which has the published name; left alone" for job in group
            ]
    return best


def same_weights(one, other):
    """Whether two files hold the same weights, as far as the less precise one can say. Stops at the first that differ.

    Rounding to half precision moves a value by 2**-11 of it (bfloat16: 2**-8), and the smallest ones by 3e-8.
    """
    if one.shapes != other.shapes:
        return False
    with open_checkpoint(one.path) as ours, open_checkpoint(other.path) as theirs:
        for target, (source, transform) in one.targets.items():
            their_source, their_transform = other.targets[target]
            first = transform.apply(ours.read(source))
            second = their_transform.apply(theirs.read(their_source))
            exact = ours.dtypes[source] == theirs.dtypes[their_source]
            if not (np.array_equal(first, second) if exact else np.allclose(first, second, 2**-8, 1e-7)):
                return False
    return True


def unwritten_part(values):
    """Whether a part of a tensor was never written: zeros all over a matrix, or HOLE of them in a row.

    A download that is resumed or written in parts reserves its place on the disk, which reads as zeros.
    """
    flat = values.reshape(-1)
    if values.ndim > 1 and flat.size >= MIN_MATRIX and not flat.any():
        return True
    rows = flat[: flat.size // HOLE * HOLE].reshape(-1, HOLE)
    return not rows.any(axis=1).all()


def check_written(jobs):
    """Refuse files that end in zeros, by a few looks into each: `write_job` looks at every tensor that it needs."""
    for path in dict.fromkeys(job.path for job in jobs):
        if unwritten(path):
            raise WeightsError(
                f"{path}: the last quarter of the file is zeros, so it was never fully written; get it again, or pass "
                "--allow-zeros if the network is like that"
            )


def write_job(job, folder, dtype, allow_zeros=False):
    """Convert one network into `folder`; returns the report of it."""
    started = time.perf_counter()
    with open_checkpoint(job.path) as checkpoint:

        def refuse_zeros(source, values):
            if not allow_zeros and unwritten_part(values):
                raise WeightsError(
                    f"{job.path}: {source} {values.shape} is zeros in whole or in part, so the file was never fully "
                    "written; get it again, or pass --allow-zeros if the network is like that"
                )

        for source in job.dropped:  # the file is as damaged if what is missing is not needed
            if checkpoint.dtypes[source] in REAL:
                refuse_zeros(source, checkpoint.read(source))

        def loader(target, source, transform):
            def load():
                stored = checkpoint.read(source)
                refuse_zeros(source, stored)
                values = transform.apply(stored)
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
            folder / MODEL_FILE, entries, {"format": OUR_FORMAT, "network": job.family.name, "source": job.path.name}
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


def present(dst):
    """Networks that a folder holds, converted now or before."""
    return [name for name in NETWORKS if all((Path(dst) / name / file).is_file() for file in (MODEL_FILE, CONFIG_FILE))]


def convert(jobs, dst, dtype="fp32", progress=None, allow_zeros=False):
    """Write all jobs under `dst`, or nothing. progress(report) is called after each network; returns all reports.

    allow_zeros: take tensors that look as if they were never written.
    """
    dst = Path(dst)
    if not allow_zeros:
        check_written(jobs)
    try:
        dst.mkdir(parents=True, exist_ok=True)
        staged = Temporary(dst, is_folder=True)
    except OSError as error:
        raise OutputError(f"cannot write in {dst}: {error.strerror}") from error
    with staged as staging:
        reports = []
        for job in jobs:
            reports.append(write_job(job, staging / job.family.name, dtype, allow_zeros))
            if progress:
                progress(reports[-1])
        for job in jobs:
            final = dst / job.family.name
            final.mkdir(exist_ok=True)
            for file in (staging / job.family.name).iterdir():
                os.replace(file, final / file.name)
    return reports
