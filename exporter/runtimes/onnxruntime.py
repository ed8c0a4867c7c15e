"""ONNX Runtime on the CPU."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnxruntime

from rexport._cpu import this_cpu
from rexport._errors import ModelFileError
from rexport.feeds import by_name
from rexport.runtimes._onnx_files import onnx_file, run_in_batches

if TYPE_CHECKING:
    import numpy as np

    from rexport.feeds import Feed
    from rexport.runtimes.source import Source

__all__ = [
    "OnnxRuntimeCpu",
    "OnnxRuntimeNodeByNode",
    "executed_ops",
    "fixed_batch",
    "harmful_optimizers",
    "input_names",
    "open_session",
    "said",
]

_ERRORS = onnxruntime.capi.onnxruntime_pybind11_state
_REFUSALS = (
    _ERRORS.Fail, _ERRORS.InvalidGraph, _ERRORS.InvalidArgument, _ERRORS.NotImplemented, _ERRORS.InvalidProtobuf
)  # fmt: skip
_CODES = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
# It makes integers of the weights and biases of float layers between integers (1.31): weights with one scale for all of
# it, which is far coarser than the file for another runtime that leaves them in float; and biases at a scale that it
# computes in the type of the scales. The product of two float16 scales is often nothing, and what comes out, noise.
_ROUNDS_FLOATS = "WeightBiasQuantization"
_OTHER_TARGETS = ("openvino", "tensorrt")
_QUIET = 4  # fatal errors only: the others are raised too, and what the session can do anyway is no news to a user


def open_session(
    model: bytes | Path,
    *,
    threads: int | None = None,
    optimized_to: Path | None = None,
    plan_memory: bool = True,
    as_on_arm: bool = False,
    exact_sums: bool = False,
    profile_to: Path | None = None,
    optimize: bool = True,
) -> onnxruntime.InferenceSession:
    """Return a session on the CPU provider.

    Args:
        model: A serialized model, or its file.
        threads: By default one per usable core.
        optimized_to: Also write the graph that will really run to this file.
        plan_memory: Whether to lay all tensors out in one block after the first run. With an output at every tensor,
            ResNet-50 took 1.6 GiB with it and 1.0 without, at the same speed.
        as_on_arm: Whether to take integer kernels for int8 activations, as on ARM, where others are faster in float.
        exact_sums: Whether to add products in 32 bits on x86 without VNNI too, not pairs of them in 16, which saturate.
        profile_to: Record the time of each node; ``end_profiling()`` returns a file whose name begins with this path.
        optimize: Whether to change the graph; otherwise each node is computed by itself, slowly, and can be watched.

    Raises:
        ModelFileError: ONNX Runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads or this_cpu().cores, _QUIET
    options.enable_mem_pattern = plan_memory
    if optimized_to is not None:
        options.optimized_model_filepath = str(optimized_to)
    if profile_to is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile_to)
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for entry, is_set in (("session.qdqisint8allowed", as_on_arm), ("session.x64quantprecision", exact_sums)):
        if is_set:
            options.add_session_config_entry(entry, "1")
    return _load(model, options)


def _load(model: bytes | Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    name, source = ("The model", model) if isinstance(model, bytes) else (model, str(model))
    disabled = harmful_optimizers(model) or None
    try:
        return onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
    except _REFUSALS as error:
        raise ModelFileError(f"{name} does not load in ONNX Runtime: {said(error)}.") from error


def harmful_optimizers(model: bytes | Path) -> list[str]:
    """Return the optimizers that would change the results of a quantized model; a float model is not even parsed."""
    if isinstance(model, Path):
        if not model.is_file():
            return []
        model = model.read_bytes()
    if b"DequantizeLinear" not in model:
        return []
    try:
        proto = onnx.load_from_string(model)
    except Exception:  # protobuf's own errors share no public base class; ONNX Runtime says what is wrong
        return []
    scales = {node.input[1] for node in proto.graph.node if node.op_type == "DequantizeLinear" and len(node.input) > 1}
    has_half_scales = any(
        tensor.name in scales and tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in proto.graph.initializer
    )
    described = {entry.key: entry.value for entry in proto.metadata_props}.get("rexport.quantization", "{}")
    is_for_another = any(f'"target": "{name}"' in described for name in _OTHER_TARGETS)
    return [_ROUNDS_FLOATS] if has_half_scales or is_for_another else []


def said(error: Exception) -> str:
    """Return the message of ONNX Runtime's error on one line, without its codes and the last full stop."""
    return _CODES.sub("", " ".join(str(error).split())).rstrip(".")


class OnnxRuntimeCpu:
    """An ONNX file in a session of ONNX Runtime's CPU provider."""

    _optimize = True

    def __init__(self, source: Source, *, threads: int | None = None) -> None:
        self._session = open_session(onnx_file(source, "ONNX Runtime"), threads=threads, optimize=self._optimize)
        self._inputs = input_names(self._session)
        self._batch = fixed_batch(self._session)

    def __enter__(self) -> OnnxRuntimeCpu:
        return self

    def __exit__(self, *exception: object) -> None:
        del self._session

    def run(self, feed: Feed) -> np.ndarray:
        """Return the first output for a feed; a model with a fixed batch is run as often as needed."""
        return self.run_all(feed)[0]

    def run_all(self, feed: Feed) -> list[np.ndarray]:
        """Return all outputs likewise, in the file's order."""
        return run_in_batches(lambda part: self._session.run(None, by_name(part, self._inputs)), feed, self._batch)


class OnnxRuntimeNodeByNode(OnnxRuntimeCpu):
    """The same without any optimization: node by node, slowly."""

    _optimize = False


def input_names(session: onnxruntime.InferenceSession) -> list[str]:
    """Return the names of the inputs that a model must be given, in order."""
    return [value.name for value in session.get_inputs()]


def fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """Return the fixed batch of a model, ``None`` if it takes any."""
    batch = next(iter(session.get_inputs()[0].shape), None)
    return batch if isinstance(batch, int) else None


def executed_ops(model: bytes | Path, *, as_on_arm: bool = False) -> Counter[str]:
    """Count the operators that ONNX Runtime really executes on this CPU, or would on ARM, after its own optimizations.

    A quantized convolution that could not be fused appears as ``Conv`` here, not as ``QLinearConv``.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(model, optimized_to=optimized, as_on_arm=as_on_arm)
        return Counter(node.op_type for node in onnx.load(optimized).graph.node)
