"""ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from rexport._cpu import this_cpu
from rexport._errors import ModelFileError, UnavailableError

if TYPE_CHECKING:
    from types import TracebackType

    from rexport.runtimes.source import Source

__all__ = ["OnnxRuntimeCpu", "executed_ops", "open_session"]

_ERRORS = onnxruntime.capi.onnxruntime_pybind11_state
_QUIET = 3  # errors only: what the session can't do is raised, the rest is no news to a user


def open_session(
    model: bytes | Path, *, threads: int | None = None, optimized_to: Path | None = None
) -> onnxruntime.InferenceSession:
    """Return a session on the CPU provider; ``optimized_to`` also writes the graph that will really run.

    Raises:
        ModelFileError: ONNX Runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or this_cpu().cores
    options.log_severity_level = _QUIET
    if optimized_to is not None:
        options.optimized_model_filepath = str(optimized_to)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except (
        _ERRORS.Fail,
        _ERRORS.InvalidGraph,
        _ERRORS.InvalidArgument,
        _ERRORS.NotImplemented,
        _ERRORS.InvalidProtobuf,
    ) as error:
        name = "The model" if isinstance(model, bytes) else model
        raise ModelFileError(f"{name} does not load in ONNX Runtime: {error}") from error


class OnnxRuntimeCpu:
    """An ONNX file in a session of ONNX Runtime's CPU provider."""

    def __init__(self, source: Source, *, threads: int | None = None) -> None:
        if source.path is None:
            raise UnavailableError(
                f"ONNX Runtime runs ONNX files; make one with `rexport onnx {source} -o {source}.onnx`."
            )
        self._session = open_session(source.path, threads=threads)
        self._input = self._session.get_inputs()[0].name

    def __enter__(self) -> OnnxRuntimeCpu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run a batch of shape ``(N, 3, S, S)``, float32; return the first output."""
        logits: np.ndarray = self._session.run(None, {self._input: images})[0]
        return logits


def executed_ops(model: bytes | Path) -> Counter[str]:
    """Count the operators that ONNX Runtime really executes on this CPU, after its own graph optimizations.

    A quantized convolution that could not be fused appears as ``Conv`` here, not as ``QLinearConv``.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(model, optimized_to=optimized)
        return Counter(node.op_type for node in onnx.load(optimized).graph.node)
