"""Checkpoints of a running training: complete, atomic, two of them, and tied to their configuration.

<folder>/checkpoints/<step>/rank<k>.safetensors holds the tensors of device k; its metadata the host's state and the
configuration as JSON. A checkpoint counts when the files of all devices are there and sound, so a training that was
killed while saving goes on from the one before.
"""

import json
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np

from sonic_ms.errors import InputMissingError, OutputError, UsageError, WeightsError
from sonic_ms.files.weights import TensorFile, summary, write_tensors

FOLDER = "checkpoints"
KEPT = 2


def places(folder):
    """Folders of the checkpoints, newest first."""
    found = [path for path in (Path(folder) / FOLDER).glob("*") if path.name.isdigit() and path.is_dir()]
    return sorted(found, key=lambda path: -int(path.name))


def save(folder, step, group, tensors, state, identity):
    """Write the checkpoint of this device after `step` steps. tensors {name: Parameter}; state, identity: JSON values.

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


def load(folder, group, tensors, identity):
    """Read the newest complete checkpoint into the Parameters `tensors`; returns (step, state, notes).

    UsageError when there is none or when `identity` differs from what the training began with.
    """
    notes = []
    for place in places(folder):
        try:
            header = _metadata(place)
        except (WeightsError, InputMissingError, KeyError, ValueError) as error:
            notes.append(f"the checkpoint of step {int(place.name)} is not usable ({error}); taking the one before")
            continue
        _same(identity, json.loads(header["identity"]), int(header["devices"]), group.size)
        with TensorFile(place / f"rank{group.rank}.safetensors") as file:
            _fill(file, tensors)
            return int(header["step"]), json.loads(file.metadata["state"]), notes
    raise UsageError(f"nothing to resume in {folder}: no checkpoint there; start without --resume")


def _metadata(place):
    """Metadata of rank 0, after the files of all devices were opened and checked."""
    with TensorFile(place / "rank0.safetensors") as file:
        header = file.metadata
    for rank in range(1, int(header["devices"])):
        with TensorFile(place / f"rank{rank}.safetensors") as file:
            if file.metadata["step"] != header["step"]:
                raise WeightsError(f"{file.path} is of another step")
    return header


def _same(now, then, devices_then, devices):
    if devices != devices_then:
        raise UsageError(f"cannot resume: it began on {devices_then} devices, now there are {devices}")
    changed = [
        f"{name} is {now.get(name)!r}, it began with {then.get(name)!r}"
        for name in sorted(set(now) | set(then))
        if json.loads(json.dumps(now.get(name))) != then.get(name)
    ]
    if changed:
        raise UsageError(f"cannot resume with a changed configuration: {'; '.join(changed)}; start another --out")


def _fill(file, tensors):
    wrong = [name for name, tensor in tensors.items() if file.shapes.get(name) != tuple(tensor.shape)]
    wrong += [name for name in file.shapes if name not in tensors]
    if wrong:
        raise WeightsError(f"{file.path} is of another network: {summary(wrong)}")
    for name, tensor in tensors.items():
        values = ms.Tensor(np.ascontiguousarray(file.read(name)))
        ms.ops.assign(tensor, values)
