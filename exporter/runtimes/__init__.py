"""Runtimes: each is a context manager around one loaded model; adding one takes a file, and a line here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from rexport._errors import UsageError
from rexport._words import suggestion
from rexport.engine_file import is_engine, read_facts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import numpy as np

    from rexport.feeds import Feed
    from rexport.runtimes.source import Source

__all__ = [
    "ENGINE_RUNTIMES",
    "NETWORK_RUNTIMES",
    "NODE_BY_NODE",
    "RUNTIMES",
    "DeviceRuntime",
    "Phases",
    "Runtime",
    "default_runtime",
    "open_runtime",
]

NODE_BY_NODE = "cpu-node-by-node"
"""The runtime that computes a file node by node, without any optimization."""
RUNTIMES = {
    "cpu": "rexport.runtimes.onnxruntime:OnnxRuntimeCpu",
    NODE_BY_NODE: "rexport.runtimes.onnxruntime:OnnxRuntimeNodeByNode",
    "torch": "rexport.runtimes.torch:TorchEager",
    "torch-compile": "rexport.runtimes.torch_compile:TorchCompile",
    "openvino": "rexport.runtimes.openvino:OpenVino",
    "cuda": "rexport.runtimes.onnxruntime_cuda:OnnxRuntimeCuda",
    "tensorrt": "rexport.runtimes.onnxruntime_tensorrt:OnnxRuntimeTensorRt",
    "tensorrt-engine": "rexport.runtimes.engine:TensorRtEngine",
    "tensorrt-rtx-engine": "rexport.runtimes.engine:RtxEngine",
    "torch-cuda": "rexport.runtimes.torch_cuda:TorchCuda",
    "torch-compile-cuda": "rexport.runtimes.torch_cuda:TorchCompileCuda",
}
NETWORK_RUNTIMES = frozenset({"torch", "torch-compile", "torch-cuda", "torch-compile-cuda"})
"""The runtimes that run networks; the others run files."""
ENGINE_RUNTIMES = {"tensorrt": "tensorrt-engine", "rtx": "tensorrt-rtx-engine"}
"""The runtimes that run engine files, by the backend that built them; the others run ONNX files."""


class Runtime(Protocol):
    """One model, loaded and ready to run."""

    def __enter__(self) -> Runtime:
        """Return itself, ready to run."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the model."""
        ...

    def run(self, feed: Feed) -> np.ndarray:
        """Run a batch, of pictures for a classifier, and return the first output, such as logits ``(N, classes)``.

        Raises:
            UnavailableError: The feed is of several inputs, and the runtime takes one.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Phases:
    """The seconds that each phase of one call took on a device with separate memory.

    Attributes:
        upload: From the caller's memory, through pinned memory where there is some, to the device's.
        compute: The model, on inputs and outputs in the device's memory.
        download: The logits, back to the caller.
        clock: ``device`` for events in the device's own queue; ``host`` for this machine's clock, waiting for the
            queue after each phase, so that each includes the cost of starting and waiting.
    """

    upload: float
    compute: float
    download: float
    clock: Literal["device", "host"]

    @classmethod
    def sum_of(cls, parts: Sequence[Phases]) -> Phases:
        """Return the phases of several calls, at least one, as those of one."""
        return cls(
            upload=sum(part.upload for part in parts),
            compute=sum(part.compute for part in parts),
            download=sum(part.download for part in parts),
            clock=parts[0].clock,
        )


@runtime_checkable
class DeviceRuntime(Runtime, Protocol):
    """A runtime whose device has separate memory, so that moving pictures and computing are timed apart."""

    def run_phases(self, images: np.ndarray) -> Phases:
        """Run a batch as :meth:`run` does, and return the time of each phase."""
        ...

    def keep(self, images: np.ndarray) -> None:
        """Put a batch into the device's memory, from where :meth:`run_kept` runs it."""
        ...

    def run_kept(self) -> np.ndarray:
        """Run the batch that was kept and return its logits; only they are moved.

        Raises:
            UsageError: Nothing was kept.
        """
        ...


def default_runtime(source: Source) -> str:
    """Return the default runtime for ``source``; for an engine file, the only one that can run it.

    Raises:
        EngineFileError: No facts lie beside an engine file.
    """
    if source.path is None:
        return "torch"
    if not is_engine(source.path):
        return "cpu"
    backend = read_facts(source.path).backend
    return ENGINE_RUNTIMES.get(backend, "tensorrt")  # ONNX Runtime's own engines are its TensorRT provider's


def open_runtime(name: str, source: Source, *, threads: int | None = None, expendable: bool = False) -> Runtime:
    """Load ``source`` on a runtime.

    Args:
        name: The runtime, one of :data:`RUNTIMES`.
        source: The model.
        threads: By default the usable cores.
        expendable: Whether this process may crash, because another one watches it. Otherwise engines are first loaded
            and run in another process.

    Raises:
        UsageError: No runtime has that name.
        EngineFileError: An engine file is damaged.
        UnavailableError: It can't run this model, or not on this machine.
    """
    if name not in RUNTIMES:
        raise UsageError(
            f"There is no runtime {name!r}; choose from {', '.join(RUNTIMES)}.{suggestion(name, RUNTIMES)}"
        )
    module, _, factory = RUNTIMES[name].partition(":")
    options = {}
    if expendable and name in ENGINE_RUNTIMES.values():
        options["try_first"] = False
    runtime: Runtime = getattr(import_module(module), factory)(source, threads=threads, **options)
    return runtime
