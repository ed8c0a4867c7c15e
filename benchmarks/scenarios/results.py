"""What the scenarios give, and how it stands in a row of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from rexport.benchmarks.document import Latency, ServerSearch
from rexport.benchmarks.results import FEWEST_QUERIES, latency_percentiles
from rexport.benchmarks.scenarios.scenario import Scenario

__all__ = ["OfflineResult", "ServerResult", "SingleStreamResult", "nearest_rank"]

_ROUNDS = 10  # that the calls of an offline run are split into, for an interval


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
        """Return this scenario's fields of a row."""
        return {
            "scenario": Scenario.SINGLE_STREAM,
            "images_per_second": self.images_per_second,
            "latency_ms": Latency(**self.latency_ms),
            "seconds": self.seconds,
            "calls_per_round": (len(self.seconds),),
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
        """Return this scenario's fields of a row."""
        return {
            "scenario": Scenario.OFFLINE,
            "images_per_second": self.images_per_second,
            "latency_ms": Latency(**latency_percentiles(self.seconds)),
            "seconds": self.seconds,
            "calls_per_round": tuple(map(len, self.rounds)),
        }


@dataclass(frozen=True, kw_only=True)
class ServerResult(ServerSearch):
    """The search, and what it does not say in the document.

    Attributes:
        batch: The most queries answered by one call of the model.
        latencies: Seconds of every query of the trial that confirmed the rate.
    """

    batch: int
    latencies: tuple[float, ...]

    def row_fields(self) -> dict[str, Any]:
        """Return this scenario's fields of a row."""
        last = self.confirmed
        return {
            "scenario": Scenario.SERVER,
            "images_per_second": self.rate_per_second,
            "latency_ms": Latency(p50=last.p50_ms, p90=last.p90_ms, p99=last.p99_ms) if last else Latency(),
            "seconds": self.latencies,
            "calls_per_round": (len(self.latencies),),
            "reason": self.reason,
            "server": ServerSearch(**{key.name: getattr(self, key.name) for key in fields(ServerSearch)}),
        }


def nearest_rank(latencies: np.ndarray, percentile: int) -> float | None:
    """Return the smallest latency that ``percentile`` per cent do not exceed; ``None`` from too few.

    It is within a bound exactly if no more than ``n − ⌈percentile · n / 100⌉`` latencies are above it.
    """
    if len(latencies) < FEWEST_QUERIES[percentile]:
        return None
    return float(np.percentile(latencies, percentile, method="inverted_cdf"))
