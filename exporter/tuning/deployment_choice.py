"""Choosing among the measured ways to run a model: arithmetic on times, nothing is run here.

Candidates beyond the bounds are out. Of the rest, the best has the most images per second, or the shortest median call.
But a cheaper candidate wins if its times can't be told apart from the best (95 % interval of the ratio, round
by round) and it is no more than 5 % behind: one with fewer threads, a smaller batch, or the original file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rexport._words import counted
from rexport.benchmarks.intervals import of_median
from rexport.benchmarks.results import speedup
from rexport.choices import Goal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rexport.deployment_settings import Precision

__all__ = ["Bounds", "Candidate", "Estimate", "Goal", "Measured", "Variant", "choose", "nearest", "order"]

_AS_GOOD = 1.05  # how many times as good the best may be as the cheaper one
_ROUNDING = 1e-9  # of differences and ratios


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured number, and its interval at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A file that the model can run as.

    Attributes:
        path: The file.
        precision: ``fp32``, ``fp16`` or ``int8``.
        regrouped: Whether its grouped convolutions were rewritten in the forms that are fastest here.
        made: Whether it was made for the search, and is not the original file.
        runtimes: The runtimes that it is for; ``None`` for all.
        drop_points: The percentage points of top-1 that it loses; ``None`` where that is not known.
    """

    path: Path
    precision: Precision
    regrouped: bool = False
    made: bool = False
    runtimes: tuple[str, ...] | None = None
    drop_points: float | None = None

    @property
    def name(self) -> str:
        """Its precision and form, in words."""
        return f"{self.precision}, regrouped" if self.regrouped else self.precision


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way to run the model: a file on a runtime, with ``batch`` images a call on ``threads`` threads."""

    variant: Variant
    runtime: str
    batch: int
    threads: int

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.variant.name} on {self.runtime}, batch {self.batch}, {counted(self.threads, 'thread')}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A candidate, and the seconds of its calls, round by round."""

    candidate: Candidate
    rounds: tuple[tuple[float, ...], ...]

    @property
    def seconds(self) -> tuple[float, ...]:
        """The seconds of every call, in order."""
        return tuple(second for block in self.rounds for second in block)

    @property
    def images_per_second(self) -> float:
        """Images per second at the median call."""
        return self.candidate.batch / float(np.median(self.seconds))

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the calls, in milliseconds."""
        return 1e3 * float(np.percentile(self.seconds, percent))

    def percentile_estimate(self, percent: int) -> Estimate:
        """Return a percentile of the calls in milliseconds, with the interval that those of the rounds tell."""
        value = self.percentile_ms(percent)
        low, high = of_median([1e3 * float(np.percentile(block, percent)) for block in self.rounds])
        return Estimate(value=value, low=min(low, value), high=max(high, value))

    def throughput_estimate(self) -> Estimate:
        """Return images per second at the median call, with the interval that follows from the call's."""
        call, images = self.percentile_estimate(50), 1e3 * self.candidate.batch
        return Estimate(value=images / call.value, low=images / call.high, high=images / call.low)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The bounds on a candidate; ``None`` for no bound.

    Attributes:
        latency_ms: For the 90th percentile of a call, in milliseconds.
        drop_points: For the loss of top-1 against the float model, in percentage points.
    """

    latency_ms: float | None = None
    drop_points: float | None = None

    def allow(self, variant: Variant) -> bool:
        """Say whether a file is accurate enough; with a bound, one of unknown accuracy is not."""
        if self.drop_points is None:
            return True
        return variant.drop_points is not None and variant.drop_points <= self.drop_points + _ROUNDING

    def hold(self, measured: Measured) -> bool:
        """Say whether a candidate keeps within all bounds."""
        in_time = self.latency_ms is None or measured.percentile_ms(90) <= self.latency_ms
        return in_time and self.allow(measured.candidate.variant)


def choose(measured: Sequence[Measured], bounds: Bounds, goal: Goal) -> Measured | None:
    """Return the one to use, or ``None`` if none keeps within the bounds.

    Args:
        measured: Measured in turns, so that their rounds can be compared one by one.
        bounds: The bounds to keep within.
        goal: The goal to optimise.
    """
    within = [result for result in measured if bounds.hold(result)]
    if not within:
        return None
    best = max(within, key=lambda result: (_value(result, goal), *(-cost for cost in _cost(result))))
    return min((result for result in within if result is best or _as_good(result, best, goal)), key=_cost)


def order(measured: Sequence[Measured], bounds: Bounds, goal: Goal) -> list[Measured]:
    """Sort by promise: within the bounds by value, then by p90 those whose median call is, then the others."""

    def key(result: Measured) -> tuple[int, float]:
        if bounds.hold(result):
            return (0, -_value(result, goal))
        if bounds.allow(result.candidate.variant) and result.percentile_ms(50) <= (bounds.latency_ms or 0):
            return (1, result.percentile_ms(90))
        return (2, result.percentile_ms(90))

    return sorted(measured, key=key)


def nearest(measured: Sequence[Measured], bounds: Bounds) -> Measured | None:
    """Return the one closest to the bounds, ``None`` without any: of the accurate ones, if any, the least p90."""
    return min(measured, key=lambda way: (not bounds.allow(way.candidate.variant), way.percentile_ms(90)), default=None)


def _value(result: Measured, goal: Goal) -> float:
    return result.images_per_second if goal is Goal.THROUGHPUT else 1 / result.percentile_ms(50)


def _cost(result: Measured) -> tuple[int, int, bool, bool]:
    candidate = result.candidate
    return (candidate.threads, candidate.batch, candidate.variant.made, candidate.variant.regrouped)


def _as_good(result: Measured, best: Measured, goal: Goal) -> bool:
    """Say whether the best is not certainly better, and not by much."""
    rounds = min(len(result.rounds), len(best.rounds))
    ratio, (low, _) = speedup(result.rounds[:rounds], best.rounds[:rounds])
    images = best.candidate.batch / result.candidate.batch if goal is Goal.THROUGHPUT else 1.0
    return low * images <= 1 + _ROUNDING and ratio * images <= _AS_GOOD
