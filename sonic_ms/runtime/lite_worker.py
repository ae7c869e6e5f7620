"""MindSpore Lite in a process of its own, told what to do by lite_process.py.

MindSpore and MindSpore Lite cannot share a process, and the Lite on the package index needs Python 3.7. So this file
imports nothing of this package, only NumPy and mindspore_lite, and must stay valid Python 3.7.

    python lite_worker.py LIFELINE ARENA      two inherited file descriptors

Requests come on stdin and answers go to stdout, one JSON object a line. Tensors lie in the arena, a file both sides
map. An answer with "error" says what failed; the worker goes on. It ends with its stdin, and the kernel ends it when
the lifeline closes, whatever it is doing, because only the parent holds the other end of that pipe.
"""

import fcntl
import json
import mmap
import os
import select
import sys


def main(lifeline, arena):
    sys.path.pop(0)  # this folder: its onnx.py and mindspore.py are not the packages of those names
    answers = os.dup(1)
    os.dup2(2, 1)  # the converter prints on stdout
    end_with_parent(lifeline)

    def answer(content):
        os.write(answers, json.dumps(content).encode() + b"\n")

    try:
        import mindspore_lite
        import numpy
    except Exception as error:  # a wheel for another Python fails in ways of its own
        answer({"error": "missing", "message": f"{type(error).__name__}: {error}"})
        return
    commands = Lite(mindspore_lite, numpy, arena)
    answer({"version": mindspore_lite.__version__, "python": sys.version.split()[0]})
    for line in sys.stdin.buffer:
        request = json.loads(line.decode())
        try:
            answer(getattr(commands, request.pop("do"))(**request) or {})
        except MemoryError as error:
            answer({"error": "memory", "message": str(error)})
        except Exception as error:
            answer({"error": "lite", "message": f"{type(error).__name__}: {error}"})


def end_with_parent(lifeline):
    """Have the kernel send SIGIO, which ends a process by default, when the other end of the pipe closes.

    A thread that waits for it would not do: Lite holds Python's lock while it computes or hangs.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it closed before
        os._exit(1)


class Lite:
    """The requests: one method each, called with the request's fields."""

    def __init__(self, mindspore_lite, numpy, arena):
        self.lite, self.numpy, self.arena, self.units = mindspore_lite, numpy, arena, {}

    def convert(self, source, result):
        """ONNX file -> result.mindir, in float32."""
        converter = self.lite.Converter()
        converter.save_type = self.lite.ModelType.MINDIR
        converter.convert(fmk_type=self.lite.FmkType.ONNX, model_file=source, output_file=result)

    def load(self, unit, graph, target, device_id, precision, threads, size, inputs, outputs):
        """Load a graph. inputs, outputs: [name, shape, dtype, offset in the arena]."""
        context = self.lite.Context()
        context.target = [target]
        if target == "ascend":
            context.ascend.device_id = device_id
            context.ascend.precision_mode = precision
        else:
            context.cpu.precision_mode = precision
            context.cpu.thread_num = threads
        model = self.lite.Model()
        model.build_from_file(graph, self.lite.ModelType.MINDIR, context)
        memory = mmap.mmap(self.arena, size)
        views = [
            [(name, self.numpy.ndarray(shape, dtype, memory, offset)) for name, shape, dtype, offset in side]
            for side in (inputs, outputs)
        ]
        arrange(unit, "input", model.get_inputs(), views[0])
        self.units[unit] = model, views[0], views[1]

    def run(self, unit):
        """Compute the outputs in the arena from the inputs there."""
        model, inputs, outputs = self.units[unit]
        tensors = model.get_inputs()
        for tensor, array in arrange(unit, "input", tensors, inputs):
            dtype = tensor.dtype.name.lower()
            if dtype != array.dtype.name:  # compiled for Ascend it may take float16, converted for a CPU float32
                array = array.astype(dtype)
            tensor.set_data_from_numpy(array)
        for tensor, array in arrange(unit, "output", model.predict(tensors), outputs):
            array[...] = tensor.get_data_to_numpy()


def arrange(unit, side, tensors, arrays):
    """Pairs (tensor, array): by name where the graph kept the names of the unit, else in order.

    Raises ValueError unless numbers and shapes agree, and types but for the size of floats.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    names = [name for name, _ in arrays]
    if set(by_name) == set(names):
        tensors = [by_name[name] for name in names]
    found = [(list(tensor.shape), tensor.dtype.name.lower().rstrip("0123456789")) for tensor in tensors]
    expected = [(list(array.shape), array.dtype.name.rstrip("0123456789")) for _, array in arrays]
    if found != expected:
        raise ValueError(f"{unit}: the graph has {side}s {found}, the unit {expected}")
    return [(tensor, array) for tensor, (_, array) in zip(tensors, arrays)]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
