"""Scenarios of the rows of a benchmark, one after the other, with LoadGen's word on them where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rexport._errors import RexportError, UsageError
from rexport.benchmarks.jobs import Failure
from rexport.benchmarks.loadgen import run_loadgen
from rexport.benchmarks.scenarios.run import run_offline, run_server, run_single_stream
from rexport.benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rexport.benchmarks.document import LoadgenResult, Row, Trial
    from rexport.benchmarks.jobs import Job
    from rexport.benchmarks.scenarios.request import ScenarioRequest
    from rexport.benchmarks.scenarios.results import OfflineResult, ServerResult, SingleStreamResult

__all__ = ["Outcome", "ScenariosInterrupted", "run_job", "run_rows"]


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
        UsageError: There is no such runtime; what goes wrong with the model is a :class:`Failure`.
    """
    try:
        return _run(job, request, on_trial)
    except UsageError:
        raise
    except RexportError as error:
        return Failure(reason=str(error), kind=type(error).__name__)


def _run(job: Job, request: ScenarioRequest, on_trial: Callable[[Trial], None] | None) -> Outcome:
    result: SingleStreamResult | OfflineResult | ServerResult
    rate = None
    if request.scenario is Scenario.SERVER:
        result = run_server(job, request, on_trial=on_trial)
        rate, request = result.rate_per_second, replace(request, percentile=result.percentile)
        if rate is None:
            return Outcome(result=result, loadgen=None)
    elif request.scenario is Scenario.OFFLINE:
        result = run_offline(job, request)
    else:
        result = run_single_stream(job, request)
    if not request.loadgen:
        return Outcome(result=result, loadgen=None)
    return Outcome(result=result, loadgen=run_loadgen(job, request, rate=rate))
