"""What can be cut out of a network alone: heads of an attention, inner channels of two layers, groups of a norm.

A Cell that has such units says so in UNITS: (attribute with their number, the weights they are made of). The numbers
that are left are in a network's config (`kept`, see `shrink`); which ones they were is told by the weights alone.
"""

from dataclasses import dataclass, replace

import numpy as np
from mindspore import nn

from sonic_ms.errors import WeightsError
from sonic_ms.nn.portable import GroupNorm


@dataclass(frozen=True)
class Member:
    """Where units lie in a weight: along `axis` (0: outputs, 1: inputs), all of them `repeats` times in a row."""

    name: str
    axis: int
    repeats: int = 1


@dataclass(frozen=True)
class Group:
    """count: units. members: weights they are made of; without its outputs a unit adds nothing to anything."""

    count: int
    members: tuple[Member, ...]


def rows(*names, repeats=1):
    """Members that make the units: outputs of these weights, biases and norms."""
    return tuple(Member(name, 0, repeats) for name in names)


def columns(*names, repeats=1):
    """Members that read the units: inputs of these weights."""
    return tuple(Member(name, 1, repeats) for name in names)


def groups_of(cell):
    """{"layers.0.heads": Group} of every unit in a Cell, named as its parameters are."""
    found = {}
    for path, inner in cell.cells_and_names():
        prefix, units = f"{path}." if path else "", getattr(type(inner), "UNITS", ())
        parameters = {name for name, _ in inner.parameters_and_names()} if units else ()
        for key, members in units:
            own = tuple(replace(m, name=prefix + m.name) for m in members if m.name in parameters)
            found[prefix + key] = Group(_get(inner, key), own)
    for name, members in cell.shared_members().items() if hasattr(cell, "shared_members") else ():
        found[name] = replace(found[name], members=found[name].members + members)
    return found


def _get(cell, path):
    for part in path.split("."):
        cell = getattr(cell, part)
    return cell


def shrink(cell, kept):
    """Give a fresh Cell the sizes of {name of a group: number of its units that are left}. Returns it.

    Raises WeightsError for groups that it does not have.
    """
    groups = groups_of(cell) if kept else {}
    for name, count in kept.items():
        group = groups.get(name)
        if group is None or not 1 <= count <= group.count:
            has = f"1 to {group.count}" if group else f"a group of this network, such as {next(iter(groups))}"
            raise WeightsError(f"kept: {name} is {count}; expected {has}")
        for path, axis in dict.fromkeys((m.name.rpartition(".")[0], m.axis) for m in group.members):
            _resize(cell, path, axis, count, group.count)
        owner, _, attribute = name.rpartition(".")
        setattr(_get(cell, owner) if owner else cell, attribute, count)
    if kept:
        for name, parameter in cell.parameters_and_names():
            parameter.name = name
    return cell


def _resize(cell, path, axis, count, full):
    """Replace a layer by one of count / full of its outputs (axis 0) or inputs."""
    owner, _, attribute = path.rpartition(".")
    owner = _get(cell, owner) if owner else cell
    layer = getattr(owner, attribute)
    if isinstance(layer, GroupNorm):
        made = GroupNorm(layer.groups, layer.weight.shape[0] * count // full, layer.epsilon)
    else:
        outputs, inputs = layer.weight.shape[:2]
        outputs, inputs = (outputs * count // full, inputs) if axis == 0 else (outputs, inputs * count // full)
        if isinstance(layer, nn.Dense):
            made = nn.Dense(inputs, outputs, has_bias=layer.has_bias)
        else:
            made = nn.Conv2d(inputs, outputs, layer.kernel_size, layer.stride, layer.pad_mode, layer.padding,
                             has_bias=layer.has_bias)  # fmt: skip
    setattr(owner, attribute, made)


def take(array, member, group, keep):
    """The part of a weight that belongs to the units with these indices."""
    shape = array.shape
    width = shape[member.axis] // (member.repeats * group.count)
    split = (*shape[: member.axis], member.repeats, group.count, width, *shape[member.axis + 1 :])
    found = np.take(array.reshape(split), keep, member.axis + 1)
    size = member.repeats * len(keep) * width
    return np.ascontiguousarray(found.reshape(*shape[: member.axis], size, *shape[member.axis + 1 :]))
