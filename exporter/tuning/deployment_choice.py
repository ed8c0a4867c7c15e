"""Which of the measured ways to run a model is the one to use: arithmetic on times, nothing is run here.

What does not keep within the bounds is out. Of the rest, the best is that of the most images per second, or of the
shortest median call; but where another one's times can't be told from it (95 % bootstrap interval of the ratio, round
by round) and it is no more than 5 % behind, the cheaper one is taken: fewer threads, a smaller batch, the file that
came in rather than one made for this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rexport._words import counted
from rexport.benchmarks.results import speedup
from rexport.deployment_settings import Goal, Precision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Bounds", "Candidate", "Estimate", "Goal", "Measured", "Variant", "choose", "nearest", "order"]

_AS_GOOD = 1.05  # how many times as good the best may be as the cheaper one that is taken
_RESAMPLES = 1000
_ROUNDING = 1e-9  # of numbers that are differences or ratios


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured number, and between which 95 % of the bootstrap's lie."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A file that the model can run as.

    Attributes:
        path: The file.
        precision: What it computes in: ``fp32``, ``fp16`` or ``int8``.
        regrouped: Whether its grouped convolutions were rewritten in the forms that are fastest here.
        made: Whether it was made for this, and is not the file that came in.
        runtimes: What it is for; ``None`` for all.
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
        """What it is, in words."""
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

    def percentile_estimate(self, percent: int, *, seed: int = 0) -> Estimate:
        """Return a percentile of the calls in milliseconds, with the 95 % bootstrap interval over rounds."""
        random = np.random.default_rng(seed)
        blocks = [np.asarray(block) for block in self.rounds]
        drawn = [
            np.percentile(
                np.concatenate([blocks[index] for index in random.integers(len(blocks), size=len(blocks))]), percent
            )
            for _ in range(_RESAMPLES)
        ]
        low, high = np.percentile(drawn, [2.5, 97.5])
        return Estimate(value=self.percentile_ms(percent), low=1e3 * float(low), high=1e3 * float(high))

    def throughput_estimate(self) -> Estimate:
        """Return images per second at the median call, with the interval that follows from the call's."""
        call, images = self.percentile_estimate(50), 1e3 * self.candidate.batch
        return Estimate(value=images / call.value, low=images / call.high, high=images / call.low)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What has to be kept within; ``None`` for what does not matter.

    Attributes:
        latency_ms: For the 90th percentile of a call, in milliseconds.
        drop_points: For the loss of top-1 against the float model, in percentage points.
    """

    latency_ms: float | None = None
    drop_points: float | None = None

    def allow(self, variant: Variant) -> bool:
        """Say whether a file is accurate enough, as far as that was asked for; one of unknown accuracy is not."""
        if self.drop_points is None:
            return True
        return variant.drop_points is not None and variant.drop_points <= self.drop_points + _ROUNDING

    def hold(self, measured: Measured) -> bool:
        """Say whether a candidate keeps within all of them."""
        in_time = self.latency_ms is None or measured.percentile_ms(90) <= self.latency_ms
        return in_time and self.allow(measured.candidate.variant)


def choose(measured: Sequence[Measured], bounds: Bounds, goal: Goal) -> Measured | None:
    """Return the one to use, or ``None`` if none keeps within the bounds.

    Args:
        measured: In turns with each other, so that their rounds can be compared one by one.
        bounds: What it has to keep within.
        goal: What it is the best at.
    """
    held = [one for one in measured if bounds.hold(one)]
    if not held:
        return None
    best = max(held, key=lambda one: (_value(one, goal), *(-cost for cost in _cost(one.candidate))))
    return min((one for one in held if one is best or _as_good(one, best, goal)), key=lambda one: _cost(one.candidate))


def order(measured: Sequence[Measured], bounds: Bounds, goal: Goal) -> list[Measured]:
    """Sort by promise: those within the bounds, those whose median call is, and the others by how far they are off."""

    def key(one: Measured) -> tuple[int, float]:
        if bounds.hold(one):
            return (0, -_value(one, goal))
        if bounds.allow(one.candidate.variant) and one.percentile_ms(50) <= (bounds.latency_ms or 0):
            return (1, one.percentile_ms(90))
        return (2, one.percentile_ms(90))

    return sorted(measured, key=key)


def nearest(measured: Sequence[Measured], bounds: Bounds) -> Measured:
    """Return the one that comes closest to the bounds: of the accurate ones, if any, that of the least p90."""
    return min(measured, key=lambda one: (not bounds.allow(one.candidate.variant), one.percentile_ms(90)))


def _value(one: Measured, goal: Goal) -> float:
    return one.images_per_second if goal is Goal.THROUGHPUT else 1 / one.percentile_ms(50)


def _cost(candidate: Candidate) -> tuple[int, int, bool, bool]:
    return (candidate.threads, candidate.batch, candidate.variant.made, candidate.variant.regrouped)


def _as_good(one: Measured, best: Measured, goal: Goal) -> bool:
    """Say whether the best is not surely better, and not by much."""
    rounds = min(len(one.rounds), len(best.rounds))
    ratio, (low, _) = speedup(one.rounds[:rounds], best.rounds[:rounds])
    images = best.candidate.batch / one.candidate.batch if goal is Goal.THROUGHPUT else 1.0
    return low * images <= 1 + _ROUNDING and ratio * images <= _AS_GOOD
