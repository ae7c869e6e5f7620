"""`sonic-ms lint`: verdicts on a bundle, as text and as a table."""

import json

import numpy as np
import onnx
import pytest

from sonic_ms.ascend.lint import FITS, format_markdown, lint_bundle
from sonic_ms.ascend.rules import NEVER
from sonic_ms.cli import main
from sonic_ms.deploy.bundle import Bundle
from sonic_ms.errors import UsageError
from tests.support.ascend_toys import conv_model, model, node, write_bundle


def prelu_model():
    weight = np.ones((2, 1, 1), np.float32)
    return model([node("PRelu", "x w", "y")], {"x": (1, 2, 4, 4)}, {"y": (1, 2, 4, 4)}, {"w": weight})


def onnx_bundle(folder, models):
    """Bundle without MINDIR."""
    write_bundle(folder, models)
    manifest = json.loads((folder / "manifest.json").read_text())
    for unit in manifest["units"].values():
        del unit["mindir"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.load(folder)


@pytest.fixture
def bundle(tmp_path):
    return onnx_bundle(tmp_path / "bundle", {"good": conv_model(), "bad": prelu_model()})


def test_verdicts_for_every_family(bundle):
    verdicts = {(one.unit, one.soc): one.verdict for one in lint_bundle(bundle)}
    assert len(verdicts) == 10
    assert [pair for pair, verdict in verdicts.items() if verdict != FITS] == [("bad", "Ascend310B4")]


def test_table_and_reasons(bundle, capsys):
    assert main(["lint", str(bundle.folder), "--markdown"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "| unit | GB | Ascend310 | Ascend310B4 | Ascend310P3 | Ascend910A | Ascend910B3 |"
    assert lines[3] == "| bad | 0.000 | fits | does not fit | fits | fits | fits |"
    assert lines[-1].startswith("- bad, Ascend310B4: PRelu (the_PRelu_y): PRelu is x on 310B")
    assert "9 of 10 fit, by the conditions known without CANN" in err


def test_text_names_the_rule(bundle, capsys):
    assert main(["lint", str(bundle.folder), "--soc", "Ascend310B4"]) == 0
    assert "does not fit: [operator] PRelu" in capsys.readouterr().out


def test_flags_of_the_build_are_linted(bundle, capsys):
    assert main(["lint", str(bundle.folder), "--soc", "Ascend310P3", "--precision", "bf16"]) == 0
    assert capsys.readouterr().out.count("[flags] precision mode allow_mix_precision_bf16: Ascend310P3 has no") == 2
    flag = ["--atc-flag", "model=a.mindir"]
    assert main(["lint", str(bundle.folder), "--soc", "Ascend310P3", *flag]) == 0
    assert "ATC never reads MINDIR" in capsys.readouterr().out
    with pytest.raises(UsageError, match="precision 'int8'"):
        lint_bundle(bundle, precision="int8")


def test_chips_that_are_refused(bundle, capsys):
    assert main(["lint", str(bundle.folder), "--soc", "Ascend910B"]) == 2
    assert "first-generation 910" in capsys.readouterr().err
    assert main(["lint", str(bundle.folder), "--soc", "Ascend310", "--cann", "8.5"]) == 2
    assert "gone from CANN 8.5" in capsys.readouterr().err


def test_memory_of_the_board(bundle):
    (one, _) = lint_bundle(bundle, ["Ascend310B4"], memory_gb=1.5)
    assert one.verdict == NEVER and one.findings[0].rule == "memory"


@pytest.mark.parametrize(("side", "change"), [("inputs", {"name": "z"}), ("outputs", {"shape": [1, 4, 8, 7]}),
                                              ("inputs", {"dtype": "float16"})])  # fmt: skip
def test_graph_and_manifest_must_agree(bundle, side, change):
    bundle.manifest["units"]["good"][side][0].update(change)
    verdict = lint_bundle(Bundle(bundle.folder, bundle.manifest), ["Ascend310P3"])[0]
    assert [one.rule for one in verdict.findings] == ["interface"]


def test_a_unit_without_a_graph_is_unknown(bundle):
    del bundle.manifest["units"]["good"]["onnx"]
    verdicts = lint_bundle(bundle, ["Ascend310P3"])
    assert (verdicts[0].verdict, verdicts[0].gigabytes) == ("unknown", None)
    assert "| good | ? | unknown |" in format_markdown(verdicts)


def test_a_changed_graph_is_refused(bundle, capsys):
    onnx.save_model(prelu_model(), bundle.folder / "onnx" / "good.onnx")
    assert main(["lint", str(bundle.folder)]) == 8
    assert "has changed since it was exported" in capsys.readouterr().err


def test_a_decoder_that_does_not_fit_is_told_how_many_frames_would(tmp_path):
    """10 kB are free, 0.4 are weights; input and output of Relu take 2 * 4 * 48 * 4 bytes a frame, so 6 fit."""
    models = {name: conv_model((8, 3, 8, 6)) for name in ("vae_decoder", "other")}
    bundle = onnx_bundle(tmp_path / "bundle", models)
    found = {one.unit: one.findings[0].reason for one in lint_bundle(bundle, ["Ascend310B4"], memory_gb=1.50001)}
    assert "--decode-chunk-size 6" in found["vae_decoder"] and "chunk" not in found["other"]
