"""What ``rexport tune`` prints of its result."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rexport.cli._console import note, print_table, print_text
from rexport.cli._reports import listed, or_dash

if TYPE_CHECKING:
    from rexport.jobs.tune import TuneResult
    from rexport.tuning import SearchResult, Trial

__all__ = ["print_result"]

_SHOWN = 12  # rows of the table
_CHOSEN, _LOOKED_AT = "←", "*"  # marks of rows
_FEW_CALLS = 64  # below, p90 is an estimate


def print_result(result: TuneResult) -> None:
    """Print the table of the best, the choice, and notes on what was not measured and why."""
    search = result.search
    ranked = _ranked(search)
    if ranked:
        columns = ("file", "runtime", "threads", "batch", "img/s", "95 %", "p50 ms", "p90 ms", "drop", "")
        print_table(columns, [_cells(trial, search) for trial in ranked[:_SHOWN]], left=(0, 1, 9), keys=4)
        if any(_mark(trial, search) == _LOOKED_AT for trial in ranked[:_SHOWN]):
            print_text(f"{_CHOSEN} chosen; {_LOOKED_AT} dropped early, measured over fewer calls")
        if len(ranked) > _SHOWN:
            note(f"{len(ranked) - _SHOWN} more were measured; --json has all of them.")
    if search.chosen is not None:
        origin = "written for it" if search.chosen.candidate.variant.made else "unchanged"
        print_text(f"{result.request.output}: {search.chosen.candidate}; {result.model}, {origin}")
        if len(search.chosen.seconds) < _FEW_CALLS:
            note(f"p90 is an estimate from {len(search.chosen.seconds)} calls; pass more --seconds.")
    if result.machine.is_busy:
        note(
            f"the machine was busy when tuning began ({result.machine.load}); the best choice may be another when it "
            "is idle."
        )
    for left_out in result.variants.left_out:
        note(f"{left_out.what} was left out: {left_out.reason}")
    reasons = defaultdict(list)
    for trial in search.trials:
        if trial.reason is not None:
            reasons[trial.reason].append(str(trial.candidate))
    for reason, candidates in reasons.items():
        note(f"{listed(candidates, 1)} left out: {reason}")


def _ranked(search: SearchResult) -> list[Trial]:
    """Return the measured candidates: the chosen one, the other finalists, the rest, each by images per second."""

    def key(trial: Trial) -> tuple[bool, bool, float]:
        assert trial.measured is not None
        return (not _is_chosen(trial, search), not trial.is_finalist, -trial.measured.images_per_second)

    return sorted((trial for trial in search.trials if trial.measured is not None), key=key)


def _is_chosen(trial: Trial, search: SearchResult) -> bool:
    return search.chosen is not None and trial.candidate == search.chosen.candidate


def _cells(trial: Trial, search: SearchResult) -> tuple[str, ...]:
    from rexport.benchmarks.reports.table import cell, interval_cell

    measured = trial.measured
    assert measured is not None
    variant, throughput = trial.candidate.variant, measured.throughput_estimate()
    return (
        variant.name,
        trial.candidate.runtime,
        str(trial.candidate.threads),
        str(trial.candidate.batch),
        cell(throughput.value),
        interval_cell((throughput.low, throughput.high)),
        f"{measured.percentile_ms(50):.2f}",
        f"{measured.percentile_ms(90):.2f}",
        or_dash(variant.drop_points, ".2f"),
        _mark(trial, search),
    )


def _mark(trial: Trial, search: SearchResult) -> str:
    if _is_chosen(trial, search):
        return _CHOSEN
    return "" if trial.is_finalist else _LOOKED_AT
