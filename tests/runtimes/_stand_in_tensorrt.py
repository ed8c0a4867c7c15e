"""A stand-in for the package ``tensorrt``: its engines are ONNX files, which ONNX Runtime runs on the CPU.

It is copied to ``tensorrt.py`` into a folder of ``PYTHONPATH``, and works with the stand-in for CUDA's driver alone.
``STAND_IN_FAULT`` says what goes wrong while an engine is loaded, ``STAND_IN_VERSION`` which version this is.
"""

from __future__ import annotations

import ctypes
import enum
import math
import os
import signal
import time

import numpy as np
import onnx
import onnxruntime

__version__ = os.environ.get("STAND_IN_VERSION", "10.13.0.1")

_WORK = ctypes.CFUNCTYPE(None)
_TYPES = {1: ("FLOAT", np.float32), 2: ("UINT8", np.uint8), 10: ("HALF", np.float16)}


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class ILogger:
    ERROR, WARNING = 1, 2


class Logger(ILogger):
    def __init__(self, severity):
        pass

    def log(self, severity, message):
        pass


class Builder:
    def __init__(self, logger):
        pass

    def create_network(self, flags):
        return {}

    def create_builder_config(self):
        return None

    def build_serialized_network(self, network, config):
        model = onnx.load_from_string(network["model"])
        model.metadata_props.add(key="profiles", value="1:1:1")
        return model.SerializeToString()


class OnnxParser:
    def __init__(self, network, logger):
        self._network = network

    def parse(self, data):
        self._network["model"] = data
        return True


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger):
        self._logger = logger

    def deserialize_cuda_engine(self, data):
        assert not self.engine_host_code_allowed
        match os.environ.get("STAND_IN_FAULT"):
            case "crash":
                signal.raise_signal(signal.SIGSEGV)
            case "hang":
                time.sleep(60)
            case "greedy":
                hoard = [bytearray(64 * 2**20) for _ in range(16)]
                time.sleep(60)
                del hoard
            case "null":
                self._logger.log(ILogger.ERROR, "Serialization assertion failed.\n")
                return None
        return _Engine(data)


class _Engine:
    def __init__(self, data):
        self.data = data
        graph = onnx.load_from_string(data).graph
        self.inputs, self.outputs = ([self._tensor(one) for one in some] for some in (graph.input, graph.output))
        self.tensors = dict([*self.inputs, *self.outputs])
        stated = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
        self.profiles = [[int(size) for size in text.split(":")] for text in stated["profiles"].split(",")]
        self.num_io_tensors, self.num_optimization_profiles = len(self.tensors), len(self.profiles)

    @staticmethod
    def _tensor(value):
        kind = value.type.tensor_type
        return value.name, (kind.elem_type, tuple(d.dim_value if d.dim_value else -1 for d in kind.shape.dim))

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_location(self, name):
        return TensorLocation.DEVICE

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in dict(self.inputs) else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return f"DataType.{_TYPES[self.tensors[name][0]][0]}"

    def get_tensor_shape(self, name):
        return self.tensors[name][1]

    def get_tensor_profile_shape(self, name, index):
        rest = self.tensors[name][1][1:]
        return [(size, *rest) for size in self.profiles[index]]

    def create_execution_context(self):
        return _Context(self)


class _Context:
    def __init__(self, engine):
        self._engine = engine
        self._session = onnxruntime.InferenceSession(bytes(engine.data), providers=["CPUExecutionProvider"])
        self._addresses, self._profile, self._shape, self._kept = {}, 0, None, []
        self._driver = ctypes.CDLL(os.environ["STAND_IN_DRIVER"])

    def set_optimization_profile_async(self, index, stream):
        self._profile = index
        return True

    def set_input_shape(self, name, shape):
        least, _, most = self._engine.profiles[self._profile]
        if not least <= shape[0] <= most:
            return False
        self._shape = tuple(shape)
        return True

    def infer_shapes(self):
        return [] if self._shape else [self._engine.inputs[0][0]]

    def set_tensor_address(self, name, pointer):
        self._addresses[name] = pointer
        return True

    def execute_async_v3(self, stream):
        assert stream
        assert self._addresses.keys() == self._engine.tensors.keys()
        addresses = dict(self._addresses)  # as they are now: a graph keeps them
        work = _WORK(lambda: self._run(addresses))
        self._kept.append(work)
        return self._driver.stand_in_enqueue(work) == 0

    def _run(self, addresses):
        name = self._engine.inputs[0][0]
        results = self._session.run(None, {name: self._array(name, addresses[name], self._shape)})
        for (output, _), result in zip(self._engine.outputs, results, strict=True):
            self._array(output, addresses[output], result.shape)[...] = result

    def _array(self, name, pointer, shape):
        dtype = np.dtype(_TYPES[self._engine.tensors[name][0]][1])
        data = (ctypes.c_ubyte * (math.prod(shape) * dtype.itemsize)).from_address(pointer)
        return np.frombuffer(data, dtype).reshape(shape)
