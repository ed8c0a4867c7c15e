"""What the scenarios give, and how they stand in a row of ``rexport.bench/1``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rexport.benchmarks.results import latency_percentiles
from rexport.benchmarks.scenarios.scenario import Scenario

__all__ = ["FEWEST_QUERIES", "OfflineResult", "ServerResult", "SingleStreamResult", "Trial", "nearest_rank"]

# What a percentile takes: MLPerf's rules for ending a run early, at 99 % confidence
FEWEST_QUERIES = {50: 1, 90: 64, 99: 662}
_ROUNDS = 10  # that the calls of an offline run are split into, to bootstrap from


@dataclass(frozen=True, kw_only=True)
class SingleStreamResult:
    """One query after the other, each of one image; ``seconds`` of each, forming the input included."""

    seconds: tuple[float, ...]

    @property
    def images_per_second(self) -> float:
        """Images per second over the whole run."""
        return len(self.seconds) / float(np.sum(self.seconds))

    @property
    def latency_ms(self) -> dict[str, float | None]:
        """``p50``, ``p90``, which MLPerf reports, and ``p99``, which takes 662 queries."""
        return latency_percentiles(self.seconds)

    def row_fields(self) -> dict[str, Any]:
        """Return what is this scenario's in a row of the document."""
        return {
            "scenario": Scenario.SINGLE_STREAM.value,
            "images_per_second": self.images_per_second,
            "latency_ms": self.latency_ms,
            "seconds": list(self.seconds),
            "calls_per_round": [len(self.seconds)],
            "server": None,
        }


@dataclass(frozen=True, kw_only=True)
class OfflineResult:
    """All images there from the start, taken ``batch`` at a time.

    Attributes:
        batch: Images per call.
        seconds: Of each call.
        elapsed: Seconds from the first call's begin to the last one's end, forming the batches included.
    """

    batch: int
    seconds: tuple[float, ...]
    elapsed: float

    @property
    def images_per_second(self) -> float:
        """Images over the time that all of them took: a mean, as MLPerf's, where other rows state the median call."""
        return self.batch * len(self.seconds) / self.elapsed

    @property
    def rounds(self) -> tuple[tuple[float, ...], ...]:
        """The calls in at most ten parts, one after the other."""
        edges = np.linspace(0, len(self.seconds), min(_ROUNDS, len(self.seconds)) + 1).astype(int)
        return tuple(self.seconds[low:high] for low, high in pairwise(edges))

    def row_fields(self) -> dict[str, Any]:
        """Return what is this scenario's in a row of the document."""
        return {
            "scenario": Scenario.OFFLINE.value,
            "images_per_second": self.images_per_second,
            "latency_ms": latency_percentiles(self.seconds),
            "seconds": list(self.seconds),
            "calls_per_round": [len(block) for block in self.rounds],
            "server": None,
        }


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A rate that was tried.

    Attributes:
        rate_per_second: The rate of the Poisson process, in queries of one image.
        queries: How many were answered.
        held: Whether the percentile was within the bound.
        purpose: ``bracket``, ``bisect`` or ``confirm``.
        stopped: Whether it was ended as soon as it could not hold any more. There are no percentiles then.
        mean_batch: Images per call of the model.
        seconds: From the start of the schedule to the last answer.
        p50_ms: Percentiles of the latency, counted from the scheduled arrival.
        p90_ms: Likewise; ``None`` from fewer than 64 queries.
        p99_ms: Likewise; ``None`` from fewer than 662.
    """

    rate_per_second: float
    queries: int
    held: bool
    purpose: str
    stopped: bool
    mean_batch: float
    seconds: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the trial as a JSON object."""
        return {
            "rate_per_second": self.rate_per_second,
            "queries": self.queries,
            "p50_ms": self.p50_ms,
            "p90_ms": self.p90_ms,
            "p99_ms": self.p99_ms,
            "held": self.held,
            "purpose": self.purpose,
            "stopped": self.stopped,
            "mean_batch": self.mean_batch,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class ServerResult:
    """The highest rate of queries whose latency stays within a bound.

    Attributes:
        batch: The most queries answered by one call of the model.
        latency_bound_ms: What ``percentile`` per cent of the queries have to be answered within.
        percentile: 99; or 90, where 662 queries would have taken too long.
        rate_per_second: The highest rate that held, and held once more; ``None`` if none did.
        reason: Why there is no rate, in a sentence.
        one_image_ms: What one image takes alone, at the median: no latency is below it.
        capacity_per_second: Images per second in calls of one image or of ``batch``, whichever is more.
        trials: All rates tried, in order.
        latencies: Seconds of every query of the trial that confirmed the rate.
    """

    batch: int
    latency_bound_ms: float
    percentile: int
    rate_per_second: float | None
    reason: str | None
    one_image_ms: float
    capacity_per_second: float
    trials: tuple[Trial, ...]
    latencies: tuple[float, ...]

    @property
    def confirmed(self) -> Trial | None:
        """The trial that the rate rests on."""
        return None if self.rate_per_second is None else self.trials[-1]

    def to_json(self) -> dict[str, Any]:
        """Return the value of a row's key ``server``."""
        return {
            "rate_per_second": self.rate_per_second,
            "latency_bound_ms": self.latency_bound_ms,
            "percentile": self.percentile,
            "reason": self.reason,
            "one_image_ms": self.one_image_ms,
            "capacity_per_second": self.capacity_per_second,
            "trials": [trial.to_json() for trial in self.trials],
        }

    def row_fields(self) -> dict[str, Any]:
        """Return what is this scenario's in a row of the document."""
        last = self.confirmed
        return {
            "scenario": Scenario.SERVER.value,
            "images_per_second": self.rate_per_second,
            "latency_ms": {name: last and getattr(last, f"{name}_ms") for name in ("p50", "p90", "p99")},
            "seconds": list(self.latencies),
            "calls_per_round": [len(self.latencies)],
            "reason": self.reason,
            "server": self.to_json(),
        }


def nearest_rank(latencies: np.ndarray, percentile: int) -> float | None:
    """Return the smallest latency that ``percentile`` per cent do not exceed; ``None`` from too few.

    It is within a bound exactly if no more than ``n − ⌈percentile · n / 100⌉`` latencies are above it.
    """
    if len(latencies) < FEWEST_QUERIES[percentile]:
        return None
    return float(np.percentile(latencies, percentile, method="inverted_cdf"))
