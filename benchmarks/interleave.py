"""The measuring loop: all rows side by side, one running at a time.

A machine drifts by more than the differences that matter (clock, heat, other programs), so rows are never
measured one after the other. Each round visits every row once, in an order shuffled per round, for a block of
calls; rows are compared round by round, where the drift is the same for all.

The habits are hyperfine's: warm up first, at least ten calls and three seconds a row, and keep every time.
"""

from __future__ import annotations

import math
import random
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from rexport._progress import silent
from rexport.benchmarks.process import WorkerError, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rexport._progress import Progress
    from rexport.preprocessing import Preprocessing
    from rexport.runtimes.source import Source

__all__ = ["Failure", "Job", "Timing", "measure"]

_ROUNDS = 10  # that the seconds asked for are spread over: enough to bootstrap from


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure: a model on a runtime, with an input batch of ``shape`` on so many ``threads``.

    Images are standard-normal ``float32``, or pixels, ``uint8``. With a ``preprocessing`` they are pixels, and what
    that makes of them belongs to every call.
    """

    source: Source
    runtime: str
    shape: tuple[int, int, int, int]
    dtype: Literal["float32", "uint8"] = "float32"
    threads: int
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The seconds of every timed call, round by round, and the most memory the process held, in MiB."""

    rounds: tuple[tuple[float, ...], ...]
    peak_memory_mib: float | None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job has no times, in a sentence; ``kind`` is the name of the exception."""

    reason: str
    kind: str


def measure(
    jobs: Sequence[Job],
    *,
    min_seconds: float = 3.0,
    min_calls: int = 10,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Timing | Failure]:
    """Measure jobs interleaved, each in a process of its own.

    Args:
        jobs: Rows to compare with each other; all their models are in memory at once.
        min_seconds: The least time, and
        min_calls: the fewest calls, to time per job.
        seed: Of the order within the rounds, and of the input.
        progress: Told of loading and of blocks.

    Returns:
        For each job its times, or why there are none. A job that fails, or whose process dies, leaves the
        others alone.
    """
    with ExitStack() as stack:
        loop = _Loop([stack.enter_context(WorkerProcess()) for _ in jobs], min_seconds / _ROUNDS)
        with progress("loading", len(jobs)) as advance:
            for index, job in enumerate(jobs):  # all load at once
                loop.workers[index].send("load", **_load_arguments(job))
            for index, job in enumerate(jobs):
                with loop.failures_of(index):
                    loop.workers[index].receive()
                    loop.workers[index].ask("prepare", **_image_arguments(job), seed=seed)
                advance(1)
        with progress("warming up", len(loop.alive)) as advance:
            for index in loop.alive:
                loop.warm_up(index)
                advance(1)
        shuffle = random.Random(seed).shuffle
        with progress("measuring", loop.blocks_needed(min_seconds, min_calls)) as advance:
            while any(not loop.has_enough(index, min_seconds, min_calls) for index in loop.alive):
                order = loop.alive
                shuffle(order)
                for index in order:
                    loop.run_block(index)
                    advance(1)
        return [loop.result(index) for index in range(len(jobs))]


class _Loop:
    def __init__(self, workers: list[WorkerProcess], block_seconds: float) -> None:
        self.workers = workers
        self._block_seconds = block_seconds
        self._calls: dict[int, int] = {}  # in a job's next block
        self._rounds: list[list[tuple[float, ...]]] = [[] for _ in workers]
        self._failures: dict[int, Failure] = {}

    @property
    def alive(self) -> list[int]:
        return [index for index in range(len(self.workers)) if index not in self._failures]

    @contextmanager
    def failures_of(self, index: int) -> Iterator[None]:
        try:
            yield
        except WorkerError as error:
            self._failures[index] = Failure(reason=str(error), kind=error.kind)
            self.workers[index].close()

    def warm_up(self, index: int) -> None:
        with self.failures_of(index):
            seconds = self.workers[index].ask("warm up")["seconds"]
            self._plan(index, seconds[-3:])

    def run_block(self, index: int) -> None:
        with self.failures_of(index):
            seconds = self.workers[index].ask("run", calls=self._calls[index])["seconds"]
            self._rounds[index].append(tuple(seconds))
            self._plan(index, seconds)

    def blocks_needed(self, min_seconds: float, min_calls: int) -> int:
        """Estimate the blocks of all jobs; ``min_seconds`` takes ``_ROUNDS`` of a block's length."""
        calls = [self._calls[index] for index in self.alive]
        by_calls = max((math.ceil(min_calls / n) for n in calls), default=0)
        return len(calls) * max(by_calls, _ROUNDS if min_seconds > 0 else 1)

    def has_enough(self, index: int, min_seconds: float, min_calls: int) -> bool:
        seconds = [second for block in self._rounds[index] for second in block]
        return len(seconds) >= min_calls and math.fsum(seconds) >= min_seconds

    def result(self, index: int) -> Timing | Failure:
        peak = None
        if index not in self._failures:
            with self.failures_of(index):
                peak = self.workers[index].ask("peak memory")["mib"]
        if index in self._failures:
            return self._failures[index]
        return Timing(rounds=tuple(self._rounds[index]), peak_memory_mib=peak)

    def _plan(self, index: int, seconds: Sequence[float]) -> None:
        self._calls[index] = max(1, round(self._block_seconds / median(seconds)))


def _image_arguments(job: Job) -> dict[str, Any]:
    stated = None if job.preprocessing is None else job.preprocessing.to_json()
    return {"shape": job.shape, "dtype": job.dtype, "preprocessing": stated}


def _load_arguments(job: Job) -> dict[str, Any]:
    source = job.source
    return {
        "runtime": job.runtime,
        "threads": job.threads,
        "path": source.path and str(source.path),
        "network": source.network,
        "weights": source.weights and str(source.weights),
        "num_classes": source.num_classes,
    }
