"""`sonic-ms small`: cut and rounded painters are ordinary models; the report judges by its rule."""

import json

import numpy as np
import pytest

from sonic_ms.cli import main
from sonic_ms.edge.shipped import weights_of
from sonic_ms.edge.units import EDGE_FOLDER, edge_units
from sonic_ms.files.weights import TensorFile
from sonic_ms.pipeline import recognise, unit_table
from sonic_ms.small.quantize import quantize
from sonic_ms.small.record import write_record
from sonic_ms.small.report import verdict

pytestmark = [pytest.mark.slow]


def painted(folder, features):
    """By the painter inside the renderer of a folder, as every engine loads it."""
    import mindspore as ms

    return edge_units(folder)["edge_render_256"].build().painter(ms.Tensor(features)).asnumpy()


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).uniform(0, 1, (1, 24, 96, 128)).astype(np.float32)


def test_a_cut_painter_is_a_model(tmp_path, features, capsys):
    out = tmp_path / "small"
    report = tmp_path / "a.json"
    command = ["small", "--json", str(report), "prune", "--widths", "8,24,32", "--out", str(out)]
    assert main(command) == 0 and capsys.readouterr().out.strip() == str(out)
    made = json.loads(report.read_text())
    assert made["channels"] == [8, 8, 24, 24, 32, 32, 32, 24, 8, 8] and made["weights"] < 0.52 * 109_440
    assert recognise(out) == "sonic-edge" and unit_table(out, gears=("256",)).units
    assert painted(out, features).shape == (1, 4, 96, 128)
    assert main(command) == 7 and "exists" in capsys.readouterr().err
    assert main(["small", "prune", "--widths", "8,24,32", "--random", "1", "--out", str(tmp_path / "r")]) == 0
    one, other = ((p / "painter" / "model.safetensors").read_bytes() for p in (out, tmp_path / "r"))
    assert len(one) == len(other) and one != other


def test_dead_channels_go_and_nothing_changes(tmp_path, features):
    from sonic_ms.small.folders import read_painter, write_painter

    folder, config, tensors = read_painter("shipped")
    for block, gone in (("down1.1", [0, 5]), ("up2", [31]), ("down3.2", range(10))):
        for part in ("gamma", "beta"):
            tensors[f"{block}.norm.{part}"][list(gone)] = 0
    write_painter(folder, tmp_path / "dead", config, tensors)
    assert main(["small", "prune", "--model", str(tmp_path / "dead"), "--dead", "--out", str(tmp_path / "cut")]) == 0
    fields = json.loads((tmp_path / "cut" / "painter" / "config.json").read_text())
    assert fields["channels"] == [16, 14, 32, 32, 48, 48, 38, 31, 16, 16]
    before, after = painted(tmp_path / "dead", features), painted(tmp_path / "cut", features)
    assert after == pytest.approx(before, abs=2e-5) and np.abs(before - painted(EDGE_FOLDER, features)).max() > 1e-3


def test_a_rounded_painter_runs_in_onnxruntime(tmp_path):
    out = tmp_path / "nf4"
    assert main(["small", "--json", str(tmp_path / "a.json"), "quantize", "--to", "nf4", "--out", str(out)]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["bytes"] < 0.14 * 4 * 109_440
    shipped, rounded = weights_of(EDGE_FOLDER, "edge_render_256"), weights_of(out, "edge_render_256")
    for name, array in shipped.items():
        expected = quantize(array, "nf4") if name.endswith("weight") else array
        assert rounded[name] == pytest.approx(expected, abs=1e-5), name
    with (
        TensorFile(out / "painter" / "model.safetensors") as file,
        TensorFile(EDGE_FOLDER / "painter" / "model.safetensors") as other,
    ):
        assert file.shapes == other.shapes


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["prune", "--widths", "16,32"], 2, "expected three numbers"),
        (["prune"], 2, "give one of --widths, --dead and --keep"),
        (["prune", "--dead", "--keep", "0.5"], 2, "give one of"),
        (["prune", "--keep", "1.5"], 2, "--keep is 1.5; expected a share above 0"),
        (["prune", "--keep", "0.5", "--model", "nowhere"], 3, "nowhere"),
        (["prune", "--widths", "32,32,48"], 2, "block down1.0 has 16 channels, so it cannot keep 32"),
        (["prune", "--widths", "8,8,8", "--model", "nowhere"], 3, "nowhere"),
        (["report", "nowhere"], 3, "has no run"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, arguments, code, words):
    more = [] if arguments[0] == "report" else ["--out", str(tmp_path / "out")]
    assert main(["small", *arguments, *more]) == code
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error and not (tmp_path / "out").exists()


def test_the_report_holds_every_point(tmp_path, capsys):
    for arm, errors in {"dense": (0.012, 0.0122, 0.0121), "rigl": (0.015, 0.016, 0.0155)}.items():
        for seed, error in enumerate(errors):
            folder = tmp_path / f"{arm}-{seed}"
            folder.mkdir()
            write_record(folder, "small_painter", arm, seed, {"inside_l1": error, "nonzero": 1000 * (seed + 1)})
    assert main(["small", "report", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "| rigl | 0, 1, 2 | 0.0155 ± 0.0005 (0.015, 0.016, 0.0155)" in text and "worse |" in text
    assert (tmp_path / "report.png").stat().st_size > 1000
    (tmp_path / "alone").mkdir()
    write_record(tmp_path / "alone", "heads", "whole", 0, {"r": 1.0})
    assert main(["small", "report", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "| arm | seeds | r |\n|---|---|---|\n| whole | 0 | 1 |\n" in text and text.count("against dense") == 1
    (tmp_path / "dense-0" / "small.json").write_text('{"recipe": 1}')
    capsys.readouterr()
    assert main(["small", "report", str(tmp_path)]) == 8 and "is damaged" in capsys.readouterr().err


def test_a_verdict_needs_all_seeds_and_more_than_the_spread():
    dense = {0: 1.0, 1: 1.1, 2: 0.9}
    assert verdict({0: 1.5, 1: 1.6, 2: 1.4}, dense) == "worse"
    assert verdict({0: 0.5, 1: 0.6, 2: 0.4}, dense) == "better"
    assert verdict({0: 1.5, 1: 1.6, 2: 0.8}, dense) == "no difference found"
    assert verdict({0: 1.1, 1: 1.2, 2: 1.0}, dense) == "no difference found"
    assert "no verdict" in verdict({0: 1.5}, dense)
