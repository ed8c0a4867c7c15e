"""What is to be measured, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError
from rexport.benchmarks.document import Status

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from rexport.model_inputs import TensorInput
    from rexport.preprocessing import Preprocessing
    from rexport.runtimes.source import Source

__all__ = ["Failure", "Interrupted", "Job", "Pictures", "Timing"]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures whose outputs are wanted beside the times.

    Attributes:
        path: An ``.npy`` file of uint8, shape ``(N, H, W, C)``; or an ``.npz`` of what the model takes by its inputs.
        preprocessing: What makes the model's input of them; ``None`` takes them as they are.
    """

    path: Path
    preprocessing: Preprocessing | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure: a model on a runtime, with an input batch of ``shape`` on so many ``threads``.

    Images are standard-normal ``float32``, or pixels, ``uint8``. With a ``preprocessing`` they are pixels, and what
    that makes of them belongs to every call. ``on_device``: they lie in the device's memory before a call begins.
    Models that take no pictures are given ``tensors``, and ``shape`` is the batch alone.
    """

    source: Source
    runtime: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    threads: int
    preprocessing: Preprocessing | None = None
    on_device: bool = False
    pictures: Pictures | None = None
    tensors: tuple[TensorInput, ...] = ()

    @property
    def batch(self) -> int:
        """Images per call."""
        return self.shape[0]

    def with_batch(self, batch: int) -> Job:
        """Return the job at another batch size."""
        return replace(self, shape=(batch, *self.shape[1:]))

    def loading(self) -> dict[str, Any]:
        """Return the arguments of the worker's command ``load``."""
        source = self.source
        return {
            "runtime": self.runtime,
            "threads": self.threads,
            "path": source.path and str(source.path),
            "network": source.network,
            "weights": source.weights and str(source.weights),
            "num_classes": source.num_classes,
        }

    def images(self) -> dict[str, Any]:
        """Return the arguments of the worker's command ``prepare``."""
        preprocessing = self.preprocessing and self.preprocessing.to_json()
        tensors = [
            {"name": tensor.name, "dtype": tensor.dtype, "shape": tensor.at(self.batch)} for tensor in self.tensors
        ]
        return {
            "shape": self.shape,
            "dtype": self.dtype,
            "preprocessing": preprocessing,
            "on_device": self.on_device,
            "tensors": tensors,
        }


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What was measured of a job.

    Attributes:
        rounds: The seconds of every timed call, round by round.
        peak_memory_mib: The most memory that a process of it held, in MiB.
        launches: How many of the rounds each launch has; all are of one if nothing else is said.
        load_seconds: How long loading took, the median over launches.
        first_call_seconds: Likewise, the first call.
        warm_up_calls: Calls before it was warm, the first included, the most over launches.
        affinity: The numbers of the cores that its processes ran on; ``None`` where the system does not tell.
        clocks: The processor's clock after each round, in MHz, where known.
        phases_ms: Of a device: medians of upload, compute and download, in milliseconds.
        outputs: Of its pictures, in order.
    """

    rounds: tuple[tuple[float, ...], ...]
    peak_memory_mib: float | None
    launches: tuple[int, ...] = ()
    load_seconds: float | None = None
    first_call_seconds: float | None = None
    warm_up_calls: int | None = None
    affinity: tuple[int, ...] | None = None
    clocks: tuple[float | None, ...] = ()
    phases_ms: dict[str, float] | None = None
    outputs: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job has no times, in a sentence; ``kind`` is the name of the exception."""

    reason: str
    kind: str

    def row_fields(self) -> dict[str, Any]:
        """Return the fields of the row that has no times."""
        status = {UnavailableError.__name__: Status.UNAVAILABLE}.get(self.kind, Status.FAILED)
        return {"status": status, "reason": self.reason}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while measuring; ``outcomes`` is what there was by then: the times of complete rounds, job by job."""

    def __init__(self, outcomes: list[Timing | Failure]) -> None:
        super().__init__()
        self.outcomes = outcomes
