"""The common part of ONNX Runtime's providers for NVIDIA GPUs.

ONNX Runtime silently runs elsewhere what a provider can't: the whole model, if its libraries or the driver are missing,
or single operators. Neither would be the requested runtime, so both are refused here. Only the
arithmetic of sizes (``Shape`` and what follows it), a handful of integers that belong on the CPU, may stay there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import onnxruntime

from rexport._cpu import this_cpu
from rexport._errors import ModelFileError, UnavailableError, UsageError
from rexport.feeds import in_batches, one_array
from rexport.runtimes import Phases
from rexport.runtimes._device_memory import DeviceMemory, OrtMemory, TorchMemory, cuda_stream
from rexport.runtimes._last_shapes import LastShapes
from rexport.runtimes._onnx_files import onnx_file, run_in_batches
from rexport.runtimes.onnxruntime import fixed_batch, harmful_optimizers, said
from rexport.runtimes.probes import PROBES, fell_back, load_libraries, require

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from rexport.feeds import Feed
    from rexport.runtimes.source import Source

__all__ = ["OnnxRuntimeGpu", "check_it_ran_there", "open_on_provider"]

_ERRORS = onnxruntime.capi.onnxruntime_pybind11_state
_QUIET = 4  # fatal errors only: the others are raised too, or found out below
_OF_SIZES = {"Shape", "Size", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "Reshape", "Range", "Where",
             "Constant", "ConstantOfShape", "Expand", "Add", "Sub", "Mul", "Div", "Min", "Max", "Floor", "Ceil",
             "Equal", "Less"}  # fmt: skip
_TELLS_WHERE = hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")  # newer ones do


class OnnxRuntimeGpu:
    """An ONNX file on one provider; a subclass says on which, with which options.

    Attributes:
        NAME: The name of its probe, in :data:`rexport.runtimes.probes.PROBES`.
        PROVIDER: ONNX Runtime's name for it.
        DEVICE: The device of its inputs and outputs.
        OPTIONS: The provider's options for all shapes of images.
    """

    NAME: ClassVar[str]
    PROVIDER: ClassVar[str]
    DEVICE: ClassVar[str] = "cuda"
    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, source: Source, *, threads: int | None = None) -> None:
        self._path = onnx_file(source, PROBES[self.NAME].what)
        self._threads = threads or this_cpu().cores
        require(self.NAME)
        load_libraries(self.PROVIDER, *PROBES[self.NAME].arguments[1:])
        self._stream = cuda_stream() if self.DEVICE == "cuda" else None
        self._memories = LastShapes[tuple[int, ...], DeviceMemory]()
        self._kept: DeviceMemory | None = None
        self._batch = self._load()

    def __enter__(self) -> OnnxRuntimeGpu:
        return self

    def __exit__(self, *exception: object) -> None:
        self._memories.clear()
        self._kept = None
        self._unload()

    def run(self, feed: Feed) -> np.ndarray:
        """Run a batch of the model's input, along the first axis; return the first output.

        A model with a fixed batch is run as often as needed.
        """
        return run_in_batches(lambda part: [self._run(one_array(part))], feed, self._batch)[0]

    def run_phases(self, images: np.ndarray) -> Phases:
        """Run a batch as :meth:`run` does, and return the time of each phase."""
        return Phases.sum_of([self._memory(part).phases(part) for part in in_batches(images, self._batch)])

    def keep(self, images: np.ndarray) -> None:
        """Put a batch into the device's memory, from where :meth:`run_kept` runs it.

        Raises:
            UsageError: The model has another fixed batch.
        """
        if self._batch not in (None, len(images)):
            raise UsageError(f"{self._path} takes batches of {self._batch} only, not of {len(images)}.")
        self._kept = self._new_memory(images)
        self._kept.upload(images)

    def run_kept(self) -> np.ndarray:
        """Run the batch that was kept and return its logits; only they are moved.

        Raises:
            UsageError: Nothing was kept.
        """
        if self._kept is None:
            raise UsageError("No pictures are on the device yet; call keep(images) first.")
        self._kept.compute()
        return self._kept.download()

    def _load(self) -> int | None:
        """Load the model where its file fixes the shape, and return its fixed batch."""
        self._session = self._open(self.OPTIONS)
        return fixed_batch(self._session)

    def _unload(self) -> None:
        del self._session

    def _session_for(self, shape: tuple[int, ...]) -> onnxruntime.InferenceSession:  # noqa: ARG002 (for a subclass)
        """Return the session that runs images of a shape."""
        return self._session

    def _open(self, options: Mapping[str, str], entries: Mapping[str, str] | None = None) -> Any:
        if self._stream is not None:
            options = {**options, "user_compute_stream": str(self._stream.cuda_stream)}
        return open_on_provider(
            self._path,
            name=self.NAME,
            provider=self.PROVIDER,
            options=options,
            entries=entries or {},
            threads=self._threads,
        )

    def _run(self, images: np.ndarray) -> np.ndarray:
        memory = self._memory(images)
        memory.upload(images)
        memory.compute()
        return memory.download()

    def _memory(self, images: np.ndarray) -> DeviceMemory:
        return self._memories.at(images.shape, lambda: self._new_memory(images))

    def _new_memory(self, images: np.ndarray) -> DeviceMemory:
        session = self._session_for(images.shape)
        if self._stream is None:
            return OrtMemory(session, images, self.DEVICE)
        return TorchMemory(session, images, self._stream)


def open_on_provider(
    path: Path, *, name: str, provider: str, options: Mapping[str, str], entries: Mapping[str, str], threads: int
) -> onnxruntime.InferenceSession:
    """Return a session that runs a file on one provider and nowhere else.

    Args:
        path: The file.
        name: The name of the provider's probe.
        provider: ONNX Runtime's name for it.
        options: The provider's options.
        entries: Entries of the session's configuration.
        threads: For the work that stays on the CPU.

    Raises:
        ModelFileError: It is no model.
        UnavailableError: The provider is not there, or can't run all of it.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = _QUIET
    where = "session.record_ep_graph_assignment_info" if _TELLS_WHERE else "session.disable_cpu_ep_fallback"
    for key, value in {**entries, where: "1"}.items():
        settings.add_session_config_entry(key, value)
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            settings,
            providers=[(provider, dict(options))],
            enable_fallback=0,
            disabled_optimizers=harmful_optimizers(path) or None,
        )
    except (_ERRORS.InvalidProtobuf, _ERRORS.NoSuchFile, _ERRORS.InvalidGraph, _ERRORS.InvalidArgument) as error:
        raise ModelFileError(f"{path} does not load in ONNX Runtime: {said(error)}.") from error
    except (_ERRORS.Fail, _ERRORS.EPFail, _ERRORS.NotImplemented, RuntimeError, ValueError) as error:
        raise UnavailableError(f"{PROBES[name].what} can't load {path}: {said(error)}.") from error
    check_it_ran_there(session, path, name=name, provider=provider)
    return session


def check_it_ran_there(
    session: onnxruntime.InferenceSession, path: Path, *, name: str, provider: str, tells_where: bool = _TELLS_WHERE
) -> None:
    """Check that the session's first provider is the requested one, and that it runs all operators.

    Raises:
        UnavailableError: They are not.
    """
    reason = fell_back(session, provider)
    if reason is not None:
        raise UnavailableError(f"{PROBES[name].what} is not usable here: {reason} To use it: {PROBES[name].advice}")
    if not tells_where:  # then ONNX Runtime was told to refuse by itself
        return
    elsewhere = Counter(
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != provider
        for node in part.get_nodes()
    )
    if "Shape" in elsewhere:
        elsewhere = Counter({op: count for op, count in elsewhere.items() if op not in _OF_SIZES})
    if elsewhere:
        operators = ", ".join(f"{count} {op}" for op, count in elsewhere.most_common(4))
        raise UnavailableError(
            f"{PROBES[name].what} can't run all of {path}: {operators} would fall back to the "
            f"CPU.{_advice(elsewhere, name)}"
        )


def _advice(elsewhere: Counter[str], name: str) -> str:
    if name == "tensorrt" and elsewhere.keys() & {"QuantizeLinear", "DequantizeLinear"}:
        return " TensorRT takes int8 with zero points of 0; quantize it with `rexport quantize --target tensorrt`."
    return ""
