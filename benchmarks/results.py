"""Results: what the raw times of a row say, and how it compares with the first row.

    throughput   batch / median(seconds)
    speed-up     median over rounds r of  median(first row in r) / median(this row in r)

The rounds are paired, so that a drift of the machine, which hits all rows of a round alike, cancels. The
interval is the percentile bootstrap's over rounds (Efron 1979, "Bootstrap Methods: Another Look at the
Jackknife").

A percentile needs enough calls beyond it: MLPerf Inference asks for at least 64 queries before a 90th and 662
before a 99th percentile may be reported. Here p99 is left out below its floor; p90 is given from ten calls
on, so that every table has one, and is an estimate below 64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rexport.benchmarks.machine import Machine

__all__ = ["SCHEMA", "BenchResult", "Row", "Status", "compare_with_first", "latency_percentiles", "speedup"]

SCHEMA = "rexport.bench/1"

_P90_CALLS = 10
_P99_CALLS = 662
_RESAMPLES = 2000


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
        peak_memory_mib: The most its process held, model and runtime and interpreter, in MiB.
        speedup: How many times as fast as the first measured row of this batch size.
        speedup_interval: 95 % of the bootstrap's speed-ups lie between.
    """

    model: str
    runtime: str
    batch: int
    threads: int
    status: Status = Status.OK
    reason: str | None = None
    rounds: tuple[tuple[float, ...], ...] = ()
    peak_memory_mib: float | None = None
    speedup: float | None = None
    speedup_interval: tuple[float, float] | None = None

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

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object; ``calls_per_round`` splits ``seconds`` into its rounds again."""
        return {
            "model": self.model,
            "runtime": self.runtime,
            "batch": self.batch,
            "threads": self.threads,
            "status": self.status.value,
            "reason": self.reason,
            "images_per_second": self.images_per_second,
            "latency_ms": self.latency_ms,
            "speedup": self.speedup,
            "speedup_interval": self.speedup_interval and list(self.speedup_interval),
            "peak_memory_mib": self.peak_memory_mib,
            "seconds": list(self.seconds),
            "calls_per_round": [len(block) for block in self.rounds],
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
    first: Sequence[Sequence[float]], other: Sequence[Sequence[float]], *, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return how many times as fast as ``first`` the ``other`` is, and the 95 % bootstrap interval.

    Args:
        first: Seconds per call, round by round.
        other: Likewise, from the same rounds.
        seed: Of the resampling.

    Raises:
        ValueError: They do not have the same number of rounds, or none.

    Example:
        >>> speedup([[0.2, 0.2], [0.4, 0.4]], [[0.1, 0.1], [0.2, 0.2]])
        (2.0, (2.0, 2.0))
    """
    ratios = np.array([np.median(a) / np.median(b) for a, b in zip(first, other, strict=True)])
    if not len(ratios):
        raise ValueError("no rounds to compare")
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), (float(low), float(high))


def compare_with_first(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Set each measured row's speed-up over the first measured row of its batch size."""
    first: dict[int, Row] = {}
    compared = []
    for row in rows:
        if row.rounds:
            ratio, interval = speedup(first.setdefault(row.batch, row).rounds, row.rounds)
            compared.append(replace(row, speedup=ratio, speedup_interval=interval))
        else:
            compared.append(row)
    return tuple(compared)
