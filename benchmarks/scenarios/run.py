"""Running a scenario on a model, in a process of its own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._errors import UsageError
from rexport.benchmarks.document import Trial
from rexport.benchmarks.scenarios.process import opened
from rexport.benchmarks.scenarios.results import (
    FEWEST_QUERIES,
    OfflineResult,
    ServerResult,
    SingleStreamResult,
    nearest_rank,
)
from rexport.benchmarks.scenarios.search import highest_rate
from rexport.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rexport.benchmarks.scenarios.image import Image
    from rexport.benchmarks.scenarios.process import SutProcess
    from rexport.runtimes.source import Source

__all__ = ["check_latency_bound", "check_options", "run_offline", "run_server", "run_single_stream", "warm_up"]

_LONGEST = 4  # times the seconds asked for: what a trial may take to see enough queries at a low rate
_BOUNDS_PER_TRIAL = 20  # see _check_length
_SHARE = 0.7  # of the capacity: where the search starts
_ROOM = 4  # p99 is judged if its lowest rate leaves so much room below the capacity
_COMPILING = 900.0  # seconds that first calls may take, where a runtime compiles then


def run_single_stream(
    source: Source,
    runtime: str,
    *,
    threads: int | None = None,
    image: Image | None = None,
    min_seconds: float = 10.0,
    seed: int = 0,
) -> SingleStreamResult:
    """Ask one query of one image after the other: at least 64, which p90 takes.

    Args:
        source: The model.
        runtime: A name from :data:`rexport.runtimes.RUNTIMES`.
        threads: Threads of the runtime; by default all usable cores.
        image: What a query carries; by default what the model takes.
        min_seconds: The least time to go on for.
        seed: Of the images.

    Raises:
        UsageError: There is no such runtime, or numbers make no sense.
        UnavailableError: The runtime can't run this model, or not here.
        RexportError: The model failed, or its process died or hung.
    """
    check_options(runtime, threads=threads, batch=1, seconds=min_seconds)
    with opened(source, runtime, image=image, threads=threads, batch=1, seed=seed) as process:
        (alone,) = warm_up(process, [1])
        fewest = FEWEST_QUERIES[90]
        reply = process.request(
            "single-stream",
            should_take=2 * max(min_seconds, fewest * alone),
            min_seconds=min_seconds,
            min_queries=fewest,
        )
    return SingleStreamResult(seconds=tuple(reply["seconds"]))


def run_offline(
    source: Source,
    runtime: str,
    *,
    threads: int | None = None,
    batch: int,
    image: Image | None = None,
    min_seconds: float = 10.0,
    seed: int = 0,
) -> OfflineResult:
    """Run images that are all there from the start, ``batch`` at a time, for at least ``min_seconds``.

    Arguments and errors are those of :func:`run_single_stream`.
    """
    check_options(runtime, threads=threads, batch=batch, seconds=min_seconds)
    with opened(source, runtime, image=image, threads=threads, batch=batch, seed=seed) as process:
        (full,) = warm_up(process, [batch])
        reply = process.request("offline", should_take=2 * (min_seconds + full), min_seconds=min_seconds)
    return OfflineResult(batch=batch, seconds=tuple(reply["seconds"]), elapsed=reply["elapsed"])


def run_server(
    source: Source,
    runtime: str,
    *,
    threads: int | None = None,
    batch: int,
    latency_bound_ms: float,
    percentile: int | None = None,
    seconds: float = 10.0,
    precision: float = 0.05,
    image: Image | None = None,
    seed: int = 0,
    on_trial: Callable[[Trial], None] | None = None,
) -> ServerResult:
    """Find the highest rate of queries that are answered within a bound.

    Queries of one image arrive as a Poisson process and wait in a queue, from which the model takes up to ``batch``
    whenever it is free. A trial lasts ``seconds``, or up to four times that where its percentile needs more queries.

    Args:
        source: The model.
        runtime: A name from :data:`rexport.runtimes.RUNTIMES`.
        threads: Threads of the runtime; by default all usable cores.
        batch: The most queries to answer with one call.
        latency_bound_ms: The bound in milliseconds, counted from the scheduled arrival.
        percentile: 99 or 90 per cent have to be within it; by default 99, unless 662 queries would take too long.
        seconds: The length of a trial.
        precision: How close, relatively, the search narrows the rate down.
        image: What a query carries; by default what the model takes.
        seed: Of arrivals and images.
        on_trial: Told of every trial when it is over, so that an interrupted search leaves something.

    Returns:
        The rate, if there is one, and every trial.

    Raises:
        UsageError: There is no such runtime, or numbers make no sense.
        UnavailableError: The runtime can't run this model, or not here.
        RexportError: The model failed, or its process died or hung.
    """
    check_options(runtime, threads=threads, batch=batch, seconds=seconds)
    check_latency_bound(latency_bound_ms, seconds=seconds)
    if percentile not in (None, 90, 99):
        raise UsageError(f"The percentile of a latency bound is 90 or 99, not {percentile}.")
    if not 0 < precision < 1:
        raise UsageError(f"A rate is searched to a precision between 0 and 1, such as 0.05, not {precision}.")
    with opened(source, runtime, image=image, threads=threads, batch=batch, seed=seed) as process:
        # every size that may be formed: a runtime that compiles for shapes would stall in the middle of a trial
        times = warm_up(process, range(1, batch + 1))
        alone, capacity = times[0], max(size / time for size, time in enumerate(times, start=1))
        judged = percentile or _percentile(capacity, seconds)
        lowest = FEWEST_QUERIES[judged] / (_LONGEST * seconds)
        span = max(seconds, _BOUNDS_PER_TRIAL * latency_bound_ms / 1e3)
        bound = latency_bound_ms / 1e3
        latencies: list[float] = []

        def trial(rate: float, purpose: str) -> Trial:
            queries = max(FEWEST_QUERIES[judged], math.ceil(rate * span))
            reply = process.request(
                "server",
                should_take=2 * queries / rate + queries * alone,
                rate=rate,
                queries=queries,
                # the confirmation sees other gaps than the search
                seed=seed + (purpose == "confirm"),
                bound=bound,
                allowed=queries - _rank(judged, queries),
            )
            latencies[:] = reply["latencies"]
            outcome = _trial(rate, purpose, reply)
            if on_trial is not None:
                on_trial(outcome)
            return outcome

        start = lowest if alone > bound else _SHARE * capacity
        rate, trials = highest_rate(trial, start=max(start, lowest), lowest=lowest, precision=precision)
    reason = None
    if rate is None:
        reason = (
            f"no rate kept p{judged} within {latency_bound_ms:g} ms: not even {lowest:.3g} queries/s, the lowest that "
            f"trials of up to {_LONGEST * seconds:g} s can judge it at. One image alone takes {alone * 1e3:.3g} ms; "
            "allow more with --latency-bound, or pass more --seconds to try lower rates."
        )
    return ServerResult(
        batch=batch,
        latency_bound_ms=latency_bound_ms,
        percentile=judged,
        rate_per_second=rate,
        reason=reason,
        one_image_ms=alone * 1e3,
        capacity_per_second=capacity,
        trials=trials,
        latencies=tuple(latencies) if rate is not None else (),
    )


def warm_up(process: SutProcess, sizes: Sequence[int]) -> list[float]:
    """Call the model with each number of images until its times settle; return the seconds of a call of each."""
    reply = process.request("warm up", should_take=_COMPILING, sizes=list(sizes))
    return [reply["seconds"][str(size)] for size in sizes]


def check_options(runtime: str, *, threads: int | None, batch: int, seconds: float) -> None:
    """Raise :class:`UsageError` for what no scenario can run with."""
    if runtime not in RUNTIMES:
        raise UsageError(f"There is no runtime {runtime!r}; choose from {', '.join(RUNTIMES)}.")
    if threads is not None and threads < 1:
        raise UsageError(f"A model runs on 1 thread or more, not {threads}.")
    if batch < 1:
        raise UsageError(f"A batch has 1 image or more, not {batch}.")
    if not 0 < seconds < math.inf:
        raise UsageError(f"A run lasts more than 0 seconds, such as 10, not {seconds:g}.")


def check_latency_bound(bound_ms: float, *, seconds: float) -> None:
    """Raise :class:`UsageError` for a bound that makes no sense, or that trials of this length can't tell about.

    Above the capacity μ a queue grows without end, but in a trial of T seconds at rate λ the last query has waited
    T (λ/μ − 1) only. For a rate 5 % too high to pass the bound, T has to be 20 bounds.
    """
    if not 0 < bound_ms < math.inf:
        raise UsageError(f"--latency-bound {bound_ms:g}: it is milliseconds, larger than zero, such as 20.")
    needed = _BOUNDS_PER_TRIAL * bound_ms / 1e3
    if needed > _LONGEST * seconds:
        raise UsageError(
            f"A bound of {bound_ms:g} ms takes trials of {needed:.3g} s: a queue that grows shows only then. "
            f"Pass --seconds {math.ceil(needed / _LONGEST)}."
        )


def _percentile(capacity: float, seconds: float) -> int:
    if FEWEST_QUERIES[99] / (_LONGEST * seconds) <= capacity / _ROOM:
        return 99
    return 90


def _rank(percentile: int, queries: int) -> int:
    """Return how many of the queries have to be within the bound: ``⌈percentile · n / 100⌉``."""
    return -(-percentile * queries // 100)


def _trial(rate: float, purpose: str, reply: dict[str, Any]) -> Trial:
    latencies_ms = np.array(reply["latencies"]) * 1e3
    trial = Trial(
        rate_per_second=rate,
        queries=len(latencies_ms),
        held=not reply["stopped"],
        purpose=purpose,
        stopped=reply["stopped"],
        mean_batch=len(latencies_ms) / reply["batches"],
        seconds=reply["seconds"],
    )
    if trial.stopped:  # the queries answered by then are no sample of all
        return trial
    p50, p90, p99 = (nearest_rank(latencies_ms, percentile) for percentile in (50, 90, 99))
    return replace(trial, p50_ms=p50, p90_ms=p90, p99_ms=p99)
