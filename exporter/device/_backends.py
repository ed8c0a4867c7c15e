"""The runtimes that the worker can use: ONNX Runtime on the CPU, and TensorRT with engines.

TensorRT's part is written for 10, 11 and TensorRT for RTX 1.x, from the names that all of them have.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from ._cores import throttling_quota, usable_cores
from ._cuda import Cuda, DeviceArray
from ._target import MODULES

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Backend", "OnnxRuntime", "TensorRt", "build_engine", "module"]

_STRONGLY_TYPED_SINCE = (10, 12)  # before, the flag is there, and Q/DQ needs BuilderFlag.INT8 (JetPack 6: 10.3)


class Backend:
    """A loaded model.

    Attributes:
        batch: The batch that the model insists on, ``None`` where it takes any.
        version: Of the runtime.
    """

    batch: int | None = None
    version: str = ""

    def outputs(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return all outputs by their names, in the model's order."""
        raise NotImplementedError

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Return the first output."""
        return next(iter(self.outputs(inputs).values()))


class OnnxRuntime(Backend):
    """ONNX Runtime's CPU provider."""

    def __init__(self, model: bytes) -> None:
        ort = module("onnxruntime")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if throttling_quota() is not None:  # ONNX Runtime itself goes by the affinity
            options.intra_op_num_threads = usable_cores()
        # without VNNI, x86's fast 8-bit products saturate at 16 bits: better slow than wrong
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        model_input = self._session.get_inputs()[0]
        self._name = model_input.name
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.batch = model_input.shape[0] if model_input.shape and isinstance(model_input.shape[0], int) else None
        self.version = str(ort.__version__)

    def outputs(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return all outputs by their names, in the model's order."""
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._name: inputs})))


class TensorRt(Backend):
    """An engine of TensorRT or TensorRT for RTX, one input and some outputs, in memory that is allocated per shape."""

    def __init__(self, name: str, engine: bytes) -> None:
        self._cuda = Cuda()  # before TensorRT, which may crash where there is no driver
        trt = module(name)
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise ValueError(f"its engine does not load in {name} {trt.__version__}")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or not outputs:
            raise ValueError(f"its engine has {len(inputs)} inputs and {len(outputs)} outputs, and one input is known")
        self._input = inputs[0]
        self._dtypes = {name: trt.nptype(self._engine.get_tensor_dtype(name)) for name in outputs}
        first = self._engine.get_tensor_shape(self._input)[0]
        self.batch = None if first < 0 else int(first)
        self.version = str(trt.__version__)
        self._memory: dict[tuple[int, ...], tuple[DeviceArray, list[DeviceArray]]] = {}

    def outputs(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return all outputs by their names, in the engine's order."""
        import numpy as np

        inputs = np.ascontiguousarray(inputs)
        if not self._context.set_input_shape(self._input, inputs.shape):
            raise ValueError(f"its engine does not take the shape {inputs.shape}")
        outputs: dict[str, np.ndarray] = {
            name: np.empty(tuple(self._context.get_tensor_shape(name)), dtype) for name, dtype in self._dtypes.items()
        }
        if inputs.shape not in self._memory:
            results = [self._cuda.array(output.nbytes) for output in outputs.values()]
            self._memory[inputs.shape] = self._cuda.array(inputs.nbytes), results
        source, results = self._memory[inputs.shape]
        source.upload(inputs.ctypes.data)
        self._context.set_tensor_address(self._input, source.address)
        for name, result in zip(outputs, results):
            self._context.set_tensor_address(name, result.address)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise ValueError("its engine failed to run")
        self._cuda.wait()
        for output, result in zip(outputs.values(), results):
            result.download(output.ctypes.data)
        return outputs


def module(name: str) -> Any:
    """Import the package of a runtime.

    Raises:
        ImportError: It can't be imported.
    """
    return importlib.import_module(MODULES[name])


def build_engine(name: str, model: bytes, shape: tuple[int, ...], capability: int) -> bytes:
    """Build an engine from an ONNX file.

    Args:
        name: ``tensorrt`` or ``rtx``.
        model: The file's bytes.
        shape: Of the golden input; where a model leaves the batch open, the engine takes 1 to as many as that has.
        capability: The GPU's compute capability times ten. TensorRT for RTX needs no GPU to build for it; TensorRT
            builds for the one that is there.

    Raises:
        ValueError: TensorRT can't.
    """
    trt = module(name)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    strongly = _strongly_typed(name, trt)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if strongly else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise ValueError(f"TensorRT can't read the model: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    if not strongly:
        for flag in ("INT8", "FP16"):
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if hasattr(config, "num_compute_capabilities"):  # TensorRT for RTX
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), 0)
    only = network.get_input(0)
    if any(size < 0 for size in only.shape):
        profile = builder.create_optimization_profile()
        profile.set_shape(only.name, (1, *shape[1:]), shape, shape)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError("TensorRT can't build an engine of the model")
    return bytes(engine)


def _strongly_typed(name: str, trt: Any) -> bool:
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return False
    version = tuple(int(part) for part in re.findall(r"\d+", str(trt.__version__))[:2])
    return name == "rtx" or version >= _STRONGLY_TYPED_SINCE
