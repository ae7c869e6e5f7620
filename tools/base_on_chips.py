"""Units x chips and predicted speed of sonic-base at its published size, without its weights.

    python tools/base_on_chips.py [WIDTHxHEIGHT [FRAMES]]     # FRAMES the decoder takes at once, default 8

Prints the tables of docs/ascend.md as Markdown, in about four minutes. The graphs are exported in float16 with random
weights and never run. The UNet is too big for MindSpore's ONNX exporter (2 GB): it is exported with a fifth and two
fifths of its channels and heads, and since every side of every tensor is a straight line over that factor, the sides at
full width follow.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from sonic_ms.ascend.facts import FAMILIES, default_soc, find_chip
from sonic_ms.ascend.graph import read_onnx
from sonic_ms.ascend.lint import format_markdown, lint_unit
from sonic_ms.ascend.roofline import calls_per_second, format_prediction, predict, unit_cost
from sonic_ms.base_check import PUBLISHED, randomise
from sonic_ms.onnx_fixes import fix_model
from sonic_ms.samples import sample_inputs
from sonic_ms.units import BaseGear, base_units

PARTS = 5  # the UNet's widths are multiples of its fifth


def published_units(gear, unet_parts=PARTS):
    """{name: Unit} in float16 with random weights; the UNet has unet_parts / PARTS of its channels and heads."""
    from mindspore import nn

    from sonic_ms.base_units import CELLS
    from sonic_ms.models.unet import MAX_SCORES
    from sonic_ms.weights import set_precision

    unet = PUBLISHED["unet"]
    narrow = replace(
        unet,
        block_out_channels=tuple(n * unet_parts // PARTS for n in unet.block_out_channels),
        num_attention_heads=tuple(n * unet_parts // PARTS for n in unet.num_attention_heads),
    )
    configs = PUBLISHED | {"unet": narrow}

    def build(network, part, *size):
        if network == "unet":  # attention in as many slices as at full width
            size = (MAX_SCORES * unet_parts // PARTS,)
        with nn.utils.no_init_parameters():
            cell = CELLS[network](configs[network], *size).set_train(False)
        return randomise(set_precision(getattr(cell, part) if part else cell, "fp16"))

    return base_units(configs, gear, build, "fp16")


def export_graph(unit, folder):
    """graph.Graph of a unit, by way of an ONNX file that is not kept."""
    import onnx

    from sonic_ms.runtime.mindspore import start

    ms = start()
    path = Path(folder) / f"{unit.name}.onnx"
    inputs = [ms.Tensor(array) for array in sample_inputs(unit).values()]
    ms.export(unit.build(), *inputs, file_name=str(path), file_format="ONNX")
    model = onnx.load(path)
    fix_model(model, unit)
    onnx.save_model(model, path)
    graph = read_onnx(path)
    path.unlink()
    return graph


def extrapolate(one, two, parts):
    """Graph `parts` times as wide as `one`; `two` is twice as wide as it. Raises ValueError when they differ in more
    than their sizes."""
    if [node.op for node in one.nodes] != [node.op for node in two.nodes]:
        raise ValueError("the two graphs are not the same but for their sizes")
    pairs = [pair for a, b in zip(one.nodes, two.nodes) for pair in zip(a.inputs + a.outputs, b.inputs + b.outputs)]
    twins = dict(zip(one.inputs + one.outputs, two.inputs + two.outputs)) | dict(pairs)  # constants differ in name
    if any(twins[a] != b for a, b in pairs):
        raise ValueError("the two graphs are not wired alike")
    shapes = {}
    for name, twin in twins.items():
        if name in one.shapes:
            shapes[name] = tuple(a + (b - a) * (parts - 1) for a, b in zip(one.shapes[name], two.shapes[twin]))
    return replace(one, shapes=shapes, constants=one.constants & set(shapes))


def main(size="512x512", chunk=BaseGear.chunk):
    width, height = map(int, size.split("x"))
    gear = BaseGear(height, width, int(chunk))
    units = published_units(gear)
    graphs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, unit in units.items():
            print(f"exporting {name}", file=sys.stderr, flush=True)
            if name == "unet":
                pair = [export_graph(published_units(gear, parts)[name], folder) for parts in (1, 2)]
                graphs[name] = extrapolate(*pair, PARTS)
            else:
                graphs[name] = export_graph(unit, folder)
    chips = [find_chip(default_soc(family)) for family in FAMILIES]
    print(f"sonic-base, {width}x{height}, {gear.chunk} frames a chunk, float16:\n")
    print(
        format_markdown([lint_unit(units[name], graph, None, chip) for name, graph in graphs.items() for chip in chips])
    )
    print()
    costs = {name: (count, unit_cost(graphs[name])) for name, count in calls_per_second(units).items()}
    print(format_prediction(predict(costs), costs))


if __name__ == "__main__":
    main(*sys.argv[1:3])
