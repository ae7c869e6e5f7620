"""Units x chips and predicted speed of sonic-base at its published size, without its weights.

    python -m bench.base_on_chips [WIDTHxHEIGHT [FRAMES]]     # FRAMES the decoder takes at once, default 8

Prints the tables of docs/measured/ascend.md as Markdown. The graphs are exported in float16 with random weights and
never run. With the graphs of the feature caches the UNet is exported three times. Needs 8 GB of memory, 6 GB of disk
and some minutes.
"""

import sys
import tempfile
from pathlib import Path

from sonic_ms.ascend.facts import FAMILIES, default_soc, find_chip
from sonic_ms.ascend.graph import read_onnx
from sonic_ms.ascend.lint import format_markdown, lint_unit
from sonic_ms.ascend.roofline import (
    calls_per_second,
    cheaper_calls,
    format_cheaper,
    format_prediction,
    predict,
    unit_cost,
)
from sonic_ms.base.check import PUBLISHED, randomise
from sonic_ms.base.graphs import sample_inputs
from sonic_ms.base.units import CACHE_BRANCHES, BaseGear, base_units
from sonic_ms.deploy.export import write_onnx


def published_units(gear):
    """{name: Unit} in float16 with random weights."""
    from sonic_ms.base import cells

    def build(network, part, *size):
        return randomise(cells.empty(PUBLISHED[network], network, part, *size, precision="fp16"))

    return base_units(PUBLISHED, gear, build, "fp16")


def export_graph(unit):
    """graph.Graph of a unit, by way of ONNX files that are not kept."""
    from sonic_ms.runtime.ms import start

    ms = start()
    inputs = [ms.Tensor(array) for array in sample_inputs(unit).values()]
    with tempfile.TemporaryDirectory() as folder:
        return read_onnx(write_onnx(ms, unit.build(), inputs, unit, Path(folder))[0])


def main(size="512x512", chunk=BaseGear.chunk):
    width, height = map(int, size.split("x"))
    gear = BaseGear(height, width, int(chunk), cache_branches=CACHE_BRANCHES)
    units = published_units(gear)
    graphs = {}
    for name, unit in units.items():
        print(f"exporting {name}", file=sys.stderr, flush=True)
        graphs[name] = export_graph(unit)
    chips = [find_chip(default_soc(family)) for family in FAMILIES]
    print(f"sonic-base, {width}x{height}, {gear.chunk} frames a chunk, float16:\n")
    print(
        format_markdown([lint_unit(units[name], graph, None, chip) for name, graph in graphs.items() for chip in chips])
    )
    print()
    each = {name: unit_cost(graph) for name, graph in graphs.items()}
    costs = {name: (count, each[name]) for name, count in calls_per_second(units).items()}
    print(format_prediction(predict(costs), costs))
    ways = {
        way: {name: (count, each[name]) for name, count in calls.items()} for way, calls in cheaper_calls(units).items()
    }
    print(format_cheaper(costs, ways))


if __name__ == "__main__":
    main(*sys.argv[1:3])
