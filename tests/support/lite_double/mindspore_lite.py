"""A strict double of MindSpore Lite's Python interface for Ascend, as of 2.7: no Lite, no NPU.

A "graph" is any file with a JSON file beside it, NAME.json: {"inputs": [[name, shape, dtype]], "outputs": [...],
"doubles": index of the input that every output is twice of}. Everything the interface types are strict about is
checked, and predict fails unless every input was set since the last one. `loaded.json` beside the graph tells what was
asked for.
"""

import importlib.util
import json
import os
from enum import Enum

import numpy as np

if "sonic_ms" in (getattr(importlib.util.find_spec("onnx"), "origin", None) or ""):
    raise ImportError("the worker hides the real onnx, mindspore and acl behind this package's files of those names")

__version__ = os.environ.get("LITE_DOUBLE_VERSION", "2.7.0")


class ModelType(Enum):
    MINDIR = 0
    MINDIR_LITE = 4


class DataType(Enum):
    INT32 = 34
    FLOAT16 = 42
    FLOAT32 = 43


class Ascend:
    def __init__(self):
        self._precision, self._device = "enforce_fp16", 0

    @property
    def precision_mode(self):
        return self._precision

    @precision_mode.setter
    def precision_mode(self, value):
        known = ("enforce_fp32", "preferred_fp32", "enforce_fp16", "enforce_origin", "preferred_optimal")
        if value not in known:
            raise ValueError(f"precision_mode must be in {known}, but got {value}.")
        self._precision = value

    @property
    def device_id(self):
        return self._device

    @device_id.setter
    def device_id(self, value):
        if type(value) is not int:
            raise TypeError(f"device_id must be int, but got {type(value)}.")
        self._device = value


class Context:
    def __init__(self):
        self.ascend, self._target = Ascend(), ["cpu"]

    @property
    def target(self):
        return self._target

    @target.setter
    def target(self, value):
        if not isinstance(value, list) or not all(one in ("cpu", "gpu", "ascend") for one in value):
            raise TypeError(f"target must be a list of known targets, but got {value}.")
        self._target = value


class Tensor:
    def __init__(self, name, shape, dtype):
        self.name, self.shape, self.dtype = name, list(shape), DataType[dtype.upper()]
        self.content = None

    def set_data_from_numpy(self, array):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"numpy_obj must be numpy.ndarray, but got {type(array)}.")
        if array.dtype.name != self.dtype.name.lower():
            raise RuntimeError(f"data type not equal! Numpy type: {array.dtype}, Tensor type: {self.dtype}")
        if array.size != np.prod(self.shape):
            raise RuntimeError("data size not equal!")
        self.content = array.copy()

    def get_data_to_numpy(self):
        return self.content


class Model:
    def __init__(self):
        self._inputs = None

    def build_from_file(self, model_path, model_type, context=None, config_path="", config_dict=None):
        if not os.path.exists(model_path):
            raise RuntimeError("build_from_file failed, model_path does not exist!")
        if model_type is not ModelType.MINDIR or not isinstance(context, Context) or context.target != ["ascend"]:
            raise RuntimeError("build_from_file failed!")
        with open(model_path + ".json") as file:
            self._graph = json.load(file)
        self._inputs = [Tensor(*one) for one in self._graph["inputs"]]
        with open(os.path.join(os.path.dirname(model_path), "loaded.json"), "w") as file:
            json.dump([os.path.basename(model_path), context.ascend.precision_mode, context.ascend.device_id], file)

    def get_inputs(self):
        if self._inputs is None:
            raise RuntimeError("get_inputs before build_from_file")
        return list(self._inputs)

    def predict(self, inputs, outputs=None):
        if not isinstance(inputs, list) or inputs != self._inputs:
            raise RuntimeError("predict failed! not the tensors of get_inputs, in their order")
        if any(tensor.content is None for tensor in inputs):
            raise RuntimeError("predict failed! an input was not set")
        results = []
        for name, shape, dtype in self._graph["outputs"]:
            result = Tensor(name, shape, dtype)
            result.set_data_from_numpy((2 * inputs[self._graph["doubles"]].content).astype(dtype).reshape(shape))
            results.append(result)
        for tensor in inputs:
            tensor.content = None
        return results
