"""What MindSpore's ONNX exporter gets wrong, put right in the exported model. Each fix has its test.

Measured with MindSpore 2.7.2; the exported file is run and compared with its Cell afterwards, so that a fix that a
later exporter no longer needs would not go unnoticed.
"""

from sonic_ms.errors import OutputError

OPSETS = range(11, 19)  # that ATC reads


def fix_model(model, unit):
    """Apply every fix to an onnx.ModelProto, in place."""
    fix_pads(model)
    version = model.opset_import[0].version
    if version not in OPSETS:
        raise OutputError(f"unit {unit.name}: exported with ONNX opset {version}; ATC reads 11 to 18")


def fix_pads(model):
    """Conv pads: MindSpore writes (top, bottom, left, right), ONNX means (top, left, bottom, right)."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Conv" and attribute.name == "pads" and len(attribute.ints) == 4:
                top, bottom, left, right = attribute.ints
                attribute.ints[:] = [top, left, bottom, right]
