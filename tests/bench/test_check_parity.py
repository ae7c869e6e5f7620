"""The parity tool on a small reference set: green as it is, red when anything changes, errors for a wrong folder."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "golden" / "base"


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("check_parity", ROOT / "bench" / "check_parity.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_all_modules_are_within_their_bars(tool, tmp_path, capsys):
    assert tool.main([str(REFERENCE), "--json", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out").read_text())
    assert {row["module"] for row in rows} == {"audio2bucket", "audio2token", "euler_scheduler", "process_bbox"}
    assert all(row["ok"] for row in rows)
    assert f"{len(rows)} passed, 0 failed" in capsys.readouterr().out


def test_half_precision(tool):
    rows = tool.check(REFERENCE, "audio2token", "fp16")
    assert rows[0]["ok"] and rows[0]["bar"] == 1.5e-2
    assert rows[0]["relative_l2"] > 1e-5  # it really ran in half precision


@pytest.mark.parametrize("module", ["audio2token", "audio2bucket"])
def test_one_weight_changed_is_red(tool, tmp_path, capsys, module):
    shutil.copytree(REFERENCE / module, tmp_path / module)
    path = tmp_path / module / "weights.pth"
    state = torch.load(path, weights_only=True)
    state["proj2.weight"][0, 0] += 1
    torch.save(state, path)
    assert tool.main([str(tmp_path)]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(("module", "key"), [("euler_scheduler", "prev_sample"), ("process_bbox", "out")])
def test_one_output_changed_is_red(tool, tmp_path, module, key):
    shutil.copytree(REFERENCE / module, tmp_path / module)
    arrays = dict(np.load(tmp_path / module / "io.npz"))
    arrays[key].flat[-1] += 1
    np.savez(tmp_path / module / "io.npz", **arrays)
    assert tool.main([str(tmp_path), "--module", module]) == 1


@pytest.mark.parametrize("engine", ["onnxruntime", "mindspore"])
@pytest.mark.slow
def test_exported_files_on_an_engine(tool, capsys, monkeypatch, engine):
    assert tool.main([str(REFERENCE), "--module", "audio2bucket", "--engine", engine]) == 0
    monkeypatch.setattr(
        tool.ExportedEngine, "__call__", lambda self, cell, arrays: [2 * tool.run_cell(cell, arrays)[0]]
    )
    assert tool.main([str(REFERENCE), "--module", "audio2bucket", "--engine", engine]) == 1


def test_a_wrong_folder_is_an_error(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path)]) == 1
    assert "has no reference for any module" in capsys.readouterr().err


def test_unequal_shapes_and_nan_are_infinitely_far(tool):
    assert tool.error(np.zeros(3), np.zeros(4), "l2") == (np.inf, np.inf)
    assert tool.error(np.array([np.nan]), np.zeros(1), "l2") == (np.inf, np.inf)
