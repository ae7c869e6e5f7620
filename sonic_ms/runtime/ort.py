"""onnxruntime as an engine: the ONNX graphs of a bundle on the CPU, or on an Ascend NPU where its build has CANN."""

import os

from sonic_ms.errors import EngineError
from sonic_ms.files.threads import threads as threads_of_process
from sonic_ms.runtime.engine import check_inputs
from sonic_ms.runtime.turns import check_process, in_turn

MOST_RUNS = 4  # of a unit at once
PROVIDERS = ("CANNExecutionProvider", "CPUExecutionProvider")  # in the order they are preferred


class OnnxEngine:
    """Engine over the ONNX files of a Bundle, or of something else that has units, path() and weights(). Raises
    EngineError when onnxruntime is missing or refuses a graph."""

    @in_turn
    def __init__(self, bundle):
        self._runtime, self._bundle, self._sessions = import_onnxruntime(), bundle, {}
        available = self._runtime.get_available_providers()
        self.providers = [name for name in PROVIDERS if name in available]

    @in_turn
    def prepare(self, unit):
        self._session(unit)

    def _session(self, unit):
        if unit not in self._sessions:
            path, weights = self._bundle.path(unit, "onnx"), self._bundle.weights(unit)
            threads = self._bundle.units[unit].threads
            self._sessions[unit] = open_session(path, self.providers, weights=weights, threads=threads)
        return self._sessions[unit]

    def run(self, unit, inputs):
        if unit not in self._sessions:
            self.prepare(unit)
        # onnxruntime lets threads run one session at once: graphs of one thread need not take turns for the cores
        run = self._run if self._bundle.units[unit].threads == 1 else in_turn(self._run)
        check_process()
        return run(unit, inputs)

    def _run(self, unit, inputs):
        session, spec = self._session(unit), self._bundle.units[unit]
        arrays = check_inputs(spec, inputs)
        names = [tensor.name for tensor in spec.outputs]
        feed = {tensor.name: array for tensor, array in zip(spec.inputs, arrays)}
        return dict(zip(names, run_session(session, names, feed, f"unit {unit}")))

    def at_once(self, unit):
        """See engine.runs_at_once. Each run needs memory of its own."""
        return min(threads_of_process() or os.cpu_count(), MOST_RUNS) if self._bundle.units[unit].threads == 1 else 1

    def info(self):
        return {
            "engine": "onnxruntime",
            "version": self._runtime.__version__,
            "device": self.providers[0],
            "graphs": "ONNX",
        }

    @in_turn
    def close(self):
        self._sessions = {}


def open_session(graph, providers=("CPUExecutionProvider",), severity=3, optimise=True, weights=None, threads=0):
    """The onnxruntime session of an ONNX file, or of its bytes.

    severity: least of onnxruntime's own messages that is printed, 3 errors, 4 none but fatal ones. optimise: False runs
    the graph as it is written. weights: {name: array} of initializers that the file leaves out. threads: of a run, 0
    for as many as the process may use. Raises EngineError when onnxruntime is missing or refuses the graph.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = severity, threads or threads_of_process()
    # Threads that wait for work actively take the cores from everything else: pasting, the encoder, other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if weights:
        values = [runtime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    name = "the graph" if isinstance(graph, bytes) else graph
    try:
        source = graph if isinstance(graph, bytes) else str(graph)
        return runtime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # its exceptions share no base class of their own
        raise EngineError(f"onnxruntime refuses {name}: {' '.join(str(error).split())}") from error


def run_session(session, names, feed, what):
    """Outputs `names` of a session, in their order. Raises EngineError that says on what it failed."""
    try:
        return session.run(names, feed)
    except Exception as error:
        raise EngineError(f"onnxruntime fails on {what}: {' '.join(str(error).split())}") from error


def import_onnxruntime():
    """The module; EngineError that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime cannot be imported ({error}); install it: pip install onnxruntime") from error
    return onnxruntime
