"""onnxruntime as an engine: the ONNX graphs of a bundle on the CPU, or on an Ascend NPU where its build has CANN."""

from sonic_ms.errors import EngineError
from sonic_ms.runtime.engine import check_inputs

PROVIDERS = ("CANNExecutionProvider", "CPUExecutionProvider")  # in the order they are preferred


class OnnxEngine:
    """Engine over the ONNX files of a bundle. Raises EngineError when onnxruntime is missing or refuses a graph."""

    def __init__(self, bundle):
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                f"onnxruntime cannot be imported ({error}); install it: pip install onnxruntime"
            ) from error
        self._runtime, self._bundle, self._sessions = onnxruntime, bundle, {}
        available = onnxruntime.get_available_providers()
        self.providers = [name for name in PROVIDERS if name in available]

    def prepare(self, unit):
        self._session(unit)

    def _session(self, unit):
        if unit not in self._sessions:
            path = self._bundle.path(unit, "onnx")
            try:
                session = open_session(path, self.providers)
            except Exception as error:  # its exceptions share no base class of their own
                raise EngineError(f"onnxruntime refuses {path}: {' '.join(str(error).split())}") from error
            self._sessions[unit] = session
        return self._sessions[unit]

    def run(self, unit, inputs):
        session = self._session(unit)
        spec = self._bundle.units[unit]
        arrays = check_inputs(spec, inputs)
        names = [tensor.name for tensor in spec.outputs]
        feed = {tensor.name: array for tensor, array in zip(spec.inputs, arrays)}
        try:
            return dict(zip(names, session.run(names, feed)))
        except Exception as error:
            raise EngineError(f"onnxruntime fails on unit {unit}: {' '.join(str(error).split())}") from error

    def info(self):
        return {
            "engine": "onnxruntime",
            "version": self._runtime.__version__,
            "device": self.providers[0],
            "graphs": "ONNX",
        }

    def close(self):
        self._sessions = {}


def open_session(path, providers):
    """The onnxruntime session of an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(str(path), options, providers=providers)
