from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks.scenarios.arrivals import poisson_arrivals
from rexport.benchmarks.scenarios.serving import Limit, MonotonicClock, Served, serve
from tests.benchmarks.scenarios.conftest import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

arrival_times = st.lists(st.floats(0, 10), min_size=1, max_size=60).map(sorted)


def simulate(
    arrivals: list[float] | np.ndarray,
    service: Callable[[int, int], float],
    *,
    batch: int = 1,
    limit: Limit | None = None,
) -> tuple[Served, list[tuple[float, int, int]]]:
    """Serve with a model of known time; also return when each call began, and its queries."""
    clock, calls = FakeClock(), []
    start = clock.time

    def run(first: int, count: int) -> None:
        calls.append((clock.time - start, first, count))
        clock.time += service(first, count)

    return serve(np.array(arrivals), run, batch=batch, clock=clock, limit=limit), calls


@given(arrival_times, st.floats(1e-3, 2))
def test_one_at_a_time_it_is_lindleys_recursion(arrivals: list[float], service: float) -> None:
    served, _ = simulate(arrivals, lambda first, count: service)
    waits = [0.0]
    for before, after in pairwise(arrivals):
        waits.append(max(0.0, waits[-1] + service - (after - before)))
    # the clock stands at 1000, whose rounding is 1e-13
    np.testing.assert_allclose(served.latencies, np.array(waits) + service, atol=1e-9)


@given(arrival_times, st.floats(1e-3, 2), st.integers(1, 8))
def test_every_query_is_answered_once_in_order_and_no_one_waits_for_an_idle_model(
    arrivals: list[float], service: float, batch: int
) -> None:
    served, calls = simulate(arrivals, lambda first, count: service * count**0.5, batch=batch)
    assert [first for _, first, _ in calls] == list(np.cumsum([0] + [count for *_, count in calls[:-1]]))
    assert sum(count for *_, count in calls) == len(arrivals) == len(served.latencies)
    free = 0.0
    for begin, first, count in calls:
        assert begin == pytest.approx(max(free, arrivals[first]), abs=1e-9)
        assert 1 <= count <= batch
        assert all(moment <= begin + 1e-9 for moment in arrivals[first : first + count])
        if count < batch and first + count < len(arrivals):
            assert arrivals[first + count] > begin - 1e-9  # whoever was left out was not there
        free = begin + service * count**0.5
    assert served.batches == len(calls)
    assert served.seconds == pytest.approx(free, abs=1e-9)


def test_a_stall_is_in_the_latency_of_all_who_should_have_come_meanwhile() -> None:
    """One slow call of 2000: whoever times calls finds one slow one, and p99 as if nothing had been."""
    stall = 0.1
    arrivals = poisson_arrivals(1000, 2000, seed=5)
    durations = np.full(2000, 1e-4)
    durations[500] = stall
    served, _ = simulate(arrivals, lambda first, count: float(durations[first : first + count].sum()))
    assert np.percentile(durations, 99) == pytest.approx(1e-4)
    # about 100 of 2000 arrive in the stall, evenly over it: the slowest hundredth waits for 4/5 of it or more
    assert np.percentile(served.latencies, 99) > 0.7 * stall
    assert np.count_nonzero(served.latencies > 0.01) > 70
    # and before it nobody waits long
    assert served.latencies[:500].max() < 0.002


def test_a_hopeless_trial_ends_early() -> None:
    arrivals = poisson_arrivals(100, 10_000, seed=0)
    served, calls = simulate(arrivals, lambda first, count: 0.1, limit=Limit(seconds=0.5, allowed=20))
    assert served.stopped
    assert np.count_nonzero(served.latencies > 0.5) == 21
    assert len(served.latencies) == len(calls) < 50


def test_as_many_late_as_allowed_are_no_reason_to_stop() -> None:
    served, _ = simulate([0, 10, 20, 30], lambda first, count: 1 + (first in (1, 2)), limit=Limit(seconds=1, allowed=2))
    assert not served.stopped
    assert len(served.latencies) == 4


def test_on_the_real_clock_nobody_is_answered_before_arriving() -> None:
    arrivals = poisson_arrivals(400, 80, seed=1)
    served = serve(arrivals, lambda first, count: None, batch=4, clock=MonotonicClock())
    assert served.latencies.min() >= 0
    assert served.seconds >= arrivals[-1]
    assert np.median(served.latencies) < 0.05  # a sleep that ends 50 ms late is no clock
