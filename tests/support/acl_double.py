"""A strict double of pyACL, the module `acl`: no device, no CANN, but every rule of its protocol that can be broken.

It returns what pyACL returns, (value, code), code, or a bare value, and raises ProtocolError where real code would
crash, corrupt memory or leak without a word: wrong order, wrong sizes, wrong kind of copy, use after free, double free,
anything left at finalize. An ".om" is a JSON file that names its tensors and one of the double's `programs`, a function
from arrays to arrays. It proves the calls, not the device.
"""

import ctypes
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np

DTYPES = {0: np.dtype("float32"), 1: np.dtype("float16"), 3: np.dtype("int32")}
GEAR_INPUT = "ascend_mbatch_shape_data"
ON_BOARD, ON_HOST = 0, 1  # run modes
DEVICE_SPACE = 1 << 32  # addresses below are the device's; no host array lies there


class ProtocolError(AssertionError):
    """A call that the protocol forbids."""


def require(condition, message):
    if not condition:
        raise ProtocolError(message)


class AclDouble:
    """programs: {name: function(list of arrays) -> list of arrays}; fail: name of a function that does nothing and
    returns code 500002, or frees and returns it, or makes nothing and returns 0; run_mode: ON_HOST or ON_BOARD;
    initialised: by somebody else."""

    def __init__(self, programs, run_mode=ON_HOST, fail=None, initialised=False):
        self.programs, self.run_mode, self.fail, self.initialised = programs, run_mode, fail, initialised
        self.foreign, self.device, self.calls, self.loaded = initialised, None, [], []
        self.things, self.next, self.thread = {}, 1 << 20, threading.local()
        self.rt, self.mdl = SimpleNamespace(), SimpleNamespace()
        for name in dir(type(self)):
            space, _, rest = name.partition("__")
            if space in ("rt", "mdl", "acl") and rest:
                owner = self if space == "acl" else getattr(self, space)
                setattr(owner, rest, self._watched(rest if space == "acl" else f"{space}.{rest}", getattr(self, name)))

    def _watched(self, name, function):
        def call(*arguments):
            self.calls.append(name)
            require(name in ("init", "get_recent_err_msg") or self.initialised, f"{name} before init")
            if name == self.fail:
                if name in FREEING:
                    function(*arguments)
                return FAILURES.get(name, 500002)
            return function(*arguments)

        return call

    # what exists on the device -------------------------------------------------------------------------------

    def new(self, kind, **content):
        self.next += 1 << 12
        self.things[self.next] = SimpleNamespace(kind=kind, **content)
        return self.next

    def find(self, kind, handle):
        thing = self.things.get(handle)
        require(thing is not None and thing.kind == kind, f"{handle!r} is not a living {kind}")
        return thing

    def remove(self, kind, handle):
        self.find(kind, handle)
        del self.things[handle]
        return 0

    def current(self):
        """The context of this thread, which most calls need."""
        context = getattr(self.thread, "context", None)
        require(context in self.things, "no living context in this thread")
        return context

    def leaks(self):
        return [thing.kind for thing in self.things.values()]

    # acl -----------------------------------------------------------------------------------------------------

    def acl__init(self):
        if self.initialised:
            return 100002
        self.initialised = True
        return 0

    def acl__finalize(self):
        require(not self.foreign, "finalize, but somebody else had initialised")
        require(not self.things, f"finalize with {self.leaks()} left")
        require(self.device is None, "finalize before reset_device")
        self.initialised = False
        return 0

    def acl__get_soc_name(self):
        return "Ascend310P3"

    def acl__get_recent_err_msg(self):
        return "E19999: the double\nwas told to fail"

    def acl__create_data_buffer(self, address, size):
        memory = self.find("memory", address)
        require(size <= len(memory.data), f"data buffer of {size} bytes on memory of {len(memory.data)}")
        return self.new("data buffer", address=address, size=size)

    def acl__destroy_data_buffer(self, buffer):
        return self.remove("data buffer", buffer)

    # acl.rt --------------------------------------------------------------------------------------------------

    def rt__set_device(self, device):
        require(self.device is None, "set_device twice")
        self.device = device
        return 0

    def rt__reset_device(self, device):
        require(device == self.device, f"reset_device({device}) of device {self.device}")
        require("context" not in self.leaks(), "reset_device before destroy_context")
        self.device = None
        return 0

    def rt__create_context(self, device):
        require(device == self.device, f"context on device {device}, set is {self.device}")
        self.thread.context = self.new("context")
        return self.thread.context, 0

    def rt__set_context(self, context):
        self.find("context", context)
        self.thread.context = context
        return 0

    def rt__destroy_context(self, context):
        require(self.leaks() == ["context"], f"destroy_context with {self.leaks()} left")
        return self.remove("context", context)

    def rt__get_run_mode(self):
        return self.run_mode, 0

    def rt__malloc(self, size, policy):
        self.current()
        require(policy in (0, 1, 2) and size > 0, f"malloc({size}, {policy})")
        return self.new("memory", data=bytearray(size), written=False), 0

    def rt__free(self, address):
        self.current()
        users = [one for one in self.things.values() if one.kind == "data buffer" and one.address == address]
        require(not users, "free of memory that a data buffer uses")
        return self.remove("memory", address)

    def rt__memcpy(self, target, room, source, count, kind):
        self.current()
        require(0 < count <= room, f"copy of {count} bytes into {room}")
        to_device, from_device = target < DEVICE_SPACE, source < DEVICE_SPACE
        require(to_device != from_device, "copy within one side")
        expected = 3 if self.run_mode == ON_BOARD else 1 if to_device else 2
        require(kind == expected, f"copy of kind {kind}, must be {expected}")
        memory = self.find("memory", target if to_device else source)
        require((room if to_device else count) <= len(memory.data), f"copy beyond memory of {len(memory.data)} bytes")
        if to_device:
            memory.data[:count] = ctypes.string_at(source, count)
            memory.written = True
        else:
            require(memory.written, "reads what nobody wrote")
            ctypes.memmove(target, bytes(memory.data[:count]), count)
        return 0

    # acl.mdl -------------------------------------------------------------------------------------------------

    def mdl__load_from_file(self, path):
        context = self.current()
        model = json.loads(Path(path).read_text())
        if not all((Path(path).parent / "weight" / name).is_file() for name in model.get("weights", ())):
            return 0, 145002
        self.loaded.append(path)
        return self.new("model", spec=model, context=context, gear=None), 0

    def mdl__unload(self, model):
        require(self.find("model", model).context == self.current(), "unload in another context")
        return self.remove("model", model)

    def mdl__create_desc(self):
        return self.new("description", model=None)

    def mdl__destroy_desc(self, description):
        return self.remove("description", description)

    def mdl__get_desc(self, description, model):
        self.find("description", description).model = self.find("model", model)
        return 0

    def _model(self, description):
        model = self.find("description", description).model
        require(model is not None, "description is empty: get_desc first")
        return model

    def _tensors(self, description, side):
        spec = self._model(description).spec
        gear = {"name": GEAR_INPUT, "dims": [4], "dtype": 3}
        return spec[side] + ([gear] if side == "inputs" and "gears" in spec else [])

    def mdl__get_num_inputs(self, description):
        return len(self._tensors(description, "inputs"))

    def mdl__get_num_outputs(self, description):
        return len(self._tensors(description, "outputs"))

    def _size(self, description, side, index):
        tensor = self._tensors(description, side)[index]
        dims = tensor.get("largest", tensor["dims"])
        return int(np.prod(dims)) * DTYPES[tensor["dtype"]].itemsize

    def mdl__get_input_size_by_index(self, description, index):
        return self._size(description, "inputs", index)

    def mdl__get_output_size_by_index(self, description, index):
        return self._size(description, "outputs", index)

    def mdl__get_input_name_by_index(self, description, index):
        return self._tensors(description, "inputs")[index]["name"]

    def mdl__get_input_data_type(self, description, index):
        return self._tensors(description, "inputs")[index]["dtype"]

    def mdl__get_output_data_type(self, description, index):
        return self._tensors(description, "outputs")[index]["dtype"]

    def mdl__get_input_dims(self, description, index):
        return _dims(self._tensors(description, "inputs")[index]["dims"]), 0

    def mdl__get_cur_output_dims(self, description, index):
        model, tensor = self._model(description), self._tensors(description, "outputs")[index]
        return _dims(tensor["dims"] if model.gear is None else tensor["gears"][model.gear]), 0

    def mdl__create_dataset(self):
        return self.new("data set", buffers=[])

    def mdl__destroy_dataset(self, dataset):
        return self.remove("data set", dataset)

    def mdl__add_dataset_buffer(self, dataset, buffer):
        self.find("data buffer", buffer)
        self.find("data set", dataset).buffers.append(buffer)
        return dataset, 0

    def _gears(self, description, kind):
        gears = self._model(description).spec["gears"]
        return gears["values"] if gears["kind"] == kind else []

    def mdl__get_input_dynamic_gear_count(self, description, index):
        require(index == -1, "index is reserved, -1")
        return len(self._gears(description, "dims")), 0

    def mdl__get_input_dynamic_dims(self, description, index, count):
        require(index == -1 and count == len(self._gears(description, "dims")), "wrong gear count")
        return [_dims(values) for values in self._gears(description, "dims")], 0

    def mdl__get_dynamic_batch(self, description):
        values = self._gears(description, "batch")
        return {"batchCount": len(values), "batch": values}, 0

    def mdl__get_dynamic_hw(self, description, index):
        values = self._gears(description, "hw")
        return {"hwCount": len(values), "hw": values}, 0

    def _set_gear(self, kind, model, dataset, index, value):
        model, buffers = self.find("model", model), self.find("data set", dataset).buffers
        require(model.spec["gears"]["kind"] == kind, f"model has gears of {model.spec['gears']['kind']}, not {kind}")
        require(index == len(buffers) - 1 == len(model.spec["inputs"]), f"input {index} is not the gear's")
        require(value in model.spec["gears"]["values"], f"no gear {value}")
        self.find("memory", self.find("data buffer", buffers[index]).address).written = True
        model.gear = model.spec["gears"]["values"].index(value)
        return 0

    def mdl__set_input_dynamic_dims(self, model, dataset, index, dims):
        require(dims["dimCount"] == len(dims["dims"]), "dimCount")
        return self._set_gear("dims", model, dataset, index, dims["dims"])

    def mdl__set_dynamic_batch_size(self, model, dataset, index, batch):
        return self._set_gear("batch", model, dataset, index, batch)

    def mdl__set_dynamic_hw_size(self, model, dataset, index, height, width):
        return self._set_gear("hw", model, dataset, index, [height, width])

    def mdl__execute(self, model, inputs, outputs):
        model = self.find("model", model)
        require(model.context == self.current(), "execute in another context than load")
        spec, gear, sides = model.spec, model.gear, {}
        for side, dataset in (("inputs", inputs), ("outputs", outputs)):
            buffers = self.find("data set", dataset).buffers
            extra = side == "inputs" and "gears" in spec
            require(len(buffers) == len(spec[side]) + extra, f"{len(buffers)} {side}")
            sides[side] = [self.find("memory", self.find("data buffer", one).address) for one in buffers]
        arrays = []
        for memory in sides["inputs"]:
            require(memory.written, "execute before all inputs were copied and the gear was set")
        for tensor, memory in zip(spec["inputs"], sides["inputs"]):
            dims = tensor["dims"] if gear is None else tensor["gears"][gear]
            arrays.append(np.frombuffer(memory.data, DTYPES[tensor["dtype"]], int(np.prod(dims))).reshape(dims))
        results = self.programs[spec["program"]](arrays)
        for tensor, memory, result in zip(spec["outputs"], sides["outputs"], results):
            content = np.ascontiguousarray(result, DTYPES[tensor["dtype"]]).tobytes()
            require(len(content) <= len(memory.data), f"output of {len(content)} bytes into {len(memory.data)}")
            memory.data[: len(content)] = content
            memory.written = True
        return 0


FREEING = (
    *("finalize", "destroy_data_buffer", "rt.free", "rt.destroy_context", "rt.reset_device"),
    *("mdl.unload", "mdl.destroy_desc", "mdl.destroy_dataset"),
)
# what a function that returns more than a code returns when it fails
FAILURES = {
    **dict.fromkeys(("rt.create_context", "rt.get_run_mode", "rt.malloc", "mdl.load_from_file"), (0, 500002)),
    **dict.fromkeys(("mdl.get_input_dims", "mdl.get_cur_output_dims", "mdl.add_dataset_buffer"), (None, 500002)),
    **dict.fromkeys(("mdl.get_dynamic_batch", "mdl.get_dynamic_hw"), (None, 500002)),
    **dict.fromkeys(("mdl.get_input_dynamic_gear_count", "mdl.get_input_dynamic_dims"), (None, 500002)),
    **dict.fromkeys(("mdl.create_desc", "mdl.create_dataset", "create_data_buffer"), 0),
}


def _dims(values):
    """As pyACL returns dimensions."""
    return {"name": "", "dimCount": len(values), "dims": list(values)}
