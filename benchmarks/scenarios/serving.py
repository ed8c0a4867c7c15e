"""A server in one loop: whoever has arrived is answered, up to a batch at a time, as soon as the model is free.

A query's latency counts from its *scheduled* arrival, on one absolute clock: if the model stalls, those that should
have arrived meanwhile wait from then on. A load generator that times its own calls instead, and asks later when it is
answered later, would not see them (Gil Tene's "coordinated omission").

No query waits for a batch to fill up. While the model is busy others arrive, so the batches grow with the load by
themselves, and a single query on an idle server is answered at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "Limit", "MonotonicClock", "Served", "serve"]

# Seconds that are waited out awake, as Linux ends sleeps 0.06 ms late. Much more would make this a process that
# computes all the time, which the scheduler holds up for milliseconds where other programs want the core.
_SPIN = 1e-4


class Clock(Protocol):
    """Time that only goes on."""

    def now(self) -> float:
        """Return the time in seconds since some moment."""
        ...

    def sleep_until(self, moment: float) -> None:
        """Return when it is ``moment``; at once, if that has passed."""
        ...


class MonotonicClock:
    """The machine's."""

    def now(self) -> float:
        """Return the time in seconds since some moment."""
        return time.perf_counter()

    def sleep_until(self, moment: float) -> None:
        """Return when it is ``moment``; at once, if that has passed."""
        remaining = moment - time.perf_counter() - _SPIN
        if remaining > 0:
            time.sleep(remaining)
        while time.perf_counter() < moment:
            pass


@dataclass(frozen=True, kw_only=True)
class Limit:
    """When to give up: once more than ``allowed`` queries took longer than ``seconds``."""

    seconds: float
    allowed: int


@dataclass(frozen=True, kw_only=True)
class Served:
    """What came of a run.

    Attributes:
        latencies: Seconds from scheduled arrival to answer, of the queries answered, in order of arrival.
        batches: How many calls of the model answered them.
        seconds: From the start of the schedule to the last answer.
        stopped: Whether the limit was passed and the rest left unanswered.
    """

    latencies: np.ndarray
    batches: int
    seconds: float
    stopped: bool


def serve(
    arrivals: np.ndarray,
    run: Callable[[int, int], object],
    *,
    batch: int,
    clock: Clock,
    limit: Limit | None = None,
) -> Served:
    """Answer queries as they arrive.

    Args:
        arrivals: When, in seconds after now; ascending.
        run: Called with the number of the first query and of how many to answer; returns when they are answered.
        batch: The most queries per call.
        clock: The time.
        limit: When to give up early.
    """
    latencies = np.empty(len(arrivals))
    first = batches = late = 0
    stopped = False
    start = clock.now()
    elapsed = 0.0
    while first < len(arrivals) and not stopped:
        clock.sleep_until(start + float(arrivals[first]))
        arrived = int(np.searchsorted(arrivals[first : first + batch], clock.now() - start, side="right"))
        last = first + max(arrived, 1)  # the one slept for is here, whatever rounding says
        run(first, last - first)
        elapsed = clock.now() - start
        latencies[first:last] = elapsed - arrivals[first:last]
        if limit is not None:
            late += int(np.count_nonzero(latencies[first:last] > limit.seconds))
            stopped = late > limit.allowed
        first = last
        batches += 1
    return Served(latencies=latencies[:first], batches=batches, seconds=elapsed, stopped=stopped)
