"""ONNX Runtime's TensorRT provider.

An engine is built for each shape of input: its optimization profile has that shape as its smallest, best and largest.
It is kept in rexport's cache folder, under the hash of the whole model, because ONNX Runtime names engines after graphs
and would take another model's weights for this one's. Float16 is allowed where the file is float16, INT8 where it has
Q/DQ nodes, whose scales are then TensorRT's; there is no calibration. In float32 layers TensorRT uses TensorFloat-32,
which the provider has no option against; ``NVIDIA_TF32_OVERRIDE=0`` in the environment turns it off.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import onnx
import onnxruntime

from rexport._errors import ModelFileError
from rexport._files import cache_folder
from rexport.runtimes._last_shapes import LastShapes
from rexport.runtimes.onnxruntime_gpu import OnnxRuntimeGpu

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ENTRIES", "Facts", "OnnxRuntimeTensorRt", "engine_options", "facts_of", "provider_options"]

ENTRIES = {"session.disable_quant_qdq": "1"}
"""The session's entries: Q/DQ reach TensorRT where the file has them, not where ONNX Runtime would move them."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts of a file that the provider's options depend on.

    Attributes:
        name: The input's name.
        shape: The input's shape; ``None`` for open sizes.
        quantized: Whether the file has Q/DQ nodes.
        half: Whether any weights are float16.
        sha256: The hash of the file and its external data, in hex.
    """

    name: str
    shape: tuple[int | None, ...]
    quantized: bool
    half: bool
    sha256: str


class OnnxRuntimeTensorRt(OnnxRuntimeGpu):
    """An ONNX file in sessions of the TensorRT provider, one for each shape of input.

    Building an engine takes from seconds to minutes, at the first call of a shape, or while loading where the file
    leaves no shape open; from the cache it takes less than a second.
    """

    NAME: ClassVar[str] = "tensorrt"
    PROVIDER: ClassVar[str] = "TensorrtExecutionProvider"

    def _load(self) -> int | None:
        self._facts = facts_of(self._path)
        self._sessions = LastShapes[tuple[int, ...], onnxruntime.InferenceSession]()
        fixed = tuple(size for size in self._facts.shape if size is not None)
        if len(fixed) == len(self._facts.shape):
            self._session_for(fixed)
        return self._facts.shape[0]

    def _unload(self) -> None:
        self._sessions.clear()

    def _session_for(self, shape: tuple[int, ...]) -> onnxruntime.InferenceSession:
        return self._sessions.at(shape, lambda: self._new_session(shape))

    def _new_session(self, shape: tuple[int, ...]) -> onnxruntime.InferenceSession:
        options = provider_options(self._facts, shape, cache_folder() / "tensorrt")
        for key in ("trt_engine_cache_path", "trt_timing_cache_path"):
            Path(options[key]).mkdir(parents=True, exist_ok=True)
        return self._open(options, ENTRIES)


def facts_of(path: Path) -> Facts:
    """Read the facts that the provider's options depend on from a file.

    Raises:
        ModelFileError: It is no ONNX model, or one of several inputs.
    """
    try:
        data = path.read_bytes()
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf's own errors share no public base class
        raise ModelFileError(f"{path} does not load in ONNX Runtime: it is not an ONNX file.") from error
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        raise ModelFileError(f"{path} has {len(inputs)} inputs; expected one, images.")
    digest = hashlib.sha256(data)
    for file in sorted(
        {entry.value for t in graph.initializer for entry in t.external_data if entry.key == "location"}
    ):
        digest.update((path.parent / file).read_bytes())
    return Facts(
        name=inputs[0].name,
        shape=tuple(d.dim_value if d.HasField("dim_value") else None for d in inputs[0].type.tensor_type.shape.dim),
        quantized=any(node.op_type == "QuantizeLinear" for node in graph.node),
        half=any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer),
        sha256=digest.hexdigest(),
    )


def engine_options(facts: Facts, shapes: Sequence[Sequence[int]]) -> dict[str, str]:
    """Return the provider's options that change the engine.

    Args:
        facts: The facts of the file.
        shapes: The least, the best and the most images of the engine, as shapes of the input.
    """
    options = {
        "device_id": "0",
        "trt_fp16_enable": str(int(facts.half)),
        "trt_int8_enable": str(int(facts.quantized)),
    }
    if None in facts.shape:
        for bound, shape in zip(("min", "opt", "max"), shapes, strict=True):
            options[f"trt_profile_{bound}_shapes"] = f"{facts.name}:{_size(shape)}"
    return options


def provider_options(facts: Facts, shape: Sequence[int], folder: Path) -> dict[str, str]:
    """Return the provider's options for images of a shape, with engines and timings in a folder."""
    return {
        **engine_options(facts, (shape, shape, shape)),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder / f"{facts.sha256[:16]}-{_size(shape)}-{onnxruntime.__version__}"),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder / "timings"),
    }


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)
