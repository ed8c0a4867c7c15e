"""The table of ``rexport bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rexport.cli._limits import LIMIT_COLUMNS, limit_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rexport.benchmarks import BenchResult, Row
    from rexport.benchmarks.limits import Limits

__all__ = ["print_notes", "print_result"]


def print_result(result: BenchResult, limits: Sequence[Limits]) -> None:
    """Print the rows that were measured; ``limits`` are those of all rows."""
    from rexport.benchmarks.reports.document import short_names
    from rexport.cli import _console

    names = short_names(dict.fromkeys(row.model for row in result.rows))
    columns = {name: [cell(row) for row in result.measured] for name, cell in _COLUMNS.items()}
    columns = {"model": [names[row.model] for row in result.measured], **columns}
    reached = [limit_cells(one) for one, row in zip(limits, result.rows, strict=True) if row in result.measured]
    columns |= {name: [cells[index] for cells in reached] for index, name in enumerate(LIMIT_COLUMNS)}
    shown = {name: cells for name, cells in columns.items() if any(cell not in ("", _NONE) for cell in cells)}
    rows = list(zip(*shown.values(), strict=True))
    _console.print_table(tuple(shown), rows, title=f"{result.machine}; {_where(result)}", left=(0, 1))


def print_notes(document: Mapping[str, Any]) -> None:
    """Print what a document of schema ``rexport.bench/1`` has to say of its rows and the machine."""
    from rexport.benchmarks.reports.document import read_document
    from rexport.benchmarks.reports.table import Kind, notes
    from rexport.cli import _console

    for note in notes(read_document(document)):
        wrong = "WRONG: " if note.kind is Kind.WRONG else ""
        _console.note(": ".join(part for part in (note.where, wrong + note.text) if part))


def _where(result: BenchResult) -> str:
    """Return the threads, and the cores if all rows were kept on the same."""
    threads = result.rows[0].threads
    text = f"{threads} thread" + "s" * (threads != 1)
    places = {row.affinity for row in result.measured}
    cores = places.pop() if len(places) == 1 else None
    return text if not cores else f"{text} on core{'s' * (len(cores) != 1)} {', '.join(map(str, cores))}"


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:,.{digits}f}"


def _interval(row: Row) -> str:
    low, high = row.speedup_interval or (None, None)
    return f"{_number(low, 2)}–{_number(high, 2)}"


def _agrees(row: Row) -> str:
    if row.agreement is None:
        return _NONE
    return f"{row.agreement:.1%}" + " WRONG" * bool(row.wrong)


def _phases(row: Row) -> str:
    return "" if row.phases_ms is None else " + ".join(f"{milliseconds:.2f}" for milliseconds in row.phases_ms.values())


_NONE = "–"
_COLUMNS: dict[str, Callable[[Row], str]] = {
    "runtime": lambda row: row.runtime,
    "batch": lambda row: str(row.batch),
    "img/s": lambda row: _number(row.images_per_second, 1),
    "p50 ms": lambda row: _number(row.latency_ms["p50"], 2),
    "p90 ms": lambda row: _number(row.latency_ms["p90"], 2),
    "up + compute + down": _phases,
    "speed-up": lambda row: _number(row.speedup, 2),
    "95 %": _interval,
    "agrees": _agrees,
    "SQNR": lambda row: _number(row.sqnr_db, 0),
    "top-1": lambda row: _NONE if row.top1 is None else f"{row.top1:.1%}",
    "MiB": lambda row: _number(row.peak_memory_mib, 0),
}
