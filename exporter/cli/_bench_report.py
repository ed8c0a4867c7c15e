"""What ``rexport bench`` prints, and its options for reports and an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._words import counted
from rexport.cli._limits import print_layers, print_peaks, speed
from rexport.cli._reports import NONE, or_dash, percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from rexport.benchmarks import Row
    from rexport.benchmarks.reports import Changes
    from rexport.jobs.bench import BenchReport

__all__ = ["Compare", "Markdown", "MaxRegression", "Report", "print_changes", "print_report"]

Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", help="Write a report with charts, one file.", show_default=False),
]
Markdown = Annotated[
    str | None,
    typer.Option(
        "--markdown", metavar="FILE|-", help="Write the table in Markdown; - prints it instead.", show_default=False
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        "--compare", metavar="OLD.json", help="Say what changed since this earlier run (-o).", show_default=False
    ),
]
MaxRegression = Annotated[
    float | None,
    typer.Option(
        "--max-regression",
        metavar="PERCENT",
        help="Fail (exit 4) if a row is surely slower than in --compare by more than this.",
        show_default=False,
    ),
]


def print_report(report: BenchReport) -> None:
    """Print the table, what should be known of its rows and the machine, the peaks, the layers, and what changed."""
    if report.request.scenario is not None:
        from rexport.cli._scenario import print_rows

        print_rows(report.measured, title=f"{report.request.scenario.scenario}; {report.machine}")
        _print_notes(report)
    elif report.measured:
        _print_rows(report)
        _print_notes(report)
    print_peaks(report.peaks)
    for profile in report.layers:
        print_layers(profile)
    if report.changes is not None:
        print_changes(report.changes)


def print_changes(changes: Changes) -> None:
    """Print what changed since the earlier run."""
    from rexport.cli._console import print_table

    columns = ("model", "runtime", "batch", "threads", "was /s", "is /s", "ratio", "95 %", "verdict")
    cells = []
    for row in changes.rows:
        interval = "–" if row.interval is None else f"{row.interval[0]:.2f}–{row.interval[1]:.2f}"
        verdict = f"{row.verdict}, past the bound" if row in changes.regressions else str(row.verdict)
        cells.append(
            (
                row.key.model,
                row.key.runtime,
                str(row.key.batch),
                str(row.key.threads),
                f"{row.old_per_second:,.1f}",
                f"{row.new_per_second:,.1f}",
                f"{row.ratio:.2f}",
                interval,
                verdict,
            )
        )
    if cells:
        print_table(columns, cells, title="against the earlier run", left=(0, 1, 8))
    for sentence in changes.sentences:
        print(sentence)


def _print_rows(report: BenchReport) -> None:
    from rexport.cli._console import print_table

    names = report.file_names
    columns = {"model": [names[row.model] for row in report.measured]}
    columns |= {name: [cell(row) for row in report.measured] for name, cell in _COLUMNS.items()}
    shown = {name: cells for name, cells in columns.items() if any(cell not in ("", NONE) for cell in cells)}
    rows = list(zip(*shown.values(), strict=True))
    print_table(tuple(shown), rows, title=f"{report.machine}; {_where(report)}", left=(0, 1))


def _print_notes(report: BenchReport) -> None:
    from rexport.benchmarks.reports.table import Kind, notes
    from rexport.cli._console import note

    for remark in notes(report):
        wrong = "WRONG: " if remark.kind is Kind.WRONG else ""
        note(": ".join(part for part in (remark.where, wrong + remark.text) if part))


def _where(report: BenchReport) -> str:
    """Return the threads, and the cores if all rows were kept on the same."""
    text = counted(report.rows[0].threads, "thread")
    first, *others = {row.affinity for row in report.measured}
    if others or not first:
        return text
    return f"{text} on {'core' if len(first) == 1 else 'cores'} {', '.join(map(str, first))}"


def _interval(row: Row) -> str:
    low, high = row.speedup_interval or (None, None)
    return f"{or_dash(low, ',.2f')}–{or_dash(high, ',.2f')}"


def _agrees(row: Row) -> str:
    if row.agreement is None:
        return NONE
    return f"{row.agreement:.1%} WRONG" if row.wrong else f"{row.agreement:.1%}"


def _phases(row: Row) -> str:
    return " + ".join(f"{milliseconds:.2f}" for milliseconds in (row.phases_ms or {}).values())


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "runtime": lambda row: row.runtime,
    "batch": lambda row: str(row.batch),
    "img/s": lambda row: or_dash(row.images_per_second, ",.1f"),
    "p50 ms": lambda row: or_dash(row.latency_ms.p50, ",.2f"),
    "p90 ms": lambda row: or_dash(row.latency_ms.p90, ",.2f"),
    "up + compute + down": _phases,
    "speed-up": lambda row: or_dash(row.speedup, ",.2f"),
    "95 %": _interval,
    "agrees": _agrees,
    "SQNR": lambda row: or_dash(row.sqnr_db, ",.0f"),
    "top-1": lambda row: or_dash(row.top1, ".1%"),
    "MiB": lambda row: or_dash(row.peak_memory_mib, ",.0f"),
    "GMAC/s": lambda row: speed(row.gmacs_per_second),
    "of peak": lambda row: percent(row.share_of_peak, 0),
}
