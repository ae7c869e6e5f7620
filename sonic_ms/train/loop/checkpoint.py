"""Checkpoints of a running training: complete, atomic, two of them, and tied to their configuration.

<folder>/checkpoints/<step>/rank<k>.safetensors holds the tensors of device k; its metadata the host's state and the
configuration as JSON. A checkpoint counts when the files of all devices are there and sound, so a training that was
killed while saving goes on from the one before.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from sonic_ms.errors import InputMissingError, OutputError, UsageError, WeightsError, printable, short
from sonic_ms.files.config import from_dict
from sonic_ms.files.reading import parse_json
from sonic_ms.files.weights import TensorFile, summary, write_tensors

FOLDER = "checkpoints"
KEPT = 2


def places(folder):
    """Folders of the checkpoints, newest first."""
    found = [path for path in (Path(folder) / FOLDER).glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: -int(path.name))


def save(folder, step, group, tensors, state, identity):
    """Write the checkpoint of this device after `step` steps. tensors {name: Parameter}; state: fields of State;
    identity: JSON values.

    The older checkpoints go once this one is written; on a full disk they stay, and OutputError says so.
    """
    place = Path(folder) / FOLDER / f"{step:08d}"
    entries = [(name, "F32", tuple(tensor.shape), tensor.asnumpy) for name, tensor in tensors.items()]
    metadata = {"step": step, "devices": group.size, "state": json.dumps(state), "identity": json.dumps(identity)}
    try:
        write_tensors(place / f"rank{group.rank}.safetensors", entries, metadata)
    except OutputError as error:
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
        kept = [path.name.lstrip("0") or "0" for path in places(folder) if path != place]
        raise OutputError(f"{error}; kept: {f'the checkpoint of step {kept[0]}' if kept else 'nothing yet'}") from error
    if group.rank == 0:
        for old in places(folder)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class State:
    """What the host knows besides tensors: the loss scale, good steps with it, losses since the last row of the log,
    steps left out, seconds spent."""

    scale: float = 1.0
    good: int = 0
    recent: tuple[float, ...] = ()
    skipped: int = 0
    seconds: float = 0.0


def load(folder, group, tensors, identity):
    """Read the newest complete checkpoint into the Parameters `tensors`; returns (step, State, notes).

    UsageError when there is none or when `identity` differs from what the training began with, WeightsError when none
    can be read.
    """
    notes = []
    for place in places(folder):
        try:
            devices, state, began = _header(place, group.rank)
            _same(identity, began, devices, group.size)
            with TensorFile(place / f"rank{group.rank}.safetensors") as file:
                _fill(file, tensors)
            return int(place.name), state, notes
        except (WeightsError, InputMissingError) as error:
            notes.append(f"the checkpoint of step {int(place.name)} is not usable ({error}); taking the one before")
    if notes:
        raise WeightsError(f"nothing to resume in {folder}: {notes[0].removesuffix('; taking the one before')}")
    raise UsageError(f"nothing to resume in {folder}: no checkpoint there; start without --resume")


def _header(place, own):
    """(devices, State of rank `own`, identity), after the files of all devices were opened and checked."""
    headers = []
    while not headers or len(headers) < headers[0][0]:
        with TensorFile(place / f"rank{len(headers)}.safetensors") as file:
            headers.append(_read_metadata(file, int(place.name)))
        if headers[-1][0] != headers[0][0]:
            raise WeightsError(f"{file.path} is of {headers[-1][0]} devices, the first of {headers[0][0]}")
    return headers[own] if own < len(headers) else headers[0]  # fewer than now: `_same` says so


def _read_metadata(file, step):
    """(devices, State, identity) of one file, which has to be of this step."""
    damaged = f"{file.path}: the metadata of the checkpoint is damaged"
    then, devices, state, identity = (file.metadata.get(key, "") for key in ("step", "devices", "state", "identity"))
    if then != str(step) or not re.fullmatch(r"[1-9][0-9]{0,5}", devices):
        raise WeightsError(f"{damaged} (step {short(then)}, devices {short(devices)})")
    state = from_dict(State, parse_json(state, damaged), f"{file.path}: state", WeightsError)
    counts = (state.good, state.skipped, state.seconds)
    if min(counts) < 0 or state.scale <= 0 or not np.isfinite([state.scale, state.seconds, *state.recent]).all():
        raise WeightsError(f"{damaged} (state {short(state)})")
    identity = parse_json(identity, damaged)
    if not isinstance(identity, dict):
        raise WeightsError(f"{damaged} (identity {short(identity)})")
    return int(devices), state, identity


def _same(now, then, devices_then, devices):
    if devices != devices_then:
        raise UsageError(f"cannot resume: it began on {devices_then} devices, now there are {devices}")
    changed = [
        f"{printable(name)} is {short(now.get(name))}, it began with {short(then.get(name))}"
        for name in sorted(set(now) | set(then))
        if json.loads(json.dumps(now.get(name))) != then.get(name)
    ]
    if changed:
        raise UsageError(f"cannot resume with a changed configuration: {summary(changed)}; start another --out")


def _fill(file, tensors):
    def fits(name, tensor):
        return file.shapes.get(name) == tuple(tensor.shape) and file.dtypes[name] == "F32"

    wrong = [name for name, tensor in tensors.items() if not fits(name, tensor)]
    wrong += [name for name in file.shapes if name not in tensors]
    if wrong:
        raise WeightsError(f"{file.path} is of another network: {summary(wrong)}")
    for name, tensor in tensors.items():
        values = file.read(name)
        if not np.isfinite(values).all():
            raise WeightsError(f"{file.path} holds values that are not finite: {name}")
        ms.ops.assign(tensor, ms.Tensor(np.ascontiguousarray(values)))
