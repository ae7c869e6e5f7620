"""Networks without some of their heads and inner channels: which are the strongest, and a folder without the others.

Of the networks of sonic-base and of sonic-edge's ear. A network that was cut computes what the whole one would with
zeros for the outputs of the units that went. What lies on a path that many layers add to, such as the width of a
transformer, stays as it is: its normalisations mix all channels.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from sonic_ms.edge.units import EDGE_FOLDER
from sonic_ms.errors import OutputError, UsageError
from sonic_ms.files.temporary import Temporary
from sonic_ms.files.weights import MODEL_FILE, TensorFile, load_config, save_config, write_tensors

BASE = ("unet", "clip", "whisper", "audio2token", "audio2bucket")  # networks of sonic-base that have units


def networks_of(folder):
    """{network: (config, {name: nn.groups.Group}, with_kept)} of a model's folder; with_kept: {name: units left} ->
    the config of what is left. Raises UsageError, WeightsError."""
    from sonic_ms.nn.groups import groups_of

    if (folder / "unet").is_dir():
        from sonic_ms.base.cells import empty
        from sonic_ms.base.units import CONFIGS

        configs = {name: load_config(CONFIGS[name], folder / name) for name in BASE}
        return {
            name: (config, groups_of(empty(config, name)), lambda kept, config=config: replace(config, kept=kept))
            for name, config in configs.items()
        }
    from sonic_ms.edge.audio_encoder import AudioEncoder
    from sonic_ms.edge.units import audio_config

    config = audio_config(folder)
    return {"audio": (config, groups_of(AudioEncoder(config)), lambda kept: _edge_kept(config, kept))}


def _edge_kept(config, kept):
    names = {name.removeprefix("whisper."): count for name, count in kept.items()}
    return replace(config, whisper=replace(config.whisper, kept=names))


def strength(read, group):
    """How much each unit matters, (count,): the L1 norm of its weights on the way in times that on the way out, each
    relative to the mean. read: name -> array."""
    total = np.ones(group.count)
    for axis in (0, 1):
        sums = np.zeros(group.count)
        for member in group.members:
            array = np.abs(np.asarray(read(member.name), np.float32))
            if member.axis == axis and array.ndim > 1:
                split = np.moveaxis(array, axis, 0).reshape(member.repeats, group.count, -1)
                sums += split.sum((0, 2))
        total *= sums / max(sums.mean(), 1e-12)
    return total


def choose(read, groups, share, rng=None):
    """{name: indices, ascending} of the share of units of every group that stay: the strongest, or random ones."""
    keep = {}
    for name, group in groups.items():
        order = rng.permutation(group.count) if rng else np.argsort(-strength(read, group), kind="stable")
        keep[name] = np.sort(order[: max(1, round(share * group.count))])
    return keep


def cutter(groups, keep):
    """Function (name of a weight, array) -> the array without the units that are not kept."""
    from sonic_ms.nn.groups import take

    parts = {}
    for name, indices in keep.items():
        for member in groups[name].members:
            parts.setdefault(member.name, []).append((member, groups[name], indices))

    def cut(name, array):
        for member, group, indices in parts.get(name, ()):
            array = take(array, member, group, indices)
        return array

    return cut


def masked(groups, keep, tensors):
    """{name: array} with zeros for the outputs of the units that are not kept: what a cut network has to compute."""
    found = dict(tensors)
    for name, indices in keep.items():
        group, gone = groups[name], np.ones(groups[name].count, bool)
        gone[indices] = False
        for member in group.members:
            if member.axis == 0:
                array = found[member.name]
                split = array.reshape(member.repeats, group.count, -1)
                found[member.name] = np.where(gone[None, :, None], 0, split).reshape(array.shape).astype(array.dtype)
    return found


def cut_folder(model, out, share, seed=None):
    """Write a model of which every group of heads and of inner channels keeps a share; {"weights", "before"}.

    seed: keep random units instead of the strongest. Raises UsageError, WeightsError, OutputError.
    """
    folder, out = EDGE_FOLDER if model == "shipped" else Path(model), Path(out)
    if not 0 < share <= 1:
        raise UsageError(f"--keep is {share}; expected a share above 0, at most 1")
    if out.exists():
        raise OutputError(f"{out} exists; choose another --out")
    rng, total, before = None if seed is None else np.random.default_rng(seed), 0, 0
    networks = networks_of(folder)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Temporary(out.parent, is_folder=True) as part:
            ignore = shutil.ignore_patterns(MODEL_FILE, "graphs")
            shutil.copytree(folder, part, ignore=ignore, dirs_exist_ok=True)
            for place in folder.glob(f"*/{MODEL_FILE}"):
                if place.parent.name not in networks:
                    shutil.copy(place, part / place.relative_to(folder))
            for name, (_, groups, with_kept) in networks.items():
                with TensorFile(folder / name / MODEL_FILE) as file:
                    keep = choose(file.read, groups, share, rng)
                    sizes = write_cut(file, cutter(groups, keep), part / name / MODEL_FILE)
                save_config(with_kept({one: len(indices) for one, indices in keep.items()}), part / name)
                total, before = total + sizes[0], before + sizes[1]
            part.rename(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from error
    return {"weights": total, "before": before}


def write_cut(file, cut, path):
    """Write what a cutter leaves of a TensorFile, one tensor in memory at a time; (numbers written, numbers read)."""

    def load(name):
        return cut(name, file.read_raw(name))

    shapes = {name: load(name).shape for name in file.shapes}
    entries = [(name, file.dtypes[name], shape, lambda name=name: load(name)) for name, shape in shapes.items()]
    write_tensors(path, entries, file.metadata)
    return sum(int(np.prod(s)) for s in shapes.values()), sum(int(np.prod(s)) for s in file.shapes.values())
