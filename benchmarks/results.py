"""Results: what the raw times of a row say, and how it compares with the first row.

    throughput   batch / median(seconds)
    speed-up     of the ratios  median(first row in r) / median(this row in r)  of the rounds r,
                 the median in each launch, and their (geometric) mean over launches

The rounds are paired, so that a drift of the machine, which hits all rows of a round alike, cancels. Intervals are of
95 %, Student's over launches, or that of the median over the rounds of a single launch (see ``intervals``).

A percentile needs enough calls beyond it: MLPerf Inference asks for at least 64 queries before a 90th and 662
before a 99th percentile may be reported. With fewer, it is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport.benchmarks.intervals import central

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rexport.benchmarks.machine import Machine

__all__ = ["SCHEMA", "BenchResult", "Row", "Status", "compare_with_first", "latency_percentiles", "speedup"]

SCHEMA = "rexport.bench/1"

_P90_CALLS = 64
_P99_CALLS = 662


class Status(StrEnum):
    """What became of a row."""

    OK = "ok"
    UNAVAILABLE = "unavailable"  # this runtime can't run this model, or not here
    FAILED = "failed"  # it should have run


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model on a runtime at a batch size.

    Attributes:
        model: As it was named: a file or a network.
        runtime: Its name in :data:`rexport.runtimes.RUNTIMES`.
        batch: Images per call.
        threads: Threads the runtime was given.
        status: Whether there are times, and otherwise
        reason: why not, in a sentence.
        rounds: Seconds of every timed call, round by round.
        launches: How many of the rounds each launch of its process has; all are of one if nothing else is said.
        peak_memory_mib: The most its process held, model and runtime and interpreter, in MiB.
        load_seconds: How long loading the model took, without importing the runtime; the median over launches.
        first_call_seconds: Likewise, the first call.
        warm_up_calls: Calls until it was warm.
        affinity: The numbers of the cores it ran on; ``None`` where the system does not tell.
        phases_ms: Of a device: ``upload``, ``compute`` and ``download`` of a call, medians in milliseconds.
        flags: What should make a reader careful, in sentences.
        speedup: How many times as fast as the first measured row of this batch size.
        speedup_interval: Its interval at 95 %.
        agreement: The share of pictures whose top-1 is that of the first row that could be compared.
        sqnr_db: Of its outputs against that row's, in decibels; ``None`` for equal outputs too.
        wrong: Whether its outputs are not that row's, beyond what its precision explains (see ``outputs``).
        top1: Its accuracy on labelled pictures, a fraction.
    """

    model: str
    runtime: str
    batch: int
    threads: int
    status: Status = Status.OK
    reason: str | None = None
    rounds: tuple[tuple[float, ...], ...] = ()
    launches: tuple[int, ...] = ()
    peak_memory_mib: float | None = None
    load_seconds: float | None = None
    first_call_seconds: float | None = None
    warm_up_calls: int | None = None
    affinity: tuple[int, ...] | None = None
    phases_ms: Mapping[str, float] | None = None
    flags: tuple[str, ...] = ()
    speedup: float | None = None
    speedup_interval: tuple[float, float] | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    wrong: bool | None = None
    top1: float | None = None

    @property
    def seconds(self) -> tuple[float, ...]:
        """The seconds of every timed call, in order."""
        return tuple(second for block in self.rounds for second in block)

    @property
    def latency_ms(self) -> dict[str, float | None]:
        """``p50``, ``p90`` and ``p99`` of a call in milliseconds; ``None`` where there are too few calls."""
        return latency_percentiles(self.seconds)

    @property
    def images_per_second(self) -> float | None:
        """Images per second at the median call."""
        return self.batch / float(np.median(self.seconds)) if self.rounds else None

    @property
    def images_per_second_interval(self) -> tuple[float, float] | None:
        """The interval of images per second: of the medians of its rounds, and around that of all calls."""
        middle = self.images_per_second
        if middle is None:
            return None
        speeds = [math.log(self.batch / float(np.median(block))) for block in self.rounds]
        _, (low, high) = central(speeds, self.launches or (len(speeds),))
        return min(math.exp(low), middle), max(math.exp(high), middle)

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object; ``calls_per_round`` splits ``seconds`` into its rounds again.

        ``rounds_per_launch`` says which of them are of one process.
        """
        return {
            "model": self.model,
            "runtime": self.runtime,
            "batch": self.batch,
            "threads": self.threads,
            "status": self.status.value,
            "reason": self.reason,
            "images_per_second": self.images_per_second,
            "images_per_second_interval": self.images_per_second_interval and list(self.images_per_second_interval),
            "latency_ms": self.latency_ms,
            "speedup": self.speedup,
            "speedup_interval": self.speedup_interval and list(self.speedup_interval),
            "peak_memory_mib": self.peak_memory_mib,
            "load_seconds": self.load_seconds,
            "first_call_seconds": self.first_call_seconds,
            "warm_up_calls": self.warm_up_calls,
            "affinity": None if self.affinity is None else list(self.affinity),
            "phases_ms": None if self.phases_ms is None else dict(self.phases_ms),
            "agreement": self.agreement,
            "sqnr_db": self.sqnr_db,
            "wrong": self.wrong,
            "top1": self.top1,
            "flags": list(self.flags),
            "seconds": list(self.seconds),
            "calls_per_round": [len(block) for block in self.rounds],
            "rounds_per_launch": list(self.launches),
        }


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """All rows of a benchmark and the machine they were measured on."""

    machine: Machine
    rows: tuple[Row, ...]

    @property
    def measured(self) -> tuple[Row, ...]:
        """The rows that have times."""
        return tuple(row for row in self.rows if row.status is Status.OK)

    def to_json(self) -> dict[str, Any]:
        """Return the document of schema ``rexport.bench/1``."""
        return {
            "schema": SCHEMA,
            "machine": self.machine.to_json(),
            "rows": [row.to_json() for row in self.rows],
        }


def latency_percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """Return ``p50``, ``p90`` and ``p99`` in milliseconds; ``None`` for those that take more calls."""

    def percentile(percent: int, floor: int) -> float | None:
        return float(np.percentile(seconds, percent)) * 1e3 if len(seconds) >= floor else None

    return {"p50": percentile(50, 1), "p90": percentile(90, _P90_CALLS), "p99": percentile(99, _P99_CALLS)}


def speedup(
    first: Sequence[Sequence[float]], other: Sequence[Sequence[float]], *, launches: Sequence[int] = ()
) -> tuple[float, tuple[float, float]]:
    """Return how many times as fast as ``first`` the ``other`` is, and the 95 % interval.

    Args:
        first: Seconds per call, round by round.
        other: Likewise, from the same rounds.
        launches: How many of the rounds each launch has; all are of one if nothing else is said.

    Raises:
        ValueError: They do not have the same number of rounds, or none, or not as many as the launches have.

    Example:
        >>> speedup([[0.2, 0.2], [0.4, 0.4]], [[0.1, 0.1], [0.2, 0.2]])
        (2.0, (2.0, 2.0))
    """
    ratios = [math.log2(float(np.median(a) / np.median(b))) for a, b in zip(first, other, strict=True)]
    if not ratios:
        raise ValueError("no rounds to compare")
    ratio, (low, high) = central(ratios, launches or (len(ratios),))
    return 2.0**ratio, (2.0**low, 2.0**high)


def compare_with_first(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Set each measured row's speed-up over the first measured row of its batch size."""
    first: dict[int, Row] = {}
    compared = []
    for row in rows:
        if row.rounds:
            base = first.setdefault(row.batch, row)
            ratio, interval = speedup(base.rounds, row.rounds, launches=row.launches)
            compared.append(replace(row, speedup=ratio, speedup_interval=interval))
        else:
            compared.append(row)
    return tuple(compared)
