"""A benchmark as one HTML file (see :mod:`rexport.pages.page`)."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from rexport.benchmarks.document import read_document
from rexport.benchmarks.reports.table import cell, findings, notes, number, rows_table, threads_line
from rexport.pages import render, require_extra, time_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.benchmarks.document import BenchResult
    from rexport.benchmarks.machine import Machine
    from rexport.benchmarks.reports.compare import Changes

__all__ = ["to_html"]


def to_html(document: Mapping[str, Any] | BenchResult, changes: Changes | None = None) -> str:
    """Return the report of a document of schema ``rexport.bench/1``, and of what changed since an earlier one.

    Raises:
        InputError: The document is of another schema or broken.
        UnavailableError: Jinja, which fills the page, or Matplotlib, which draws, is not installed.
    """
    read = read_document(document)
    require_extra()
    from rexport.benchmarks.reports import figures
    from rexport.benchmarks.reports.charts import swatch

    names = figures.Legend(read)
    return render(
        "rexport.benchmarks.reports/report.html",
        title=f"Benchmark on {read.machine.cpu}",
        heading="Benchmark",
        findings=findings(read),
        facts=_facts(read),
        long_facts={"Versions": _versions(read.machine)},
        command=read.command,
        filters={"median": median, "along": _along, "milliseconds": _milliseconds},
        document=read,
        notes=notes(read),
        changes=changes,
        table=rows_table(read),
        names=names,
        legend=[(swatch(style), names.label(rows[0])) for style, rows in names.series(read.measured).items()],
        figures=[*figures.curves(read, names), *figures.pareto(read, names)],
        nearest=figures.nearest_peak(read, names),
        operators=figures.operators,
        number=number,
        cell=cell,
    )


def _along(seconds: float, middle: float) -> float:
    """Return where a time stands in its strip, from 0.8 to 1.4 medians, in per cent, to half a pixel or so."""
    return round(200 * min(1.0, max(0.0, (seconds / middle - 0.8) / (1.4 - 0.8)))) / 2


def _milliseconds(seconds: float | None) -> str:
    return cell(seconds and 1e3 * seconds)


def _versions(machine: Machine) -> str:
    versions = {**machine.packages, "Python": machine.python}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _facts(document: BenchResult) -> dict[str, str]:
    machine = document.machine
    return {
        "Processor": machine.cpu,
        "Cores": str(machine.cores or ""),
        "INT8": machine.int8,
        "Threads": threads_line(document),
        "Memory": "" if machine.memory_gib is None else f"{machine.memory_gib:g} GiB",
        "System": " ".join(part for part in (machine.os, machine.architecture) if part),
        "Measured": "" if document.time is None else time_in_words(document.time),
        "Load before": "" if machine.load_average is None else f"{machine.load_average:g}",
        **{name.replace("_", " ").capitalize(): value for name, value in machine.other.items()},
    }
