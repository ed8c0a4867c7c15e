"""``--scenario``, ``--latency-bound`` and ``--loadgen`` of ``rexport bench``, and how their results are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport.benchmarks.scenarios.scenario import Scenario
from rexport.cli._reports import or_dash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.benchmarks.document import Latency, Row, Trial
    from rexport.benchmarks.scenarios import ScenarioRequest

__all__ = ["LatencyBound", "Loadgen", "ScenarioChoice", "TrialSeconds", "parse_scenario", "print_rows", "say_trial"]

_PANEL = "Scenarios"
ScenarioChoice = Annotated[
    Scenario | None,
    typer.Option(
        "--scenario",
        help="Send one image after another, all images at once, or images at random times (server), to one model at a "
        "time; by default models take turns.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
LatencyBound = Annotated[
    float | None,
    typer.Option(
        "--latency-bound",
        metavar="MS",
        help="With --scenario server: find the highest query rate whose p99 latency stays within this.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
TrialSeconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        help="With --scenario: the length of a run, or of each trial.",
        show_default="10",
        rich_help_panel=_PANEL,
    ),
]
Loadgen = Annotated[
    bool,
    typer.Option(
        "--loadgen",
        help="With --scenario: also run it with MLPerf's LoadGen, and show its verdict.",
        rich_help_panel=_PANEL,
    ),
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
            raise UsageError(f"{option} belongs to a scenario; pass --scenario too, such as --scenario server.")
    return None


def say_trial(trial: Trial) -> None:
    """Print the outcome of a trial to stderr."""
    from rexport.cli._console import say

    outcome = f"p99 {or_dash(trial.p99_ms, ',.2f')} ms"
    if trial.stopped:
        outcome = "stopped early"
    elif trial.p99_ms is None:
        outcome = f"p90 {or_dash(trial.p90_ms, ',.2f')} ms"
    say(
        f"{trial.purpose}: {trial.rate_per_second:,.1f} queries/s, {trial.queries} answered, {outcome}: "
        f"{'holds' if trial.held else 'does not hold'}"
    )


def print_rows(rows: Sequence[Row], *, title: str) -> None:
    """Print the tables of measured rows, all of one scenario, LoadGen's verdicts, and notes."""
    from rexport.cli._console import note, print_table

    if not rows:
        return
    columns = ["model", "runtime", "batch", "img/s", "p50 ms", "p90 ms", "p99 ms"]
    server = rows[0].server
    if server is not None:
        columns[2:4] = ["batch ≤", "held/s", "mean batch"]
        title = f"{title}; highest query rate with p99 within {server.latency_bound_ms:g} ms"
    print_table(columns, [_cells(row) for row in rows], title=title, left=(0, 1), keys=3)
    for row in rows:
        if row.reason is not None:
            note(f"{row.model} on {row.runtime}: {row.reason}")
        if row.server is not None and row.server.percentile != 99:
            note(
                f"{row.model} on {row.runtime}: judged at p90, because the 662 queries that p99 needs would have taken "
                "too long."
            )
    _print_loadgen(rows)


def _cells(row: Row) -> list[str]:
    cells = [row.model, row.runtime, str(row.batch), or_dash(row.images_per_second, ",.1f")]
    if row.server is not None:
        confirmed = row.server.confirmed
        cells.append(or_dash(confirmed.mean_batch if confirmed else None, ",.1f"))
    return cells + _latencies(row.latency_ms)


def _latencies(latency: Latency) -> list[str]:
    return [or_dash(value, ",.2f") for value in (latency.p50, latency.p90, latency.p99)]


def _print_loadgen(rows: Sequence[Row]) -> None:
    from rexport.cli._console import note, print_table

    runs = [(row, row.loadgen) for row in rows if row.loadgen is not None]
    if not runs:
        return
    print_table(
        ["model", "runtime", "LoadGen", "samples/s", "queries", "p50 ms", "p90 ms", "p99 ms"],
        [
            [
                row.model,
                row.runtime,
                "VALID" if verdict.valid else "INVALID",
                or_dash(verdict.samples_per_second, ",.1f"),
                str(verdict.queries),
                *_latencies(verdict.latency_ms),
            ]
            for row, verdict in runs
        ],
        left=(0, 1, 2),
        keys=2,
    )
    for row, verdict in runs:
        if not verdict.valid:
            why = "; ".join(reason.rstrip(".") for reason in verdict.reasons)
            note(f"{row.model} on {row.runtime}, INVALID: {why}.")
    note(runs[0][1].note)
