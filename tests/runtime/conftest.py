"""Tiny bundles for engine tests."""

import pytest

from sonic_ms.deploy.bundle import Bundle, file_entry, unit_entry, write_manifest


@pytest.fixture
def make_bundle(tmp_path):
    """Function (units, {unit: {kind: path, or (path, data paths)}}, **manifest) -> Bundle in tmp_path, as the paths."""

    def make(units, files, **manifest):
        entries = {unit.name: unit_entry(unit) for unit in units}
        for name, kinds in files.items():
            for kind, place in kinds.items():
                path, data = place if isinstance(place, tuple) else (place, ())
                entries[name][kind] = file_entry(tmp_path, path, data)
        content = {"format": 1, "model": "test", "precision": "fp32", "mindspore": "2.7.2", "weights_sha256": "0"}
        write_manifest(tmp_path, {**content, "licence": "none", "gear": {}, "units": entries, **manifest})
        return Bundle.load(tmp_path)

    return make


@pytest.fixture
def write_onnx():
    """Function (path, unit, [(operator, inputs, output, attributes)], {name: weight}) -> path of an ONNX file."""
    import mindspore  # noqa: F401 (before onnx: the other way round, MindSpore does not find its protobuf)
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    types = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}

    def values(tensors):
        return [helper.make_tensor_value_info(one.name, types[one.dtype], one.shape) for one in tensors]

    def write(path, unit, nodes, weights):
        graph = helper.make_graph(
            [helper.make_node(kind, list(inputs), [output], **more) for kind, inputs, output, more in nodes],
            unit.name,
            values(unit.inputs),
            values(unit.outputs),
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), path)
        return path

    return write
