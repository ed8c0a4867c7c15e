"""Running a scenario on a model, in a process of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._errors import UsageError
from rexport.benchmarks.document import Trial
from rexport.benchmarks.results import FEWEST_QUERIES
from rexport.benchmarks.scenarios.process import opened
from rexport.benchmarks.scenarios.results import OfflineResult, ServerResult, SingleStreamResult, nearest_rank
from rexport.benchmarks.scenarios.search import highest_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rexport.benchmarks.jobs import Job
    from rexport.benchmarks.scenarios.process import SutProcess
    from rexport.benchmarks.scenarios.request import ScenarioRequest

__all__ = ["run_offline", "run_server", "run_single_stream", "warm_up"]

_SHARE = 0.7  # of the capacity: where the search starts
_ROOM = 4  # p99 is judged if its lowest rate leaves so much room below the capacity
_COMPILING = 900.0  # seconds that first calls may take, where a runtime compiles then


def run_single_stream(job: Job, request: ScenarioRequest) -> SingleStreamResult:
    """Ask one query of one image after the other: at least 64, which p90 takes, whatever the job's batch.

    Raises:
        UnavailableError: The runtime can't run this model, or not here.
        RexportError: The model failed, or its process died or hung.
    """
    with opened(job.with_batch(1)) as process:
        (alone,) = warm_up(process, [1])
        fewest = FEWEST_QUERIES[90]
        reply = process.request(
            "single-stream",
            should_take=2 * max(request.seconds, fewest * alone),
            min_seconds=request.seconds,
            min_queries=fewest,
        )
    return SingleStreamResult(seconds=tuple(reply["seconds"]))


def run_offline(job: Job, request: ScenarioRequest) -> OfflineResult:
    """Run images that are all there from the start, a batch at a time; errors are :func:`run_single_stream`'s."""
    with opened(job) as process:
        (full,) = warm_up(process, [job.batch])
        reply = process.request("offline", should_take=2 * (request.seconds + full), min_seconds=request.seconds)
    return OfflineResult(batch=job.batch, seconds=tuple(reply["seconds"]), elapsed=reply["elapsed"])


def run_server(
    job: Job,
    request: ScenarioRequest,
    *,
    precision: float = 0.05,
    on_trial: Callable[[Trial], None] | None = None,
) -> ServerResult:
    """Find the highest rate of queries that are answered within a bound.

    Queries of one image arrive as a Poisson process and wait in a queue, from which the model takes up to a batch
    whenever it is free. A trial lasts the request's seconds, or up to four times that where its percentile needs more
    queries. Latencies count from the scheduled arrival.

    Args:
        job: The model; its batch is the most queries to answer with one call.
        request: Of the server scenario.
        precision: How close, relatively, the search narrows the rate down.
        on_trial: Told of every trial when it is over, so that an interrupted search leaves something.

    Raises:
        UsageError: The precision makes no sense.
        UnavailableError: The runtime can't run this model, or not here.
        RexportError: The model failed, or its process died or hung.
    """
    if not 0 < precision < 1:
        raise UsageError(f"A rate is searched to a precision between 0 and 1, such as 0.05, not {precision}.")
    with opened(job) as process:
        # every size that may be formed: a runtime that compiles for shapes would stall in the middle of a trial
        call_seconds = warm_up(process, range(1, job.batch + 1))
        search = _Search(process=process, request=request, call_seconds=call_seconds, on_trial=on_trial)
        rate, trials = highest_rate(search.run_trial, start=search.start, lowest=search.lowest, precision=precision)
    return search.result(rate, trials)


def warm_up(process: SutProcess, sizes: Sequence[int]) -> list[float]:
    """Call the model with each number of images until its times settle; return the seconds of a call of each."""
    reply = process.request("warm up", should_take=_COMPILING, sizes=list(sizes))
    return [reply["seconds"][str(size)] for size in sizes]


@dataclass(kw_only=True)
class _Search:
    """Trials of rates on a warm process, whose calls of 1, 2, 3 … images take ``call_seconds``."""

    process: SutProcess
    request: ScenarioRequest
    call_seconds: Sequence[float]
    on_trial: Callable[[Trial], None] | None
    _latencies: tuple[float, ...] = field(default=(), init=False)  # of the last trial, in seconds

    @property
    def capacity(self) -> float:
        """Images per second in calls of the best size."""
        return max(size / seconds for size, seconds in enumerate(self.call_seconds, start=1))

    @property
    def percentile(self) -> int:
        """The one that is judged."""
        p99_is_cheap = FEWEST_QUERIES[99] / self.request.longest <= self.capacity / _ROOM
        return self.request.percentile or (99 if p99_is_cheap else 90)

    @property
    def lowest(self) -> float:
        """The lowest rate that a trial can judge."""
        return FEWEST_QUERIES[self.percentile] / self.request.longest

    @property
    def start(self) -> float:
        """The rate to try first: the lowest, if one image alone takes longer than the bound."""
        return self.lowest if self.call_seconds[0] > self.request.bound else _SHARE * self.capacity

    def run_trial(self, rate: float, purpose: str) -> Trial:
        """Try a rate."""
        queries = max(FEWEST_QUERIES[self.percentile], math.ceil(rate * self.request.span))
        reply = self.process.request(
            "server",
            should_take=2 * queries / rate + queries * self.call_seconds[0],
            rate=rate,
            queries=queries,
            seed=int(purpose == "confirm"),  # the confirmation sees other gaps than the search
            bound=self.request.bound,
            allowed=queries - -(-self.percentile * queries // 100),  # within it are ⌈percentile · n / 100⌉
        )
        self._latencies = tuple(reply["latencies"])
        trial = _trial(rate, purpose, reply)
        if self.on_trial is not None:
            self.on_trial(trial)
        return trial

    def result(self, rate: float | None, trials: tuple[Trial, ...]) -> ServerResult:
        """Return what the search found."""
        reason = None
        alone_ms = 1e3 * self.call_seconds[0]
        if rate is None:
            self._latencies = ()
            reason = (
                f"no rate kept p{self.percentile} within {self.request.latency_bound_ms:g} ms: not even "
                f"{self.lowest:.3g} queries/s, the lowest that trials of up to {self.request.longest:g} s can judge it "
                f"at. One image alone takes {alone_ms:.3g} ms; allow more with --latency-bound, or pass more --seconds "
                "to try lower rates."
            )
        return ServerResult(
            batch=len(self.call_seconds),
            latency_bound_ms=self.request.latency_bound_ms,
            percentile=self.percentile,
            rate_per_second=rate,
            reason=reason,
            one_image_ms=alone_ms,
            capacity_per_second=self.capacity,
            trials=trials,
            latencies=self._latencies,
        )


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
