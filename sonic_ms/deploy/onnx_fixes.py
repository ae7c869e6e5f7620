"""What MindSpore's ONNX exporter gets wrong, put right in the exported model. Each fix has its test.

Measured with MindSpore 2.7.2; the exported file is run and compared with its Cell afterwards, so that a fix that a
later exporter no longer needs would not go unnoticed.
"""

from sonic_ms.errors import OutputError

OPSETS = range(11, 19)  # that ATC reads


def fix_model(model, unit):
    """Apply every fix to an onnx.ModelProto, in place."""
    fix_pads(model)
    drop_tiles(model)
    name_ends(model, unit)
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


def drop_tiles(model):
    """Remove a Tile that repeats sides of 1 only and whose uses are sums and products with a full-sized tensor: ONNX
    operators broadcast by themselves. The Cells tile for MindSpore's CPU only, see portable.spread."""
    graph = model.graph
    shapes = tensor_shapes(model)
    weights = {weight.name for weight in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    uses = {}
    for node in graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    ends = {value.name for value in graph.output}

    def full(name):
        return name not in weights and not (name in made_by and made_by[name].op_type in ("Tile", "Constant"))

    for tile in [node for node in graph.node if node.op_type == "Tile" and node.output[0] not in ends]:
        name = tile.output[0]
        before, after = shapes.get(tile.input[0]), shapes.get(name)
        if not (before and after and all(small in (1, big) for small, big in zip(before, after))):
            continue
        others = [[one for one in node.input if one != name] for node in uses.get(name, ())]
        kinds = {node.op_type for node in uses.get(name, ())}
        if kinds <= {"Add", "Sub", "Mul"} and all(len(other) == 1 and full(other[0]) for other in others):
            for node in uses[name]:
                node.input[:] = [tile.input[0] if one == name else one for one in node.input]
            graph.node.remove(tile)


def tensor_shapes(model):
    """{tensor: static shape} of a model, inferred from a copy without its weights, which may be gigabytes."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = "shapes"
    for field in ("node", "input", "output", "value_info"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    given = {value.name for value in model.graph.input}
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.INT64:  # sides and repeats, which the shapes follow from
            light.graph.initializer.add().CopyFrom(weight)
        elif weight.name not in given:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
            )
    graph = onnx.shape_inference.infer_shapes(light).graph
    return {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def name_ends(model, unit):
    """Give the inputs and outputs of the graph the names of the unit. The exporter can be told them, but then names an
    output that no node has when the last operator is one that it writes as several."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != len(unit.inputs) or len(model.graph.output) != len(unit.outputs):
        raise OutputError(
            f"unit {unit.name}: the exported graph has {len(inputs)} inputs and {len(model.graph.output)} outputs, "
            f"expected {len(unit.inputs)} and {len(unit.outputs)}"
        )
    names = {value.name: tensor.name for value, tensor in zip(inputs, unit.inputs)}
    names |= {value.name: tensor.name for value, tensor in zip(model.graph.output, unit.outputs)}
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)} - set(names)
    clash = {new: f"{new}_inner" for new in names.values() if new in taken or new in weights}
    names = clash | names
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
