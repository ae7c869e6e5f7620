"""What can be cut out of each network, at its published size: a table in Markdown. No weights are read or made.

python -m bench.small_units
"""

import numpy as np

from sonic_ms.base.check import PUBLISHED
from sonic_ms.edge.units import audio_config
from sonic_ms.runtime.ms import start

KINDS = {"heads": "heads", "inner": "inner channels", "first": "inner channels", "second": "inner channels",
         "groups": "groups of norms"}  # fmt: skip


def networks():
    """Yield (network, Cell whose parameters have shapes alone)."""
    from sonic_ms.base.cells import empty
    from sonic_ms.edge.audio_encoder import AudioEncoder
    from sonic_ms.small.network import BASE

    yield "ear of sonic-edge", AudioEncoder(audio_config())
    for name in BASE:
        yield name, empty(PUBLISHED[name], name)


def main():
    start()
    from sonic_ms.nn.groups import groups_of

    print("| network | weights | units, in how many layers | weights of units |\n|---|---|---|---|")
    for name, cell in networks():
        sizes = {one: int(np.prod(parameter.shape)) for one, parameter in cell.parameters_and_names()}
        groups = groups_of(cell)
        counts = {}
        for one, group in groups.items():
            layers, units = counts.get(kind := KINDS[one.rpartition(".")[2]], (0, 0))
            counts[kind] = (layers + 1, units + group.count)
        told = ", ".join(f"{units:,} {kind} in {layers}" for kind, (layers, units) in counts.items())
        members = {member.name for group in groups.values() for member in group.members}
        share = sum(sizes[one] for one in members) / sum(sizes.values())
        print(f"| {name} | {sum(sizes.values()) / 1e6:,.1f} M | {told} | {share:.0%} |")


if __name__ == "__main__":
    main()
