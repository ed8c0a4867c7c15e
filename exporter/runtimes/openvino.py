"""OpenVINO's CPU plugin.

Left alone, the plugin computes float32 models in bfloat16 wherever the processor has instructions for it (AVX512-BF16,
AMX): a CIFAR ResNet's logits then differ by 2e-3 of their scale instead of 2e-7, and a float16 model is rounded to
bfloat16's 8 bits too. What is measured here is the model in the file, so the precision is float32 unless all its
convolutions and products are float16 or bfloat16 and the processor multiplies such numbers. The integers of quantized
models are not touched by that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._cpu import this_cpu
from rexport._errors import ModelFileError, UnavailableError
from rexport.runtimes._last_shapes import LastShapes
from rexport.runtimes._onnx_files import onnx_file, run_in_batches

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.feeds import Feed
    from rexport.runtimes.source import Source

__all__ = ["OpenVino"]

_MULTIPLY = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}
_CAPABILITY = {"f16": "FP16", "bf16": "BF16"}  # of the processor, by the type of the model


class OpenVino:
    """An ONNX file, compiled for each shape of input that comes.

    Batches and sizes that the file leaves open are fixed to those of the images: the plugin plans layouts and memory
    ahead then. So the first call of a shape takes as long as compiling. The last few shapes are kept. With
    ``count_times``, requests know what each node takes (``get_profiling_info``).
    """

    def __init__(self, source: Source, *, threads: int | None = None, count_times: bool = False) -> None:
        path = onnx_file(source, "OpenVINO")
        self._core = _core()
        self._model = _read(self._core, path)
        shapes = [source.partial_shape for source in self._model.inputs]
        first = shapes[0]
        self._batch: int | None = None if not len(first) or first[0].is_dynamic else first[0].get_length()
        self._threads = threads or this_cpu().cores
        self._strict = threads is not None
        self._count_times = count_times
        self._precision = _precision(self._model, self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self._requests = LastShapes[tuple[tuple[int, ...], ...], Any]()
        if all(shape.is_static for shape in shapes):
            self.request(tuple(tuple(shape.to_shape()) for shape in shapes))

    def __enter__(self) -> OpenVino:
        return self

    def __exit__(self, *exception: object) -> None:
        self._requests.clear()
        del self._model, self._core

    def run(self, feed: Feed) -> np.ndarray:
        """Return the first output for a feed; a model with a fixed batch is run as often as needed."""
        return self.run_all(feed)[0]

    def run_all(self, feed: Feed) -> list[np.ndarray]:
        """Return all outputs likewise, in the file's order."""
        return run_in_batches(self._run, feed, self._batch)

    def _run(self, feed: Feed) -> list[np.ndarray]:
        arrays = [feed] if isinstance(feed, np.ndarray) else [_of_source(feed, source) for source in self._model.inputs]
        # the outputs are copied: the request writes the next ones to the same place
        results = self.request(tuple(array.shape for array in arrays)).infer(arrays, share_inputs=True)
        return [results[index] for index in range(len(self._model.outputs))]

    def request(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        """Return OpenVINO's request for inputs of these shapes."""
        return self._requests.at(shapes, lambda: self._compile(shapes).create_infer_request())

    def _compile(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        model = self._model.clone()
        if model.is_dynamic():
            model.reshape({source: list(shape) for source, shape in zip(model.inputs, shapes, strict=True)})
        ran_on = 0
        for hyper_threading in (False, True):  # the second thread of a core only where cores are not enough
            options = {
                "INFERENCE_NUM_THREADS": self._threads,
                "INFERENCE_PRECISION_HINT": self._precision,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "ENABLE_HYPER_THREADING": hyper_threading,
                "PERF_COUNT": self._count_times,
            }
            compiled = self._core.compile_model(model, "CPU", options)
            ran_on = compiled.get_property("INFERENCE_NUM_THREADS")
            if ran_on == self._threads or not self._strict:
                return compiled
        raise UnavailableError(
            f"OpenVINO runs on {ran_on} threads here, not on {self._threads}: it takes at most the usable "
            f"cores; pass --threads {ran_on}."
        )


def _of_source(feed: dict[str, np.ndarray], source: Any) -> np.ndarray:
    return next(array for name, array in feed.items() if name in source.get_names())


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UnavailableError(
            f"OpenVINO can't be imported ({error}); install it with `pip install 'rexport[openvino]'`."
        ) from error
    return openvino.Core()


def _read(core: Any, path: Path) -> Any:
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist; name an ONNX file, such as one that `rexport onnx` wrote.")
    try:
        model = core.read_model(path)
    except RuntimeError as error:  # all that it raises
        raise ModelFileError(f"{path} does not load in OpenVINO: {_said(error)}.") from error
    return model


def _precision(model: Any, capabilities: list[str]) -> str:
    """Return the type to compute floats in."""
    types = {op.output(0).element_type.get_type_name() for op in model.get_ops() if op.get_type_name() in _MULTIPLY}
    if len(types) == 1 and _CAPABILITY.get(*types) in capabilities:
        return str(types.pop())
    return "f32"


def _said(error: Exception) -> str:
    """Return the last line of OpenVINO's error: those before it are the places in its source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().rstrip(".")
