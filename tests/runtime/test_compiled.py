"""Compiled graphs that are kept: the next start loads them, and nothing that lies in the cache can spoil a video."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sonic_ms.runtime import compiled
from sonic_ms.runtime.unit import Tensor, Unit

ONE, OTHER = (Unit(name, (Tensor("x", (2,)),), (Tensor("y", (2,)),), None) for name in ("one", "other"))


class Context:
    """What a MindSpore is told."""

    __version__ = "2.7.2"

    def __init__(self):
        self.said = {}

    def set_context(self, **more):
        self.said |= more

    def get_context(self, name):
        return "CPU"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SONIC_MS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "mindspore.common.api", SimpleNamespace(entry_script_path="program"))
    return tmp_path / "cache" / "compiled"


def folder_of(unit, about="about"):
    ms = Context()
    with compiled.CompiledGraphs(ms, about).kept(unit):
        assert ms.said.get("enable_compile_cache", False) == ("compile_cache_path" in ms.said)
        assert sys.modules["mindspore.common.api"].entry_script_path == (None if ms.said else "program")
    assert not ms.said.get("enable_compile_cache", False)
    assert sys.modules["mindspore.common.api"].entry_script_path == "program"
    return ms.said.get("compile_cache_path")


def test_every_unit_and_setting_has_a_folder_of_its_own(cache, monkeypatch):
    found = {folder_of(ONE), folder_of(OTHER), folder_of(ONE, "other weights"), folder_of(ONE)}
    assert len(found) == 3 and all(os.path.dirname(path) == str(cache) for path in found)
    monkeypatch.setattr(compiled, "__version__", "other")
    assert folder_of(ONE) not in found


def test_the_oldest_are_forgotten(cache, monkeypatch):
    monkeypatch.setattr(compiled, "KEPT", 2)
    paths = [folder_of(ONE, str(number)) for number in range(4)]
    for number, path in enumerate(paths[2:]):
        os.utime(path, (number, number))
    last = folder_of(OTHER)
    assert sorted(map(str, cache.iterdir())) == sorted([paths[3], last])


@pytest.mark.parametrize("fault", ["file", "link", "full", "no home"])
def test_where_nothing_can_be_kept_one_line_says_so(cache, tmp_path, monkeypatch, fault):
    if fault == "file":
        cache.parent.mkdir()
        cache.write_text("")
    elif fault == "link":
        path = folder_of(ONE)
        os.rmdir(path)
        (tmp_path / "elsewhere").mkdir()
        os.symlink(tmp_path / "elsewhere", path)
    elif fault == "full":
        monkeypatch.setattr(compiled.tempfile, "TemporaryFile", lambda **_: (_ for _ in ()).throw(OSError(28, "full")))
    else:
        monkeypatch.delenv("SONIC_MS_CACHE")
        monkeypatch.setattr(compiled.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError()))
    with pytest.warns(UserWarning, match="no compiled graphs are kept") as said:
        assert folder_of(ONE) is None
    assert len(said) == 1 and "\n" not in str(said[0].message)


def test_another_users_graphs_are_not_run(cache, monkeypatch):
    folder_of(ONE)
    monkeypatch.setattr(compiled.os, "getuid", lambda: 4711)
    with pytest.warns(UserWarning, match="another user"):
        assert folder_of(ONE) is None


RUN = """
import sys, hashlib, numpy as np
from sonic_ms.edge.generator import open_folder
from sonic_ms.edge.graphs import sample_inputs
units = sys.argv[1:]
engine = open_folder(engine="mindspore").engine
for unit in units:
    out = engine.run(unit, sample_inputs(engine._units[unit]))
    print(unit, hashlib.sha256(b"".join(array.tobytes() for array in out.values())).hexdigest())
"""


def run(*units):
    done = subprocess.run([sys.executable, "-c", RUN, *units], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(line.split() for line in done.stdout.splitlines() if line.startswith("edge_"))


@pytest.mark.slow
def test_the_next_start_computes_the_same_in_any_order_and_with_damaged_files(cache):
    names = ("edge_live_audio", "edge_audio")  # of the same network: each other's graph would fit their weights
    first = run(*names)
    written = sorted(cache.rglob("*.mindir"))
    assert len(written) == 2
    assert run(*names) == first and run(*reversed(names)) == first
    for path in cache.rglob("*.mindir"):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert run(*names) == first
    assert run(*names) == first
