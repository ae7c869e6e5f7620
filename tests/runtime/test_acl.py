"""The acl engine against the strict double in tests/support/acl_double.py."""

import json
import sys
import threading

import numpy as np
import pytest

from sonic_ms.errors import EngineError
from sonic_ms.runtime.ascendcl import AclEngine
from sonic_ms.runtime.choose import open_engine
from sonic_ms.runtime.unit import Tensor, Unit
from tests.support.acl_double import FREEING, ON_BOARD, AclDouble, ProtocolError

PROGRAMS = {"mix": lambda arrays: [2 * arrays[0] + arrays[1], arrays[0].sum(-1)]}
UNIT = Unit(
    "mix",
    (Tensor("x", (2, 3)), Tensor("y", (2, 3))),
    (Tensor("mixed", (2, 3)), Tensor("sums", (2,))),
    None,
)
X, Y = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 0.5, np.float32)


def om(shapes=((2, 3), (2, 3)), names=("x", "y"), outputs=((2, 3), (2,)), dtype=0, **more):
    """Content of an .om of the double, without gears."""
    return {
        "program": "mix",
        "inputs": [{"name": name, "dims": list(dims), "dtype": dtype} for name, dims in zip(names, shapes)],
        "outputs": [{"name": f"node:{i}", "dims": list(dims), "dtype": dtype} for i, dims in enumerate(outputs)],
        **more,
    }


def with_gears(kind, values, sizes):
    """.om whose tensors have one free shape for each of `sizes`; kind and values as ATC would have them."""
    content = om(gears={"kind": kind, "values": values})
    free = {"dims": (-1, -1), "batch": (-1, 3), "hw": (1, 1, -1, -1)}[kind]
    for tensor in content["inputs"]:
        tensor |= {"dims": list(free), "gears": [list(size) for size in sizes], "largest": list(sizes[-1])}
    for tensor, end in zip(content["outputs"], (None, -1)):
        tensor |= {"gears": [list(size[:end]) for size in sizes], "largest": list(sizes[-1][:end])}
    return content


@pytest.fixture
def start(monkeypatch, make_bundle, tmp_path):
    """Function (content of the .om, units, data files, **double) -> (engine, double)."""

    def run(content=None, units=(UNIT,), data=(), **double):
        path = tmp_path / "unit.om"
        path.write_text(json.dumps(content or om()))
        acl = AclDouble(PROGRAMS, **double)
        monkeypatch.setitem(sys.modules, "acl", acl)
        files = {unit.name: {"om": (path, [tmp_path / name for name in data])} for unit in units}
        return open_engine("acl", make_bundle(units, files)), acl

    return run


def check(engine, acl, x=X, y=Y, unit="mix"):
    outputs = engine.run(unit, {"x": x, "y": y})
    np.testing.assert_allclose(outputs["mixed"], 2 * x + y)
    np.testing.assert_allclose(outputs["sums"], x.sum(-1))
    assert outputs["mixed"].dtype == np.float32


def test_runs_and_frees_everything(start):
    engine, acl = start()
    engine.prepare("mix")
    assert len(acl.loaded) == 1
    check(engine, acl)
    check(engine, acl, X[::-1], Y)  # not contiguous, other values, the same buffers
    assert len(acl.loaded) == 1 and acl.calls.count("rt.malloc") == 4
    assert engine.info()["device"] == "Ascend310P3 0"
    engine.close()
    assert acl.calls[-1] == "finalize" and not acl.leaks()
    engine.close()
    assert acl.calls.count("finalize") == 1


def test_closes_without_a_run(start):
    engine, acl = start()
    engine.close()
    assert not acl.leaks() and acl.device is None


def test_inputs_go_by_name(start):
    engine, _ = start(om(names=("y", "x")))
    outputs = engine.run("mix", {"x": X, "y": Y})
    np.testing.assert_allclose(outputs["mixed"], 2 * Y + X)  # the program sees y first
    engine.close()


def test_inputs_go_by_order_when_the_names_were_lost(start):
    engine, acl = start(om(names=("Data_0", "Data_1")))
    check(engine, acl)
    engine.close()


def test_on_the_board_itself_every_copy_is_within_the_device(start):
    engine, acl = start(run_mode=ON_BOARD)
    check(engine, acl)
    engine.close()


def test_half_precision_om_of_a_float_unit(start):
    engine, acl = start(om(dtype=1))
    check(engine, acl)
    engine.close()
    assert not acl.leaks()


def test_another_thread_enters_the_context(start):
    engine, acl = start()
    errors = []

    def work():
        try:
            check(engine, acl)
            engine.close()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors and not acl.leaks()


def test_another_thread_may_close(start):
    engine, acl = start()
    check(engine, acl)
    thread = threading.Thread(target=engine.close)
    thread.start()
    thread.join()
    assert not acl.leaks() and acl.device is None


def sized(rows, columns, name, lead=()):
    shape = (*lead, rows, columns)
    tensors = Tensor("x", shape), Tensor("y", shape)
    return Unit(name, tensors, (Tensor("mixed", shape), Tensor("sums", shape[:-1])), None)


@pytest.mark.parametrize(
    ("kind", "values", "lead"),
    [("dims", [[2, 3, 2, 3], [4, 3, 4, 3]], ()), ("batch", [2, 4], ()), ("hw", [[2, 3], [4, 3]], (1, 1))],
)
def test_units_that_are_gears_of_one_om(start, kind, values, lead):
    units = [sized(rows, 3, f"rows_{rows}", lead) for rows in (2, 4)]
    engine, acl = start(with_gears(kind, values, [(*lead, 2, 3), (*lead, 4, 3)]), units)
    rng = np.random.default_rng(0)
    for rows in (4, 2, 4):
        x, y = rng.standard_normal((2, *lead, rows, 3)).astype(np.float32)
        check(engine, acl, x, y, f"rows_{rows}")
    assert len(acl.loaded) == 1
    engine.close()
    assert not acl.leaks()


def test_the_gear_lists_dimensions_in_the_order_of_the_om(start):
    unit = Unit("mix", (Tensor("y", (1, 3)), Tensor("x", (2, 3))), UNIT.outputs, None)
    content = with_gears("dims", [[2, 3, 1, 3]], [(2, 3)])
    content["inputs"][1] |= {"gears": [[1, 3]], "largest": [1, 3]}
    engine, acl = start(content, (unit,))
    check(engine, acl, X, Y[:1])
    engine.close()


@pytest.mark.parametrize(("kind", "values"), [("dims", [[2, 3, 2, 3], [8, 3, 8, 3]]), ("batch", [2, 8])])
def test_a_size_without_a_gear_is_refused(start, kind, values):
    unit = sized(4, 3, "rows_4")
    engine, _ = start(with_gears(kind, values, [(2, 3), (8, 3)]), (unit,))
    zeros = np.zeros((4, 3), np.float32)
    with pytest.raises(EngineError, match=r"has gears .*, none is"):
        engine.run("rows_4", {"x": zeros, "y": zeros})
    engine.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (om(shapes=((2, 3), (3, 2))), r"input y of .* has shape \[3, 2\], expected \(2, 3\)"),
        (om(shapes=((-1, 3), (2, 3))), r"input x of .* has shape \[-1, 3\]"),  # free, but no gears
        (om(outputs=((3, 2), (2,))), r"output mixed of .* has shape \[3, 2\]"),
        (om(shapes=((2, 3),), names=("x",)), "has 1 inputs and 2 outputs, expected 2 and 2"),
        (om(outputs=((2, 3),)), "has 2 inputs and 1 outputs"),
        (om(dtype=3), "is int32, expected float32"),
    ],
)
def test_an_om_that_is_not_the_unit_is_refused(start, content, message):
    for tensor in content["inputs"]:
        tensor["largest"] = [2, 3]
    engine, acl = start(content)
    with pytest.raises(EngineError, match=message):
        engine.run("mix", {"x": X, "y": Y})
    engine.close()
    assert not acl.leaks()


def test_buffers_that_are_too_small_are_refused(start):
    content = om()
    content["inputs"][1]["largest"] = [1, 3]
    engine, _ = start(content)
    with pytest.raises(EngineError, match=r"y of .* has room for 12 bytes, needs 24"):
        engine.run("mix", {"x": X, "y": Y})
    engine.close()


def test_wrong_inputs_never_reach_the_device(start):
    engine, acl = start()
    with pytest.raises(EngineError, match="input x is float64"):
        engine.run("mix", {"x": X.astype(np.float64), "y": Y})
    assert "mdl.execute" not in acl.calls
    engine.close()


GEARED = with_gears("dims", [[2, 3, 2, 3]], [(2, 3)])
CODED = [
    *("init", "finalize", "rt.set_device", "rt.reset_device", "rt.create_context", "rt.destroy_context"),
    *("rt.set_context", "rt.get_run_mode", "rt.malloc", "rt.free", "rt.memcpy", "create_data_buffer"),
    *("destroy_data_buffer", "mdl.load_from_file", "mdl.unload", "mdl.create_desc", "mdl.destroy_desc", "mdl.get_desc"),
    *("mdl.create_dataset", "mdl.destroy_dataset", "mdl.add_dataset_buffer", "mdl.get_input_dims", "mdl.execute"),
    *("mdl.get_cur_output_dims", "mdl.get_input_dynamic_gear_count", "mdl.get_input_dynamic_dims"),
    *("mdl.get_dynamic_batch", "mdl.get_dynamic_hw", "mdl.set_input_dynamic_dims"),
]


def test_the_list_of_calls_that_can_fail_is_complete(start):
    engine, acl = start(GEARED)
    check(engine, acl)
    engine.close()
    bare = {name for name in acl.calls if "size_by_index" in name or "get_num" in name}
    bare |= {"mdl.get_input_name_by_index", "mdl.get_input_data_type", "mdl.get_output_data_type"}
    assert set(acl.calls) - bare == set(CODED)


@pytest.mark.parametrize("name", CODED)
def test_every_failing_call_is_named_and_the_rest_is_freed(start, name):
    with pytest.raises(EngineError, match=f"acl.{name} failed"):
        engine, acl = start(GEARED, fail=name)
        try:
            engine.run("mix", {"x": X, "y": Y})
        finally:
            acl.fail = name if name in FREEING else None
            engine.close()
    acl = sys.modules["acl"]
    assert not acl.leaks() and acl.device is None and not acl.initialised


def test_the_message_explains_the_code_and_quotes_the_device(start):
    engine, _ = start(fail="mdl.execute")
    with pytest.raises(
        EngineError, match=r"acl.mdl.execute failed: 500002, graph engine failed. E19999: the double was"
    ):
        engine.run("mix", {"x": X, "y": Y})
    engine.close()


def test_a_load_that_fails_names_both_chips(start):
    engine, _ = start(fail="mdl.load_from_file")
    with pytest.raises(EngineError, match=r"cannot load .*unit.om, built for an unknown chip, on Ascend310P3"):
        engine.prepare("mix")
    engine.close()


def test_does_not_finalize_what_another_library_initialised(start):
    engine, acl = start(initialised=True)
    check(engine, acl)
    engine.close()
    assert "finalize" not in acl.calls and not acl.leaks()


def test_external_weights_lie_beside_the_om(start, tmp_path):
    for folder in ("weight", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w0").write_bytes(b"weights")
    engine, acl = start(om(weights=["w0"]), data=["weight/w0"])
    check(engine, acl)
    engine.close()
    engine, _ = start(om(weights=["w0"]), data=["elsewhere/w0"])
    with pytest.raises(EngineError, match="must lie in"):
        engine.prepare("mix")
    engine.close()


def test_without_pyacl(monkeypatch, make_bundle):
    monkeypatch.setitem(sys.modules, "acl", None)
    with pytest.raises(EngineError, match=r"pyACL cannot be imported .*set_env.sh"):
        AclEngine(make_bundle([UNIT], {}))


def test_device_number_comes_from_the_environment(start, monkeypatch):
    monkeypatch.setenv("SONIC_MS_DEVICE_ID", "3")
    engine, acl = start()
    assert acl.device == 3 and engine.info()["device"].endswith(" 3")
    engine.close()
    monkeypatch.setenv("SONIC_MS_DEVICE_ID", "first")
    with pytest.raises(EngineError, match="SONIC_MS_DEVICE_ID is 'first'"):
        start()


class TestDouble:
    """The double must fail where the device would misbehave."""

    @pytest.fixture
    def acl(self, tmp_path):
        acl = AclDouble(PROGRAMS)
        acl.init()
        acl.rt.set_device(0)
        acl.context, _ = acl.rt.create_context(0)
        (tmp_path / "unit.om").write_text(json.dumps(om()))
        acl.path = str(tmp_path / "unit.om")
        return acl

    def test_order(self):
        with pytest.raises(ProtocolError, match="before init"):
            AclDouble(PROGRAMS).rt.set_device(0)

    def test_copies(self, acl):
        address, _ = acl.rt.malloc(8, 0)
        host = np.zeros(4, np.float32)
        for arguments, message in (
            ((address, 8, host.ctypes.data, 8, 0), "kind 0"),
            ((address, 8, host.ctypes.data, 8, 2), "kind 2"),
            ((host.ctypes.data, 8, address, 8, 1), "kind 1"),
            ((address, 16, host.ctypes.data, 16, 1), "beyond memory"),
            ((address, 4, host.ctypes.data, 8, 1), "8 bytes into 4"),
            ((host.ctypes.data, 16, address, 16, 2), "beyond memory"),
            ((host.ctypes.data, 8, address, 8, 2), "nobody wrote"),
        ):
            with pytest.raises(ProtocolError, match=message):
                acl.rt.memcpy(*arguments)

    def test_frees(self, acl):
        address, _ = acl.rt.malloc(8, 0)
        buffer = acl.create_data_buffer(address, 8)
        with pytest.raises(ProtocolError, match="data buffer uses"):
            acl.rt.free(address)
        acl.destroy_data_buffer(buffer)
        acl.rt.free(address)
        with pytest.raises(ProtocolError, match="not a living memory"):
            acl.rt.free(address)

    def test_leaks(self, acl):
        acl.rt.malloc(8, 0)
        with pytest.raises(ProtocolError, match="left"):
            acl.rt.destroy_context(acl.context)
        with pytest.raises(ProtocolError, match="left"):
            acl.finalize()

    def test_execution_needs_inputs(self, acl):
        model, _ = acl.mdl.load_from_file(acl.path)
        sets = [acl.mdl.create_dataset() for _ in range(2)]
        for dataset, sizes in zip(sets, ((24, 24), (24, 8))):
            for size in sizes:
                acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(acl.rt.malloc(size, 0)[0], size))
        with pytest.raises(ProtocolError, match="before all inputs"):
            acl.mdl.execute(model, *sets)
