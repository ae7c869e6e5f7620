"""Write the graphs that ship with sonic-edge, without their weights: python -m bench.make_graphs [SIDE ...]

They are what `sonic-ms export --format onnx` writes, but for two things: every initializer that is a parameter of the
model is left out and taken from model.safetensors when the graph is opened (sonic_ms/edge/shipped.py), and texels are
looked up by another operator, which gives the same and is faster in onnxruntime. To be run again
after a change of a Cell of sonic-edge; tests/deploy/test_edge_bundle.py finds that it was forgotten.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx

from sonic_ms.deploy.export import export
from sonic_ms.edge.shipped import GRAPHS, weights_of
from sonic_ms.edge.units import EDGE_FOLDER, EDGE_SIDES, LIVE_SIDES, edge_units
from sonic_ms.pipeline import unit_table


def main():
    names = {name for unit in ("edge_audio", "edge_render") for name in weights_of(EDGE_FOLDER, unit)}
    GRAPHS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        sides = [int(side) for side in sys.argv[1:]]
        units = edge_units(sides=sides or EDGE_SIDES, live=[side for side in LIVE_SIDES if not sides or side in sides])
        table = replace(unit_table("sonic-edge"), units=units)
        bundle = export(table, Path(scratch) / "bundle", ("onnx",), "fp32")
        for unit in bundle.units:
            model = onnx.load(bundle.path(unit, "onnx"))
            for weight in model.graph.initializer:
                if weight.name in names:
                    leave_out(weight)
            for node in model.graph.node:
                if node.op_type == "Gather" and node.input[0] == "texture":
                    node.op_type = "GatherElements"  # 0.4 ms for 512x512 texels instead of 3.4
            onnx.save_model(model, GRAPHS / f"{unit}.onnx")


def leave_out(weight):
    """Shape and type stay, the values are to come from elsewhere."""
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="model.safetensors")


if __name__ == "__main__":
    sys.exit(main())
