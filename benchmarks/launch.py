"""One launch of all jobs: their processes, from loading to the last round."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from rexport._child import ChildError
from rexport.benchmarks.jobs import Failure, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rexport._child import Child
    from rexport.benchmarks.jobs import Job

__all__ = ["Launch", "Record"]

_SLOWER = 10  # times as long as planned that a block may take before the limit for hanging begins


@dataclass(frozen=True, kw_only=True)
class _Block:
    seconds: tuple[float, ...]
    clock_mhz: float | None
    phases: dict[str, float] | None


@dataclass(kw_only=True)
class Record:
    """What is known of a job so far; its fields grow launch by launch and round by round."""

    blocks: list[_Block] = field(default_factory=list)
    launches: list[int] = field(default_factory=list)  # the rounds of each
    load_seconds: list[float] = field(default_factory=list)
    first_calls: list[float] = field(default_factory=list)
    warm_up_calls: int = 0
    peaks: list[float] = field(default_factory=list)
    affinity: tuple[int, ...] | None = None
    outputs: np.ndarray | None = None
    failure: Failure | None = None

    def outcome(self) -> Timing | Failure:
        """Return the times of the complete rounds, or why there are none."""
        if self.failure is not None:
            return self.failure
        if not self.blocks:
            return Failure(reason="It was interrupted before it was measured.", kind="KeyboardInterrupt")
        phases = [block.phases for block in self.blocks if block.phases]
        return Timing(
            rounds=tuple(block.seconds for block in self.blocks),
            peak_memory_mib=max(self.peaks, default=None),
            launches=tuple(rounds for rounds in self.launches if rounds),
            load_seconds=median(self.load_seconds),
            first_call_seconds=median(self.first_calls),
            warm_up_calls=self.warm_up_calls,
            affinity=self.affinity,
            clocks=tuple(block.clock_mhz for block in self.blocks),
            phases_ms={name: 1e3 * median(times[name] for times in phases) for name in next(iter(phases), ())} or None,
            outputs=self.outputs,
        )


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The processes of all jobs, and the records they fill.

    Attributes:
        jobs: What they measure.
        workers: Their processes, one each.
        records: What is known of them.
        seconds: The least time, and
        calls: the fewest calls, to time in this launch.
        rounds: How many rounds the seconds are spread over.
        timeout: Seconds after which a process that does not answer counts as hanging.
        advance: Told of every job loaded, and of every block.
    """

    jobs: Sequence[Job]
    workers: Sequence[Child]
    records: Sequence[Record]
    seconds: float
    calls: int
    rounds: int
    timeout: float
    advance: Callable[[int], None]
    _next_calls: dict[int, int] = field(default_factory=dict)
    _call_seconds: dict[int, float] = field(default_factory=dict)

    @property
    def alive(self) -> list[int]:
        """The indices of the jobs that have not failed."""
        return [index for index, record in enumerate(self.records) if record.failure is None]

    @property
    def is_done(self) -> bool:
        """Whether every job that has not failed has its calls and seconds."""
        return all(self._has_enough(self.records[index]) for index in self.alive)

    def prepare(self, seed: int, folder: Path, *, backwards: bool) -> None:
        """Load the models and warm them up, one at a time, and compute the outputs that no earlier launch did.

        Args:
            seed: Of the input.
            folder: For the files in which outputs come.
            backwards: Whether the last job comes first: to be loaded first must not favour the same one every time.
        """
        for index in self.alive:  # packages are imported at once, models loaded alone: that is timed
            self.workers[index].send("import", runtime=self.jobs[index].runtime)
        for index in self.alive:
            with self._failures_of(index):
                self.workers[index].receive(self.timeout)
        for index in sorted(self.alive, reverse=backwards):
            with self._failures_of(index):
                self._load(index, seed)
                self._compute_outputs(index, folder)
            self.advance(1)
        for record in self.records:
            record.launches.append(0)

    def run_round(self, order: Sequence[int]) -> None:
        """Run a block of each of these jobs; only a complete round is kept."""
        blocks: dict[int, _Block] = {}
        for index in order:
            with self._failures_of(index):
                blocks[index] = self._run_block(index)
            self.advance(1)
        for index, block in blocks.items():
            self.records[index].blocks.append(block)
            self.records[index].launches[-1] += 1

    def _load(self, index: int, seed: int) -> None:
        job, worker, record = self.jobs[index], self.workers[index], self.records[index]
        loaded = worker.ask("load", limit=self.timeout, **job.loading())
        worker.ask("prepare", limit=self.timeout, seed=seed, **job.images())
        warm = worker.ask("warm up", limit=self.timeout)
        record.load_seconds.append(loaded["seconds"])
        record.affinity = loaded["affinity"] and tuple(loaded["affinity"])
        record.first_calls.append(warm["first"])
        record.warm_up_calls = max(record.warm_up_calls, 1 + len(warm["seconds"]))
        if warm["peak_memory_mib"] is not None:
            record.peaks.append(warm["peak_memory_mib"])
        self._plan(index, warm["seconds"][-5:])

    def _compute_outputs(self, index: int, folder: Path) -> None:
        job = self.jobs[index]
        if job.pictures is None or self.records[index].outputs is not None:
            return
        preprocessing, path = job.pictures.preprocessing, folder / f"{index}.npy"
        images = len(np.load(job.pictures.path, mmap_mode="r"))
        limit = self.timeout + _SLOWER * self._call_seconds[index] * math.ceil(images / job.batch)
        self.workers[index].ask(
            "outputs",
            limit=limit,
            pictures=str(job.pictures.path),
            preprocessing=preprocessing and preprocessing.to_json(),
            batch=job.batch,
            to=str(path),
        )
        self.records[index].outputs = np.load(path)

    def _run_block(self, index: int) -> _Block:
        calls = self._next_calls[index]
        limit = self.timeout + _SLOWER * calls * self._call_seconds[index]
        reply = self.workers[index].ask("run", limit=limit, calls=calls)
        self._plan(index, reply["seconds"])
        return _Block(seconds=tuple(reply["seconds"]), clock_mhz=reply["clock_mhz"], phases=reply["phases"])

    def _plan(self, index: int, seconds: Sequence[float]) -> None:
        self._call_seconds[index] = median(seconds)
        self._next_calls[index] = max(1, round(self.seconds / self.rounds / median(seconds)))

    def _has_enough(self, record: Record) -> bool:
        blocks = record.blocks[len(record.blocks) - record.launches[-1] :]
        seconds = [second for block in blocks for second in block.seconds]
        return bool(seconds) and len(seconds) >= self.calls and math.fsum(seconds) >= self.seconds

    @contextmanager
    def _failures_of(self, index: int) -> Iterator[None]:
        try:
            yield
        except ChildError as error:
            self.records[index].failure = Failure(reason=str(error), kind=error.kind)
            self.workers[index].close()
