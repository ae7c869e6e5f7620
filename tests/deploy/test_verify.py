"""`sonic-ms verify` finds an engine that computes something else."""

import json

import numpy as np
import pytest

from sonic_ms.cli import main
from sonic_ms.deploy import verify as verify_module
from sonic_ms.deploy.verify import format_rows, verify
from sonic_ms.errors import EngineError, UsageError
from sonic_ms.runtime.choose import check_engine, open_engine
from sonic_ms.runtime.unit import normal_inputs

pytestmark = [pytest.mark.slow]


class Altered:
    """onnxruntime, but one output a little off, and one unit that fails."""

    def __init__(self, bundle):
        self._engine = open_engine("onnxruntime", bundle)

    def run(self, unit, inputs):
        if unit == "stacked":
            raise EngineError("out of order")
        outputs = self._engine.run(unit, inputs)
        return {name: array * np.float32(1 + 1e-4) for name, array in outputs.items()}

    def close(self):
        self._engine.close()


def test_engines_that_agree(toys):
    rows = verify(toys, ["mindspore", "onnxruntime"], normal_inputs)
    assert {(row["unit"], row["engine"], row["output"]) for row in rows} == {
        (unit, engine, output)
        for engine in ("mindspore", "onnxruntime")
        for unit, output in (("padded", "map"), ("stacked", "both"), ("stacked", "product"))
    }
    assert all(row["passed"] and row["relative_l2"] < 1e-6 for row in rows)


def test_an_engine_that_does_not(toys):
    def altered(name, bundle):
        return Altered(bundle) if name == "onnxruntime" else open_engine(name, bundle)

    rows = verify(toys, ["onnxruntime"], normal_inputs, open_engine=altered)
    assert [(row["unit"], row["passed"]) for row in rows] == [("padded", False), ("stacked", False)]
    assert rows[0]["relative_l2"] == pytest.approx(1e-4, rel=0.01)
    assert "out of order" in format_rows(rows) and format_rows(rows).count("**FAIL**") == 2


def test_command_line(toys, tmp_path, capsys):
    code = main(["verify", str(toys.folder), "--units", "padded", "--json", str(tmp_path / "rows.json")])
    assert code == 0
    assert capsys.readouterr().out.count("| pass |") == 2
    assert {row["unit"] for row in json.loads((tmp_path / "rows.json").read_text())} == {"padded"}
    assert main(["verify", str(toys.folder), "--units", "nothing"]) != 0


def test_command_line_fails_when_an_engine_differs(toys, monkeypatch):
    monkeypatch.setitem(verify_module.BARS["fp32"], "onnxruntime", -1.0)
    assert main(["verify", str(toys.folder)]) != 0


def test_names_of_engines(toys):
    with pytest.raises(UsageError, match="not known"):
        open_engine("tensorflow", toys)
    with pytest.raises(EngineError, match="--bundle"):
        check_engine("onnxruntime", ("auto", "mindspore"))
    with pytest.raises(EngineError, match="inputs"):
        open_engine("onnxruntime", toys).run("padded", {})
    with pytest.raises(EngineError, match=r"expected float32 \(1, 2, 8, 6\)"):
        open_engine("mindspore", toys).run("padded", {"image": np.zeros((1, 2, 6, 8), np.float32)})
