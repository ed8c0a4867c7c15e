"""What ``rexport bench`` prints, and its options for reports and an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._console import note, print_table, print_text
from rexport.cli._limits import print_layers, print_peaks

if TYPE_CHECKING:
    from collections.abc import Callable

    from rexport.benchmarks.reports import Change, Changes
    from rexport.jobs.bench import BenchReport

__all__ = ["Compare", "Markdown", "MaxRegression", "Report", "Saved", "print_changes", "print_report"]

_PANEL = "Reports and comparison"
_LEFT_OUT = {"img/s 95 %"}  # of the table, on the terminal

Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Write a report with charts, as one file.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Markdown = Annotated[
    str | None,
    typer.Option(
        "--markdown",
        metavar="FILE|-",
        help="Write the table as Markdown; - prints it instead of the usual one.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Saved = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="RUN.json",
        help="Report on this saved run (-o), and measure nothing.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        "--compare",
        metavar="OLD.json",
        help="Show what changed since this saved run (-o).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
MaxRegression = Annotated[
    float | None,
    typer.Option(
        "--max-regression",
        metavar="PERCENT",
        help="Fail (exit code 4) if a row is slower than in --compare by more than this, beyond noise.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]


def print_report(report: BenchReport) -> None:
    """Print the table, the notes on its rows and the machine, the peaks, the layers, and what changed."""
    if report.measured:
        first = report.measured[0]
        if first.scenario is None or first.speedup is not None:  # measured in turns
            _print_rows(report)
        else:
            from rexport.cli._scenario import print_rows

            print_rows(report.measured, title=f"{first.scenario}; {report.machine}")
        _print_notes(report)
    print_peaks(report.peaks)
    print_layers(report.layers)
    if report.changes is not None:
        print_changes(report.changes)


def print_changes(changes: Changes) -> None:
    """Print what changed since the earlier run."""
    from rexport.benchmarks.reports.table import interval_cell

    columns: dict[str, Callable[[Change], str]] = {
        "model": lambda row: row.key.model,
        "runtime": lambda row: row.key.runtime,
        "batch": lambda row: str(row.key.batch),
        "threads": lambda row: str(row.key.threads),
        "old /s": lambda row: f"{row.old_per_second:,.1f}",
        "new /s": lambda row: f"{row.new_per_second:,.1f}",
        "ratio": lambda row: f"{row.ratio:.2f}",
        "95 %": lambda row: interval_cell(row.interval, 2),
        "verdict": lambda row: f"{row.verdict}, past the bound" if row in changes.regressions else str(row.verdict),
    }
    if len({row.key.threads for row in changes.rows}) < 2:
        del columns["threads"]
    if changes.rows:
        cells = [[cell(row) for cell in columns.values()] for row in changes.rows]
        print_table(list(columns), cells, title="against the earlier run", left=(0, 1, len(columns) - 1), keys=3)
    for sentence in changes.sentences:
        print_text(sentence)


def _print_rows(report: BenchReport) -> None:
    """Print the table of the reports, and below it which row is the fastest."""
    from rexport.benchmarks.reports.table import findings, rows_table, threads_line

    table = rows_table(report)
    shown = [index for index, column in enumerate(table.columns) if column not in _LEFT_OUT]
    print_table(
        [table.columns[index] for index in shown],
        [[cells[index] for index in shown] for cells in table.cells],
        title="; ".join(part for part in (str(report.machine), threads_line(report)) if part),
        left=range(table.names),
        keys=table.names + 1,  # and the batch
    )
    if len(report.measured) > 1:
        for sentence in findings(report):
            print_text(sentence)


def _print_notes(report: BenchReport) -> None:
    from rexport.benchmarks.reports.table import Kind, notes

    for remark in notes(report):
        wrong = "WRONG: " if remark.kind is Kind.WRONG else ""
        note(": ".join(part for part in (remark.where, wrong + remark.text) if part))
