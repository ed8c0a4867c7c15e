"""What models run on: a runtime is a context manager around one loaded model, and a file and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from rexport._errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np

    from rexport.runtimes.source import Source

__all__ = ["RUNTIMES", "Runtime", "open_runtime"]

RUNTIMES = {
    "cpu": "rexport.runtimes.onnxruntime:OnnxRuntimeCpu",
    "torch": "rexport.runtimes.torch:TorchEager",
}


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

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run a batch: float32 of shape ``(N, 3, S, S)`` in, float32 logits of shape ``(N, classes)`` out.

        A model that takes raw images is given uint8 of shape ``(N, S, S, 3)``.
        """
        ...


def open_runtime(name: str, source: Source, *, threads: int | None = None) -> Runtime:
    """Load ``source`` on the runtime called ``name``; ``threads`` defaults to the usable cores.

    Raises:
        UsageError: No runtime has that name.
        UnavailableError: It can't run this model, or not on this machine.
    """
    if name not in RUNTIMES:
        raise UsageError(f"There is no runtime {name!r}; choose from {', '.join(RUNTIMES)}.")
    module, _, factory = RUNTIMES[name].partition(":")
    runtime: Runtime = getattr(import_module(module), factory)(source, threads=threads)
    return runtime
