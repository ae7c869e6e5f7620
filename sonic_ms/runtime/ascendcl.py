"""pyACL as an engine: the .om files of a bundle on an Ascend device.

Never run on hardware: there was none. What the tests prove, against tests/support/acl_double.py, is that calls come in
the right order with the right sizes and kinds of copy, that every return code is looked at, and that everything is
freed once.

A unit usually has an .om of its own, with static shapes. One .om may also serve several units as gears, if ATC built it
with --dynamic_dims, --dynamic_batch_size or --dynamic_image_size: it then has an extra input that says which gear runs.

Environment: SONIC_MS_DEVICE_ID, number of the device, default 0.
"""

import os
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path

import numpy as np

from sonic_ms.errors import EngineError
from sonic_ms.runtime.cann import cann_version
from sonic_ms.runtime.engine import check_inputs, device_id
from sonic_ms.runtime.turns import in_turn

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3  # kinds of copy
RUNS_ON_DEVICE = 0  # run mode of a program on the board itself, where every memory is the device's
HUGE_FIRST = 0  # memory policy: huge pages if there are any
DTYPES = {0: "float32", 1: "float16", 3: "int32"}  # of acl_base.h, those a bundle has
GEAR_INPUT = "ascend_mbatch_shape_data"
REPEATED_INIT = 100002  # somebody else in this process has initialised ACL

ERRORS = {  # the codes of acl_base.h, rt_error_codes.h and ge_error_codes.h that a user can do something about
    100000: "invalid parameter",
    100001: "not initialised",
    100011: "invalid model id",
    100012: "cannot read the model: built for another version of CANN?",
    100013: "cannot parse the model: built for another version of CANN?",
    100014: "cannot read the model file",
    100017: "inputs do not match the model",
    100018: "outputs do not match the model",
    107001: "no such device",
    107002: "no context",
    145002: "model file or a weight file is missing",
    145006: "model file is damaged",
    200000: "out of memory",
    207001: "out of device memory",
    207004: "no device",
    207006: "no permission: is the user in group HwHiAiUser?",
    245000: "out of device memory",
    500002: "graph engine failed",
    500003: "runtime failed",
    500004: "driver failed",
}


class Acl:
    """The acl module with every return code checked."""

    def __init__(self, module):
        self.module = module

    def do(self, name, *arguments):
        """Call a function that returns its code alone, or (value, code). Returns the value or None."""
        result = attrgetter(name)(self.module)(*arguments)
        *values, code = result if isinstance(result, tuple) else (result,)
        self.check(name, code)
        return values[0] if values else None

    def check(self, name, code):
        """Raise EngineError for a code other than 0."""
        if code:
            words = ERRORS.get(code, "unknown error")
            details = " ".join(str(self.module.get_recent_err_msg() or "").split())
            raise EngineError(f"acl.{name} failed: {code}, {words}. {details}".strip())

    def get(self, name, *arguments):
        """Call a function that returns a value alone: a number or a name."""
        return attrgetter(name)(self.module)(*arguments)

    def make(self, name, *arguments):
        """Call a function that returns a handle alone, 0 when it cannot."""
        handle = attrgetter(name)(self.module)(*arguments)
        if not handle:
            raise EngineError(f"acl.{name} failed: no handle; out of memory?")
        return handle


class AclEngine:
    """Engine over the .om files of a bundle. Raises EngineError; close() frees all there is on the device."""

    @in_turn
    def __init__(self, bundle):
        try:
            import acl
        except ImportError as error:
            raise EngineError(f"pyACL cannot be imported ({error}); install CANN and source its set_env.sh") from error
        self._bundle, self._acl, self._models = bundle, Acl(acl), {}
        self._device = device_id()
        with ExitStack() as undo:
            code = acl.init()
            if code != REPEATED_INIT:
                self._acl.check("init", code)
                undo.callback(self._acl.do, "finalize")
            self._acl.do("rt.set_device", self._device)
            undo.callback(self._acl.do, "rt.reset_device", self._device)
            self._context = self._acl.do("rt.create_context", self._device)
            undo.callback(self._acl.do, "rt.destroy_context", self._context)
            on_board = self._acl.do("rt.get_run_mode") == RUNS_ON_DEVICE
            self._kinds = (DEVICE_TO_DEVICE,) * 2 if on_board else (HOST_TO_DEVICE, DEVICE_TO_HOST)
            self._undo = undo.pop_all()

    @in_turn
    def prepare(self, unit):
        self._enter()
        self._model(unit)

    def _enter(self):
        """A context belongs to a thread; the pipeline may call from another one than the last time."""
        self._acl.do("rt.set_context", self._context)

    def _model(self, name):
        path = self._bundle.path(name, "om")
        if path not in self._models:
            entry = self._bundle.manifest["units"][name]["om"]
            _check_weights(self._bundle.folder, path, entry)
            try:
                model = Model(self._acl, path, self._kinds)
            except EngineError as error:
                raise EngineError(
                    f"cannot load {path}, built for {entry.get('soc', 'an unknown chip')}, on "
                    f"{self._acl.get('get_soc_name')}: {error}"
                ) from error
            self._undo.callback(model.close)
            self._models[path] = model
        return self._models[path]

    @in_turn
    def run(self, unit, inputs):
        self._enter()
        spec = self._bundle.units[unit]
        return self._model(unit).run(spec, check_inputs(spec, inputs))

    def info(self):
        return {
            "engine": "acl",
            "version": f"CANN {cann_version(Path(os.environ.get('ASCEND_OPP_PATH', '')))}",
            "device": f"{self._acl.get('get_soc_name')} {self._device}",
            "graphs": "OM",
        }

    @in_turn
    def close(self):
        if self._context is not None:
            with self._undo:  # frees in the reverse order of what was made, whatever fails
                self._enter()
                self._context, self._models = None, {}


class Model:
    """One loaded .om with device buffers for all its inputs and outputs, as large as its largest gear."""

    def __init__(self, acl, path, kinds):
        self._acl, self._path, self._kinds = acl, path, kinds
        with ExitStack() as undo:
            self._id = acl.do("mdl.load_from_file", str(path))
            undo.callback(acl.do, "mdl.unload", self._id)
            self._description = acl.make("mdl.create_desc")
            undo.callback(acl.do, "mdl.destroy_desc", self._description)
            acl.do("mdl.get_desc", self._description, self._id)
            self._inputs, self._input_set = self._buffers(undo, "input")
            self._outputs, self._output_set = self._buffers(undo, "output")
            self.close = undo.pop_all().close

    def _buffers(self, undo, side):
        """Allocate one side. Returns ([(address, bytes)], handle of the data set)."""
        acl, buffers = self._acl, []
        dataset = acl.make("mdl.create_dataset")
        undo.callback(acl.do, "mdl.destroy_dataset", dataset)
        for index in range(acl.get(f"mdl.get_num_{side}s", self._description)):
            size = acl.get(f"mdl.get_{side}_size_by_index", self._description, index)
            address = acl.do("rt.malloc", size, HUGE_FIRST)
            undo.callback(acl.do, "rt.free", address)
            buffer = acl.make("create_data_buffer", address, size)
            undo.callback(acl.do, "destroy_data_buffer", buffer)
            acl.do("mdl.add_dataset_buffer", dataset, buffer)
            buffers.append((address, size))
        return buffers, dataset

    def run(self, unit, arrays):
        """Compute a unit. arrays: in the unit's order. Returns {output name: array}."""
        for index, tensor, array in self._arranged_inputs(unit, arrays):
            dtype = self._checked_dtype(unit, "input", index, tensor)
            array = np.ascontiguousarray(array, dtype)
            address, size = self._inputs[index]
            self._check_size(unit, tensor, array.nbytes, size)
            self._acl.do("rt.memcpy", address, size, array.ctypes.data, array.nbytes, self._kinds[0])
        self._acl.do("mdl.execute", self._id, self._input_set, self._output_set)
        return {tensor.name: self._output(unit, index, tensor) for index, tensor in enumerate(unit.outputs)}

    def _arranged_inputs(self, unit, arrays):
        """[(index in the .om, Tensor, array)]; chooses the gear if there are gears. Refuses an .om of other shapes."""
        acl, description = self._acl, self._description
        names = [acl.get("mdl.get_input_name_by_index", description, index) for index in range(len(self._inputs))]
        gear = names.index(GEAR_INPUT) if GEAR_INPUT in names else None
        indices = [index for index in range(len(names)) if index != gear]
        if len(indices) != len(unit.inputs) or len(self._outputs) != len(unit.outputs):
            raise EngineError(
                f"unit {unit.name}: {self._path} has {len(indices)} inputs and {len(self._outputs)} outputs, "
                f"expected {len(unit.inputs)} and {len(unit.outputs)}; build it again"
            )
        wanted = [tensor.name for tensor in unit.inputs]
        if {names[index] for index in indices} == set(wanted):
            indices = [names.index(name) for name in wanted]
        shapes = {index: self._dims("mdl.get_input_dims", index) for index in indices}
        for index, tensor in zip(indices, unit.inputs):
            fits = len(shapes[index]) == len(tensor.shape) and all(
                dim == size or (dim == -1 and gear is not None) for dim, size in zip(shapes[index], tensor.shape)
            )
            if not fits:
                raise EngineError(
                    f"unit {unit.name}: input {tensor.name} of {self._path} has shape {shapes[index]}, expected "
                    f"{tensor.shape}; build it again"
                )
        if gear is not None:
            self._set_gear(unit, gear, {index: tensor.shape for index, tensor in zip(indices, unit.inputs)}, shapes)
        return list(zip(indices, unit.inputs, arrays))

    def _set_gear(self, unit, gear, wanted, shapes):
        """Choose the gear of the unit's shapes. wanted, shapes: {input: shape}, the unit's and with -1 the .om's."""
        acl, ids = self._acl, (self._id, self._input_set, gear)
        free = [size for index, shape in wanted.items() for size, dim in zip(shape, shapes[index]) if dim == -1]
        count = acl.do("mdl.get_input_dynamic_gear_count", self._description, -1)
        batches = acl.do("mdl.get_dynamic_batch", self._description)["batch"]
        pictures = acl.do("mdl.get_dynamic_hw", self._description, -1)["hw"]
        if count:
            gears = acl.do("mdl.get_input_dynamic_dims", self._description, -1, count)
            gears = [one["dims"][: one["dimCount"]] for one in gears]
            choice = [size for index in sorted(wanted) for size in wanted[index]]
            self._check_gear(unit, choice, gears)
            dims = {"name": "", "dimCount": len(choice), "dims": choice}
            acl.do("mdl.set_input_dynamic_dims", *ids, dims)
        elif batches:
            choice = free[0]
            self._check_gear(unit, choice, batches)
            acl.do("mdl.set_dynamic_batch_size", *ids, choice)
        else:
            choice = free[:2]  # height and width of the first such input
            self._check_gear(unit, choice, pictures)
            acl.do("mdl.set_dynamic_hw_size", *ids, *choice)

    def _check_gear(self, unit, choice, gears):
        if choice not in gears:
            raise EngineError(f"unit {unit.name}: {self._path} has gears {gears}, none is {choice}; build it again")

    def _output(self, unit, index, tensor):
        shape = self._dims("mdl.get_cur_output_dims", index)
        if tuple(shape) != tensor.shape:
            raise EngineError(
                f"unit {unit.name}: output {tensor.name} of {self._path} has shape {shape}, expected {tensor.shape}; "
                "build it again"
            )
        array = np.empty(tensor.shape, self._checked_dtype(unit, "output", index, tensor))
        address, size = self._outputs[index]
        self._check_size(unit, tensor, array.nbytes, size)
        self._acl.do("rt.memcpy", array.ctypes.data, array.nbytes, address, array.nbytes, self._kinds[1])
        return array.astype(tensor.dtype, copy=False)

    def _dims(self, name, index):
        found = self._acl.do(name, self._description, index)
        return list(found["dims"][: found["dimCount"]])

    def _checked_dtype(self, unit, side, index, tensor):
        """NumPy type the .om has for a tensor: the unit's, or the other float that ATC can be told to use."""
        code = self._acl.get(f"mdl.get_{side}_data_type", self._description, index)
        found = DTYPES.get(code, f"ACL type {code}")
        if found != tensor.dtype and not (found.startswith("float") and tensor.dtype.startswith("float")):
            raise EngineError(
                f"unit {unit.name}: {side} {tensor.name} of {self._path} is {found}, expected {tensor.dtype}"
            )
        return found

    def _check_size(self, unit, tensor, needed, size):
        if needed > size:
            raise EngineError(
                f"unit {unit.name}: {tensor.name} of {self._path} has room for {size} bytes, needs {needed}"
            )


def _check_weights(folder, path, entry):
    """ACL looks for external weights in weight/ beside the .om, and says little when one is missing."""
    for part in entry.get("data", ()):
        if (folder / part["path"]).parent != path.parent / "weight":
            raise EngineError(f"weights {part['path']} of {path} must lie in {path.parent / 'weight'}; build it again")
