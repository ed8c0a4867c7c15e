"""Which scenario is asked for, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rexport._errors import UsageError
from rexport.benchmarks.scenarios.scenario import Scenario

__all__ = ["ScenarioRequest"]

_LONGEST = 4  # times the seconds asked for: what a trial may take to see enough queries at a low rate
_BOUNDS_PER_TRIAL = 20  # see ScenarioRequest._check_bound


@dataclass(frozen=True, kw_only=True)
class ScenarioRequest:
    """Which scenario, and how.

    Attributes:
        scenario: Which.
        latency_bound_ms: Of the server scenario, and of no other.
        percentile: Likewise: 99 or 90 per cent of the queries have to be within the bound; by default 99, unless 662
            queries would take too long.
        seconds: The least length of a run, or of a trial.
        loadgen: Whether LoadGen runs it as well, at the rate that was found.

    Raises:
        UsageError: The values do not go together, or a number makes no sense.
    """

    scenario: Scenario
    latency_bound_ms: float | None = None
    percentile: int | None = None
    seconds: float = 10.0
    loadgen: bool = False

    def __post_init__(self) -> None:
        bound, is_server = self.latency_bound_ms, self.scenario is Scenario.SERVER
        if bound is not None and not is_server:
            raise UsageError("--latency-bound belongs to --scenario server; pass that too, or leave it out.")
        if bound is None and is_server:
            raise UsageError("--scenario server needs a latency bound; pass one such as --latency-bound 20.")
        if not 0 < self.seconds < math.inf:
            raise UsageError(f"--seconds {self.seconds:g}: must be above 0, such as 10.")
        if self.percentile not in (None, 90, 99):
            raise UsageError(f"The percentile of a latency bound is 90 or 99, not {self.percentile}.")
        if bound is not None:
            self._check_bound(bound)

    @property
    def bound(self) -> float:
        """The latency bound of the server scenario, in seconds."""
        assert self.latency_bound_ms is not None  # it was checked
        return self.latency_bound_ms / 1e3

    @property
    def span(self) -> float:
        """How long a trial of the server scenario lasts if that brings enough queries, in seconds."""
        return max(self.seconds, _BOUNDS_PER_TRIAL * self.bound)

    @property
    def longest(self) -> float:
        """How long it may last, in seconds."""
        return _LONGEST * self.seconds

    def _check_bound(self, bound_ms: float) -> None:
        """Refuse a bound that makes no sense, or that trials of this length can't tell about.

        Above the capacity μ a queue grows without end, but in a trial of T seconds at rate λ the last query has waited
        T (λ/μ − 1) only. For a rate 5 % too high to pass the bound, T has to be 20 bounds.
        """
        if not 0 < bound_ms < math.inf:
            raise UsageError(f"--latency-bound {bound_ms:g}: must be above 0 ms, such as 20.")
        if self.span > self.longest:
            raise UsageError(
                f"A bound of {bound_ms:g} ms takes trials of {self.span:.3g} s: a queue that grows shows only then. "
                f"Pass --seconds {math.ceil(self.span / _LONGEST)}."
            )
