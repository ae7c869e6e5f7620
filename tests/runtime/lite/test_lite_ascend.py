"""The lite engine for Ascend, against the double in tests/lite_double; never run on a device."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.errors import EngineError, WeightsError
from sonic_ms.runtime.choose import open_engine
from sonic_ms.runtime.unit import Tensor, Unit

pytestmark = [pytest.mark.needs("lite")]

DOUBLE = Path(__file__).parents[2] / "support" / "lite_double"


class TestAscend:
    """The same code on target ascend, against the double."""

    UNIT = Unit("twice", (Tensor("x", (2, 3)), Tensor("y", (2, 3))), (Tensor("z", (2, 3)),), None)

    @pytest.fixture
    def start(self, monkeypatch, make_bundle, tmp_path):
        """Function (kinds, inputs of the graph, mind_ir_version, **manifest) -> engine."""
        monkeypatch.setenv("SONIC_MS_LITE_PYTHON", sys.executable)
        monkeypatch.setenv("SONIC_MS_LITE_TARGET", "ascend")
        monkeypatch.setenv("PYTHONPATH", str(DOUBLE))
        engines = []

        def run(kinds=("mindir",), inputs=None, version=3, shape=(2, 3), dtype="float32", **manifest):
            inputs = inputs or [["x", shape, dtype], ["y", shape, dtype]]
            for kind in kinds:
                path = tmp_path / f"{kind}.mindir"
                # ModelProto: field 12, a primitive whose field 2 is "MatMul"; field 13, the version
                path.write_bytes(b"\x62\x08\x12\x06MatMul" + bytes([0x68, version]))
                graph = {"inputs": inputs, "outputs": [["out", shape, dtype]], "doubles": 0}
                path.with_name(path.name + ".json").write_text(json.dumps(graph))
            files = {"twice": {kind: tmp_path / f"{kind}.mindir" for kind in kinds}}
            engines.append(open_engine("lite", make_bundle((self.UNIT,), files, **manifest)))
            return engines[-1]

        yield run
        for engine in engines:
            engine.close()

    X, Y = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32)

    def check(self, engine):
        for x in (self.X, self.X + 1):
            np.testing.assert_allclose(engine.run("twice", {"x": x, "y": self.Y})["z"], 2 * x)

    def loaded(self, tmp_path):
        return json.loads((tmp_path / "loaded.json").read_text())

    def test_our_mindir(self, start, tmp_path, monkeypatch):
        monkeypatch.setenv("SONIC_MS_DEVICE_ID", "2")
        engine = start()
        self.check(engine)
        assert self.loaded(tmp_path) == ["mindir.mindir", "preferred_fp32", 2]
        assert engine.info() == {"engine": "lite", "version": "2.7.0", "device": "Ascend 2", "graphs": "MINDIR"}

    def test_the_converters_mindir_comes_first(self, start, tmp_path):
        self.check(start(kinds=("mindir", "lite")))
        assert self.loaded(tmp_path)[0] == "lite.mindir"

    def test_a_half_precision_bundle(self, start, tmp_path):
        self.check(start(precision="fp16"))
        assert self.loaded(tmp_path)[1] == "enforce_origin"

    def test_a_graph_compiled_to_half_precision_inputs(self, start):
        self.check(start(dtype="float16"))

    def test_inputs_go_by_name(self, start):
        engine = start(inputs=[["y", (2, 3), "float32"], ["x", (2, 3), "float32"]])
        np.testing.assert_allclose(engine.run("twice", {"x": self.X, "y": self.Y})["z"], 2 * self.Y)

    def test_inputs_go_by_order_when_the_names_were_lost(self, start):
        self.check(start(inputs=[["p0", (2, 3), "float32"], ["p1", (2, 3), "float32"]]))

    def test_other_shapes_are_refused_when_loading(self, start):
        with pytest.raises(
            EngineError, match=r"the graph has inputs \[\(\[3, 2\], 'float'\), .* the unit \[\(\[2, 3\]"
        ):
            start(shape=(3, 2)).prepare("twice")

    def test_another_number_of_inputs_is_refused(self, start):
        with pytest.raises(EngineError, match=r"the graph has inputs \[\(\[2, 3\], 'float'\)\], the unit"):
            start(inputs=[["x", (2, 3), "float32"]]).prepare("twice")

    def test_integers_are_not_taken_for_floats(self, start):
        with pytest.raises(EngineError, match=r"failed to load twice .* the graph has inputs .*'int'"):
            start(dtype="int32").prepare("twice")

    def test_a_lite_too_old_for_our_mindir(self, start, monkeypatch):
        monkeypatch.setenv("LITE_DOUBLE_VERSION", "2.0.0")
        with pytest.raises(EngineError, match=r"MindSpore Lite 2.0.0 cannot read MINDIR of MindSpore 2.7 and newer"):
            start().prepare("twice")

    def test_a_mindir_version_nobody_knows(self, start):
        with pytest.raises(EngineError, match="has mind_ir_version 4, known are 1 to 3"):
            start(version=4).prepare("twice")

    def test_a_newer_exporter_than_lite_is_a_warning(self, start):
        with pytest.warns(UserWarning, match=r"comes from MindSpore 2.8.0, Lite is 2.7.0"):
            self.check(start(mindspore="2.8.0"))

    def test_a_bundle_without_mindir(self, start):
        with pytest.raises(WeightsError, match="has no mindir of twice"):
            start(kinds=()).prepare("twice")

    def test_an_unknown_target(self, start, monkeypatch):
        monkeypatch.setenv("SONIC_MS_LITE_TARGET", "gpu")
        with pytest.raises(EngineError, match="SONIC_MS_LITE_TARGET is 'gpu'; expected one of cpu, ascend"):
            start()
