"""``--scenario``, ``--latency-bound`` and ``--loadgen`` of ``rexport bench``, and what is printed of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport.benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.benchmarks.scenarios import Outcome, ScenarioRequest, Trial

__all__ = [
    "LatencyBound",
    "Loadgen",
    "ScenarioChoice",
    "TrialSeconds",
    "parse_scenario",
    "print_outcomes",
    "say_trial",
]

ScenarioChoice = Annotated[
    Scenario | None,
    typer.Option(
        "--scenario",
        help="Ask one image after the other, all at once, or at random times (server), a model at a time; by default "
        "models take turns.",
        show_default=False,
    ),
]
LatencyBound = Annotated[
    float | None,
    typer.Option(
        "--latency-bound",
        metavar="MS",
        help="Of --scenario server: find the highest rate of queries whose p99 stays within this.",
        show_default=False,
    ),
]
TrialSeconds = Annotated[
    float | None,
    typer.Option("--seconds", help="Of --scenario: the length of a run, or of each trial.", show_default="10"),
]
Loadgen = Annotated[
    bool,
    typer.Option("--loadgen", help="Of --scenario: let MLPerf's LoadGen run it as well, and say what it says."),
]
_SECONDS = 10.0


def parse_scenario(
    scenario: Scenario | None, latency_bound: float | None, seconds: float | None, *, loadgen: bool
) -> ScenarioRequest | None:
    """Return the scenario; ``None`` where there is none, and models take turns.

    Raises:
        UsageError: The options do not go together, or a number makes no sense.
    """
    from rexport.benchmarks.scenarios import ScenarioRequest

    if scenario is not None:
        if seconds is None:
            seconds = _SECONDS
        return ScenarioRequest(scenario=scenario, latency_bound_ms=latency_bound, seconds=seconds, loadgen=loadgen)
    given = {"--latency-bound": latency_bound is not None, "--seconds": seconds is not None, "--loadgen": loadgen}
    for option, is_given in given.items():
        if is_given:
            raise UsageError(f"{option} is of a scenario; pass --scenario server, say, too.")
    return None


def say_trial(trial: Trial) -> None:
    """Say what came of a trial, on stderr."""
    from rexport.cli._console import say

    latency = trial.p99_ms if trial.p99_ms is not None else trial.p90_ms
    name = "p99" if trial.p99_ms is not None else "p90"
    seen = "given up" if trial.stopped else f"{name} {_number(latency, 2)} ms"
    say(
        f"{trial.purpose}: {trial.rate_per_second:,.1f} queries/s, {trial.queries} answered, {seen}: "
        f"{'holds' if trial.held else 'does not hold'}"
    )


def print_outcomes(outcomes: Sequence[Outcome], *, title: str) -> None:
    """Print the tables of what was measured, all of one scenario; what LoadGen says; and notes."""
    from rexport.benchmarks.scenarios import ServerResult
    from rexport.cli._console import note, print_table

    if not outcomes:
        return
    columns = ["model", "runtime", "batch", "img/s", "p50 ms", "p90 ms", "p99 ms"]
    first = outcomes[0].result
    if isinstance(first, ServerResult):
        columns[2:4] = ["batch ≤", "queries/s", "mean batch", "judged at"]
        title = f"{title}; highest rate that is answered within {first.latency_bound_ms:g} ms"
    print_table(columns, [_cells(outcome) for outcome in outcomes], title=title, left=(0, 1))
    for outcome in outcomes:
        result = outcome.result
        if isinstance(result, ServerResult):
            where = f"{outcome.job.source} on {outcome.job.runtime}"
            if result.reason is not None:
                note(f"{where}: {result.reason}")
            if result.percentile != 99:
                note(f"{where}: judged at p90, as the 662 queries that p99 takes would have taken too long.")
    _print_loadgen(outcomes)


def _cells(outcome: Outcome) -> list[str]:
    from rexport.benchmarks.scenarios import ServerResult

    fields = outcome.result.row_fields()
    latency = fields["latency_ms"]
    cells = [str(outcome.job.source), outcome.job.runtime, str(outcome.job.shape[0])]
    cells.append(_number(fields["images_per_second"], 1))
    if isinstance(outcome.result, ServerResult):
        confirmed = outcome.result.confirmed
        cells += [_number(None if confirmed is None else confirmed.mean_batch, 1), f"p{outcome.result.percentile}"]
    return cells + [_number(latency[name], 2) for name in ("p50", "p90", "p99")]


def _print_loadgen(outcomes: Sequence[Outcome]) -> None:
    from rexport.cli._console import note, print_table

    runs = [(outcome, outcome.loadgen) for outcome in outcomes if outcome.loadgen is not None]
    if not runs:
        return
    print_table(
        ["model", "runtime", "LoadGen says", "samples/s", "queries", "p50 ms", "p90 ms", "p99 ms"],
        [
            [
                str(outcome.job.source),
                outcome.job.runtime,
                "VALID" if said.valid else "INVALID",
                _number(said.samples_per_second, 1),
                str(said.queries),
                *(_number(said.latency_ms[name], 2) for name in ("p50", "p90", "p99")),
            ]
            for outcome, said in runs
        ],
        left=(0, 1, 2),
    )
    for outcome, said in runs:
        if not said.valid:
            why = "; ".join(reason.rstrip(".") for reason in said.reasons)
            note(f"{outcome.job.source} on {outcome.job.runtime}, INVALID: {why}.")
    note(runs[0][1].note)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
