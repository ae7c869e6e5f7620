"""The process that runs the real MindSpore Lite: how it dies, what memory it gets, which interpreter it is."""

import ast
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.errors import EngineError
from sonic_ms.runtime import lite, lite_process
from sonic_ms.runtime.lite import LiteEngine
from tests.support.lite_graphs import HUGE, MIX, SLOW, values

pytestmark = [pytest.mark.needs("lite"), pytest.mark.slow]


def pid(engine):
    return engine._worker._process.pid


def ended(process, seconds=5):
    """Whether a process is gone, or a zombie that nobody has waited for, within some seconds."""
    for _ in range(int(seconds * 20)):
        try:
            if Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_a_killed_worker_is_named_and_the_next_run_starts_another(engine):
    expected = engine.run("mix", values(MIX))
    os.kill(pid(engine), signal.SIGKILL)
    with pytest.raises(EngineError, match="was killed while it had to run mix; the system may be out of memory"):
        engine.run("mix", values(MIX))
    np.testing.assert_array_equal(engine.run("mix", values(MIX))["features"], expected["features"])


def test_a_worker_killed_while_it_computes(engine):
    engine.prepare("slow")
    threading.Timer(0.5, os.kill, (pid(engine), signal.SIGKILL)).start()
    started = time.monotonic()
    with pytest.raises(EngineError, match="was killed while it had to run slow"):
        engine.run("slow", values(SLOW))
    assert time.monotonic() - started < 3


def test_a_crash_is_named(engine):
    engine.prepare("mix")
    os.kill(pid(engine), signal.SIGSEGV)
    with pytest.raises(EngineError, match=r"crashed \(SIGSEGV\) while it had to run mix"):
        engine.run("mix", values(MIX))


def test_a_run_that_takes_too_long_is_stopped(bundle, monkeypatch):
    monkeypatch.setenv("SONIC_MS_LITE_TIMEOUT", "0.5")
    engine = LiteEngine(bundle)
    engine.prepare("slow")
    worker = pid(engine)
    started = time.monotonic()
    with pytest.raises(EngineError, match="took too long to run slow and was stopped; set SONIC_MS_LITE_TIMEOUT"):
        engine.run("slow", values(SLOW))
    assert time.monotonic() - started < 3 and not Path(f"/proc/{worker}").exists()  # not even a zombie
    assert engine.run("mix", values(MIX))["features"].any()  # a new worker
    engine.close()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_a_bad_time_limit(bundle, monkeypatch, value):
    monkeypatch.setenv("SONIC_MS_LITE_TIMEOUT", value)
    with pytest.raises(EngineError, match=f"SONIC_MS_LITE_TIMEOUT is '{value}'"):
        LiteEngine(bundle)


def test_close_ends_the_worker_and_leaves_nothing_open(bundle):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    engine = LiteEngine(bundle)
    engine.prepare("mix")
    worker = pid(engine)
    engine.close()
    engine.close()
    assert ended(worker, 1) and len(os.listdir("/proc/self/fd")) == before


def test_no_orphan_when_the_parent_is_killed_in_a_run(bundle):
    script = (
        "import sys, numpy as np\n"
        "from sonic_ms.deploy.bundle import Bundle\n"
        "from sonic_ms.runtime.lite import LiteEngine\n"
        "engine = LiteEngine(Bundle.load(sys.argv[1]))\n"
        "engine.prepare('slow')\n"
        "print(engine._worker._process.pid, flush=True)\n"
        "engine.run('slow', {'x': np.ones((3000, 3000), np.float32)})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(bundle.folder)], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    time.sleep(0.7)
    assert not ended(worker, 0.1), "the worker should be computing"
    parent.kill()
    parent.communicate()
    assert ended(worker, 3)


def limited(tmp_path, python, kilobytes):
    """An interpreter with little address space."""
    path = tmp_path / f"limited_{kilobytes}"
    path.write_text(f'#!/bin/sh\nulimit -v {kilobytes}\nexec {python} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_out_of_memory_in_a_run(bundle, monkeypatch, tmp_path, lite_python):
    monkeypatch.setenv("SONIC_MS_LITE_PYTHON", limited(tmp_path, lite_python, 3_000_000))
    engine = LiteEngine(bundle)
    with pytest.raises(EngineError, match="ran out of memory while it had to run huge"):
        engine.run("huge", values(HUGE))
    engine.close()


def test_out_of_memory_at_the_start(bundle, monkeypatch, tmp_path, lite_python):
    monkeypatch.setenv("SONIC_MS_LITE_PYTHON", limited(tmp_path, lite_python, 200_000))
    with pytest.raises(EngineError, match="ran out of memory while it had to start"):
        LiteEngine(bundle)


def test_a_worker_that_dies_of_memory(bundle, monkeypatch, tmp_path):
    words = "terminate called after throwing an instance of 'std::bad_alloc'"
    (tmp_path / "dying").write_text(f'#!/bin/sh\necho "{words}" >&2\nkill -ABRT $$\n')
    (tmp_path / "dying").chmod(0o755)
    monkeypatch.setenv("SONIC_MS_LITE_PYTHON", str(tmp_path / "dying"))
    with pytest.raises(EngineError, match=r"ran out of memory while it had to start MindSpore Lite: .*bad_alloc"):
        LiteEngine(bundle)


def test_no_room_for_the_tensors(engine, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EngineError, match=r"no room for 0 MB of tensors .*No space left"):
        engine.run("mix", values(MIX))


def test_an_old_c_library_has_no_memory_files(bundle, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    engine = LiteEngine(bundle)
    inputs = values(MIX)
    np.testing.assert_allclose(engine.run("mix", inputs)["difference"], inputs["left"] - inputs["right"], atol=1e-6)
    engine.close()


def test_no_python_at_all(bundle, monkeypatch):
    monkeypatch.delenv("SONIC_MS_LITE_PYTHON")
    monkeypatch.setattr(lite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"no Python with MindSpore Lite: .*pip install mindspore-lite==2.0.0"):
        LiteEngine(bundle)


def test_the_default_places_of_python(monkeypatch, tmp_path):
    monkeypatch.delenv("SONIC_MS_LITE_PYTHON")
    monkeypatch.setenv("SONIC_MS_CACHE", str(tmp_path))
    monkeypatch.setattr(lite.importlib.util, "find_spec", lambda name: None)
    python = tmp_path / "lite" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    assert lite.find_python() == str(python)
    monkeypatch.setattr(lite.importlib.util, "find_spec", lambda name: name == "mindspore_lite")
    assert lite.find_python() == sys.executable


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("/no/such/python", r"cannot start /no/such/python .*No such file"),
        ("/bin/true", r"/bin/true ended with code 0 .*is it a Python 3.7 or newer"),
        ("/bin/sh", r"/bin/sh ended with code \d+ .*is it a Python 3.7 or newer"),
    ],
)
def test_something_that_is_not_python(bundle, monkeypatch, python, message):
    monkeypatch.setenv("SONIC_MS_LITE_PYTHON", python)
    with pytest.raises(EngineError, match=message):
        LiteEngine(bundle)


def test_a_python_without_the_wheel(bundle, monkeypatch, tmp_path):
    bare = tmp_path / "bare"  # -S: no site-packages at all
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setenv("SONIC_MS_LITE_PYTHON", str(bare))
    with pytest.raises(EngineError, match=r"has no MindSpore Lite it can import \(ModuleNotFoundError.*pip install"):
        LiteEngine(bundle)


def test_the_wheel_of_another_python(bundle, monkeypatch, tmp_path, lite_python):
    find = "import mindspore_lite; print(mindspore_lite.__path__[0])"
    package = Path(subprocess.run([lite_python, "-c", find], capture_output=True, text=True, check=True).stdout.strip())
    other = tmp_path / "other"
    other.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mindspore_lite").symlink_to(package)
    monkeypatch.setenv("SONIC_MS_LITE_PYTHON", str(other))
    with pytest.raises(EngineError, match=r"has no MindSpore Lite it can import \(ImportError"):
        LiteEngine(bundle)


def test_a_worker_that_never_starts(bundle, monkeypatch, tmp_path):
    (tmp_path / "sleepy").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "sleepy").chmod(0o755)
    monkeypatch.setenv("SONIC_MS_LITE_PYTHON", str(tmp_path / "sleepy"))
    monkeypatch.setattr(lite_process, "START_TIMEOUT", 0.3)
    with pytest.raises(EngineError, match="took too long to start MindSpore Lite"):
        LiteEngine(bundle)


def test_the_worker_is_python_3_7():
    source = lite_process.SCRIPT.read_text()
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported <= {"fcntl", "json", "mmap", "os", "select", "sys", "numpy", "mindspore_lite"}
