"""The lite engine: on the CPU the real MindSpore Lite, for Ascend the double in tests/lite_double.

The real one is never skipped: without it these tests fail. Make it as the README says.
"""

import ast
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.errors import EngineError, OutputError, WeightsError
from sonic_ms.runtime import lite, lite_process
from sonic_ms.runtime.engine import open_engine
from sonic_ms.runtime.lite import LiteEngine
from sonic_ms.runtime.onnx import OnnxEngine
from sonic_ms.units import Tensor, Unit

DOUBLE = Path(__file__).parents[1] / "lite_double"
CONV = {"strides": [1, 1], "dilations": [1, 1]}  # ONNX has defaults for them, Lite 2.0 has not
MIX = Unit(
    "mix",
    (Tensor("left", (2, 5)), Tensor("picture", (1, 3, 8, 6)), Tensor("right", (2, 5))),
    (Tensor("difference", (2, 5)), Tensor("features", (1, 4, 8, 6))),
    None,
)
TWICE = Unit("twice", (Tensor("x", (3,)),), (Tensor("y", (3,)),), None)
SLOW = Unit("slow", (Tensor("x", (3000, 3000)),), (Tensor("y", (3000, 3000)),), None)
HUGE = Unit("huge", (Tensor("x", (30000, 1)),), (Tensor("y", (30000,)),), None)


@pytest.fixture(autouse=True)
def lite_python(monkeypatch, tmp_path_factory):
    """The interpreter with the real Lite, whatever folder a test then uses as its cache."""
    python = lite.find_python()
    monkeypatch.setenv("SONIC_MS_LITE_PYTHON", python)
    monkeypatch.delenv("SONIC_MS_LITE_TARGET", raising=False)
    monkeypatch.setenv("SONIC_MS_CACHE", str(tmp_path_factory.mktemp("cache")))
    return python


@pytest.fixture
def bundle(make_bundle, write_onnx, tmp_path):
    """mix: two small graphs in one; twice; slow: half a minute of products; huge: 3.6 GB between input and output."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    mix = [
        ("Sub", ("left", "right"), "difference", {}),
        ("Conv", ("picture", "w"), "c", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], **CONV}),
        ("Relu", ("c",), "features", {}),
    ]
    slow = [("MatMul", ("x", "x"), "p0", {})]
    slow += [("MatMul", (f"p{i}", "x"), "y" if i == 39 else f"p{i + 1}", {}) for i in range(40)]
    huge = [("MatMul", ("x", "w"), "p", {}), ("ReduceSum", ("p",), "y", {"axes": [1], "keepdims": 0})]
    return make_bundle(
        (MIX, TWICE, SLOW, HUGE),
        {
            "twice": {"onnx": write_onnx(tmp_path / "twice.onnx", TWICE, [("Add", ("x", "x"), "y", {})], {})},
            "mix": {"onnx": write_onnx(tmp_path / "mix.onnx", MIX, mix, {"w": weights})},
            "slow": {"onnx": write_onnx(tmp_path / "slow.onnx", SLOW, slow, {})},
            "huge": {"onnx": write_onnx(tmp_path / "huge.onnx", HUGE, huge, {"w": np.ones((1, 30000), np.float32)})},
        },
    )


@pytest.fixture
def engine(bundle):
    engine = open_engine("lite", bundle)
    yield engine
    engine.close()


def values(unit, seed=0):
    rng = np.random.default_rng(seed)
    return {tensor.name: rng.standard_normal(tensor.shape).astype(np.float32) for tensor in unit.inputs}


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


def test_the_real_lite_agrees_with_onnxruntime(engine, bundle):
    reference = OnnxEngine(bundle)
    engine.prepare("mix")
    for seed in range(3):
        inputs = values(MIX, seed)
        found, expected = engine.run("mix", inputs), reference.run("mix", inputs)
        np.testing.assert_allclose(found["difference"], inputs["left"] - inputs["right"], atol=1e-6)
        for name in expected:
            assert found[name].dtype == np.float32
            assert np.linalg.norm(found[name] - expected[name]) < 1e-5 * np.linalg.norm(expected[name])
    assert engine.info()["device"] == "CPU" and engine.info()["version"].startswith("2.")


def test_outputs_belong_to_the_caller_and_repeat_exactly(engine):
    first = engine.run("mix", values(MIX, 0))
    kept = {name: array.copy() for name, array in first.items()}
    engine.run("mix", values(MIX, 1))
    for name in kept:
        np.testing.assert_array_equal(first[name], kept[name])
    again = engine.run("mix", values(MIX, 0))
    for name in kept:
        np.testing.assert_array_equal(again[name], kept[name])


def test_units_share_a_worker_and_its_memory(engine):
    first = engine.run("mix", values(MIX))
    for number in (1, 2):
        np.testing.assert_array_equal(engine.run("twice", {"x": np.full(3, number, np.float32)})["y"], 2 * number)
        again = engine.run("mix", values(MIX))
        assert all((again[name] == first[name]).all() for name in first)


def test_wrong_inputs_never_reach_the_worker(engine):
    with pytest.raises(EngineError, match="input left is float64"):
        engine.run("mix", {**values(MIX), "left": np.zeros((2, 5))})


def test_a_graph_is_converted_once(bundle, monkeypatch):
    asked = []
    call = lite_process.Worker.call
    record = lambda self, *arguments, **request: asked.append(request["do"]) or call(self, *arguments, **request)  # noqa: E731
    monkeypatch.setattr(lite_process.Worker, "call", record)
    for _ in range(2):
        engine = LiteEngine(bundle)
        engine.run("mix", values(MIX))
        engine.close()
    assert asked == ["convert", "load", "run", "load", "run"]
    assert len(list(Path(os.environ["SONIC_MS_CACHE"]).rglob("*"))) == 3  # two folders and one file


def test_another_graph_or_another_lite_is_converted_again(bundle, engine, monkeypatch):
    path = engine._converted("mix")
    monkeypatch.setitem(bundle.manifest["units"]["mix"]["onnx"], "data", [{"path": "mix.onnx", "sha256": "1"}])
    assert engine._converted("mix") != path
    monkeypatch.delitem(bundle.manifest["units"]["mix"]["onnx"], "data")
    monkeypatch.setattr(engine._worker, "version", "2.1.0")
    assert engine._converted("mix") != path


def cached():
    """What lies in the cache of converted graphs."""
    return sorted(path.name for path in (Path(os.environ["SONIC_MS_CACHE"]) / "lite-graphs").iterdir())


def test_a_converter_that_writes_nothing_is_named(engine, monkeypatch):
    """Success without a file; nothing of it may stay in the cache."""
    call = lite_process.Worker.call
    skip = lambda self, *words, **request: None if request["do"] == "convert" else call(self, *words, **request)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(lite_process.Worker, "call", skip)
        with pytest.raises(EngineError, match=r"wrote no graph from .*mix.onnx, and did not say why"):
            engine.prepare("mix")
    assert cached() == []
    assert engine.run("mix", values(MIX))["features"].any()  # the next attempt converts


def test_all_files_of_a_converted_graph_are_kept(engine, monkeypatch):
    """Above 1 GB Lite writes the weights beside the graph; here something lies there that looks like it."""
    call = lite_process.Worker.call

    def beside(self, *words, **request):
        answer = call(self, *words, **request)
        if request["do"] == "convert":
            data = Path(f"{request['result']}_variables") / "data_0"
            data.parent.mkdir()
            data.write_bytes(b"weights")
        return answer

    monkeypatch.setattr(lite_process.Worker, "call", beside)
    assert engine.run("mix", values(MIX))["features"].any()
    graph = engine._converted("mix")
    assert (graph.parent / "graph_variables" / "data_0").read_bytes() == b"weights"
    assert cached() == [graph.parent.name]


def test_another_process_may_convert_the_same_graph_first(engine, monkeypatch):
    convert = LiteEngine._convert

    def slower(self, source, folder):
        convert(self, source, folder)
        shutil.copytree(folder, folder.parent.parent / name)

    name = engine._converted("mix").parent.name
    shutil.rmtree(Path(os.environ["SONIC_MS_CACHE"]) / "lite-graphs")
    monkeypatch.setattr(LiteEngine, "_convert", slower)
    assert engine.run("mix", values(MIX))["features"].any()
    assert cached() == [name]


def test_a_graph_lite_cannot_convert(make_bundle, write_onnx, tmp_path):
    nodes = [("NoSuchOperator", ("x",), "y", {})]
    engine = LiteEngine(make_bundle((SLOW,), {"slow": {"onnx": write_onnx(tmp_path / "a.onnx", SLOW, nodes, {})}}))
    with pytest.raises(EngineError, match=r"failed to convert .*a.onnx: .*NoSuchOperator"):
        engine.prepare("slow")
    engine.close()


def test_a_cache_that_cannot_be_written(engine, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SONIC_MS_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot keep a converted graph"):
        engine.prepare("mix")


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
        "from sonic_ms.bundle import Bundle\n"
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


def test_half_precision_bundles_run_in_float32(make_bundle, write_onnx, tmp_path):
    """Lite's converter turns the graph into float32; the engine keeps the types of the unit."""
    half = Unit("half", (Tensor("x", (3,), "float16"),), (Tensor("y", (3,), "float16"),), None)
    path = write_onnx(tmp_path / "half.onnx", half, [("Add", ("x", "x"), "y", {})], {})
    engine = LiteEngine(make_bundle((half,), {"half": {"onnx": path}}, precision="fp16"))
    found = engine.run("half", {"x": np.array([0.1, -2, 300], np.float16)})["y"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array([0.1, -2, 300], np.float16) * 2)
    engine.close()


def test_the_worker_is_python_3_7():
    source = lite_process.SCRIPT.read_text()
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported <= {"fcntl", "json", "mmap", "os", "select", "sys", "numpy", "mindspore_lite"}


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
