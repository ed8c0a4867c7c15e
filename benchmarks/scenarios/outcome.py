"""Scenarios of the rows of a benchmark, one after the other, with LoadGen's word on them where that is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rexport._errors import RexportError, UsageError
from rexport.benchmarks.jobs import Failure
from rexport.benchmarks.loadgen import run_loadgen
from rexport.benchmarks.scenarios.image import Image
from rexport.benchmarks.scenarios.run import check_latency_bound, run_offline, run_server, run_single_stream
from rexport.benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rexport.benchmarks.document import LoadgenResult, Row, Trial
    from rexport.benchmarks.jobs import Job
    from rexport.benchmarks.scenarios.results import OfflineResult, ServerResult, SingleStreamResult

__all__ = ["Outcome", "ScenarioRequest", "ScenariosInterrupted", "run_job", "run_rows"]


@dataclass(frozen=True, kw_only=True)
class ScenarioRequest:
    """Which scenario, and how.

    Attributes:
        scenario: Which.
        latency_bound_ms: Of the server scenario, and of no other.
        percentile: Likewise; ``None`` leaves the choice to :func:`run_server`.
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
            raise UsageError("--latency-bound is of the server scenario; pass --scenario server too, or leave it out.")
        if bound is None and is_server:
            raise UsageError("--scenario server needs a bound for the latency; pass --latency-bound 20, say.")
        if not 0 < self.seconds < math.inf:
            raise UsageError(f"--seconds {self.seconds:g}: a run lasts more than 0 seconds, such as 10.")
        if bound is not None:
            check_latency_bound(bound, seconds=self.seconds)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a job; ``loadgen`` is ``None`` where it was not asked for, or there was no rate to run at."""

    result: SingleStreamResult | OfflineResult | ServerResult
    loadgen: LoadgenResult | None

    def row_fields(self) -> dict[str, Any]:
        """Return the scenario's fields of a row."""
        return {**self.result.row_fields(), "loadgen": self.loadgen}


class ScenariosInterrupted(KeyboardInterrupt):
    """Ctrl-C; ``rows`` has those that were finished."""

    def __init__(self, rows: tuple[Row, ...]) -> None:
        super().__init__()
        self.rows = rows


def run_rows(
    plans: Iterable[tuple[Row, Job | Failure]],
    request: ScenarioRequest,
    *,
    on_trial: Callable[[Trial], None] | None = None,
) -> tuple[Row, ...]:
    """Run the scenario of each row, one row at a time: what fails has its reason, and the others go on.

    Raises:
        UsageError: The numbers make no sense.
        ScenariosInterrupted: Ctrl-C was pressed.
    """
    rows: list[Row] = []
    for row, plan in plans:
        try:
            outcome = plan if isinstance(plan, Failure) else run_job(plan, request, on_trial=on_trial)
        except KeyboardInterrupt:
            raise ScenariosInterrupted(tuple(rows)) from None
        rows.append(replace(row, **outcome.row_fields()))
    return tuple(rows)


def run_job(
    job: Job, request: ScenarioRequest, *, on_trial: Callable[[Trial], None] | None = None
) -> Outcome | Failure:
    """Run the scenario on a job's model, runtime, threads and images; its batch is the largest to form.

    Raises:
        UsageError: The numbers make no sense; what goes wrong with the model is a :class:`Failure`.
    """
    try:
        return _run(job, request, on_trial)
    except UsageError:
        raise
    except RexportError as error:
        return Failure(reason=str(error), kind=type(error).__name__)


def _run(job: Job, request: ScenarioRequest, on_trial: Callable[[Trial], None] | None) -> Outcome:
    image = Image(shape=job.shape[1:], dtype=job.dtype, preprocessing=job.preprocessing)
    batch = job.shape[0]
    result: SingleStreamResult | OfflineResult | ServerResult
    rate, percentile = None, 99
    if request.scenario is Scenario.SERVER:
        assert request.latency_bound_ms is not None  # the request was checked
        result = run_server(
            job.source,
            job.runtime,
            threads=job.threads,
            batch=batch,
            latency_bound_ms=request.latency_bound_ms,
            percentile=request.percentile,
            seconds=request.seconds,
            image=image,
            on_trial=on_trial,
        )
        rate, percentile = result.rate_per_second, result.percentile or percentile
        if rate is None:
            return Outcome(result=result, loadgen=None)
    elif request.scenario is Scenario.OFFLINE:
        result = run_offline(
            job.source, job.runtime, threads=job.threads, batch=batch, image=image, min_seconds=request.seconds
        )
    else:
        result = run_single_stream(
            job.source, job.runtime, threads=job.threads, image=image, min_seconds=request.seconds
        )
    if not request.loadgen:
        return Outcome(result=result, loadgen=None)
    verdict = run_loadgen(
        job.source,
        job.runtime,
        request.scenario,
        threads=job.threads,
        batch=batch,
        rate=rate,
        latency_bound_ms=request.latency_bound_ms,
        percentile=percentile,
        min_seconds=request.seconds,
        image=image,
    )
    return Outcome(result=result, loadgen=verdict)
