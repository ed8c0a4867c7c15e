"""The columns of a benchmark's table and the sentences around it, which the terminal, Markdown and HTML share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rexport._words import counted
from rexport.benchmarks.intervals import is_noisy
from rexport.benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rexport.benchmarks.document import BenchResult, Row
    from rexport.benchmarks.machine import Machine

__all__ = [
    "NOISY",
    "Kind",
    "Note",
    "Table",
    "cell",
    "findings",
    "interval_cell",
    "machine_line",
    "notes",
    "number",
    "rows_table",
    "threads_line",
    "three_digits",
]

NOISY = "too noisy"
"""The cell of an interval that is too wide to tell anything."""

_DASH = "–"
_WRONG = "WRONG: "  # begins the flag that says why outputs are


class Kind(StrEnum):
    """How bad what a note says is."""

    FAILED = "failed"
    WRONG = "wrong"
    UNAVAILABLE = "unavailable"
    CAUTION = "caution"


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sentence about a row, or about the machine where ``where`` is ``None``."""

    kind: Kind
    where: str | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells in words; ``names`` is how many columns from the left hold names, the others hold numbers.

    ``wrong`` holds the indices of rows whose outputs are wrong, and ``first`` those of the first row of a batch size.
    """

    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    names: int
    wrong: frozenset[int]
    first: frozenset[int]


def rows_table(document: BenchResult) -> Table:
    """Return the table of the rows that were measured, without columns that say nothing of any of them."""
    rows, files = document.measured, document.file_names
    columns: dict[str, Callable[[Row], str]] = {
        "model": lambda row: files[row.model],
        "runtime": lambda row: row.runtime,
        "scenario": lambda row: row.scenario or "",
        "batch": lambda row: str(row.batch),
        "threads": lambda row: str(row.threads),
        "img/s": lambda row: cell(row.images_per_second),
        "img/s 95 %": lambda row: interval_cell(row.images_per_second_interval),
        "p50 ms": lambda row: cell(row.latency_ms.p50),
        "p90 ms": lambda row: cell(row.latency_ms.p90),
        "p99 ms": lambda row: cell(row.latency_ms.p99),
        "speed-up (95 %)": _speedup,
        "held/s": lambda row: cell(None if row.server is None else row.server.rate_per_second),
        "top-1": lambda row: _per_cent(row.top1, 2),
        "agrees": lambda row: _per_cent(row.agreement, 1) + (" WRONG" if row.wrong else ""),
        "SQNR dB, drawn" if document.drawn_pictures else "SQNR dB": lambda row: cell(row.sqnr_db, 1),
        "GMAC/s": lambda row: cell(row.gmacs_per_second),
        "of peak": lambda row: _per_cent(row.share_of_peak, 0),
        "MiB": lambda row: cell(row.peak_memory_mib, 0),
        "up + compute + down ms": lambda row: " + ".join(map(cell, (row.phases_ms or {}).values())) or _DASH,
    }
    cells = {name: [written(row) for row in rows] for name, written in columns.items()}
    silent = {name for name in columns if not any(text not in ("", _DASH) for text in cells[name])}
    silent -= {"model", "runtime"}
    if all(row.scenario is Scenario.SINGLE_STREAM for row in rows):
        silent.add("scenario")
    if len({row.threads for row in rows}) < 2:
        silent.add("threads")
    visible = {name: texts for name, texts in cells.items() if name not in silent}
    return Table(
        columns=tuple(visible),
        cells=tuple(zip(*visible.values(), strict=True)),
        names=sum(name in visible for name in ("model", "runtime", "scenario")),
        wrong=frozenset(index for index, row in enumerate(rows) if row.wrong),
        first=frozenset(i for i in range(1, len(rows)) if rows[i].batch != rows[i - 1].batch),
    )


def findings(document: BenchResult) -> tuple[str, ...]:
    """Return what the table comes to: the fastest row at the smallest and at the largest batch size, in sentences.

    Rows whose outputs are wrong do not count, nor do those of the server scenario, whose times depend on the rate.
    """
    files = document.file_names
    rows = [
        row
        for row in document.measured
        if row.images_per_second and not row.wrong and row.scenario is not Scenario.SERVER
    ]
    batches = sorted({row.batch for row in rows})
    sentences = []
    for batch in dict.fromkeys([*batches[:1], *batches[-1:]]):
        of_batch = [row for row in rows if row.batch == batch]
        best = max(of_batch, key=lambda row: row.images_per_second or 0.0)
        first = of_batch[0]
        speed = three_digits(best.images_per_second or 0.0)
        sentence = f"Fastest at batch {batch}: {files[best.model]} on {best.runtime}, {speed} img/s"
        if best is not first and best.speedup is not None and first.speedup == 1:
            low, high = best.speedup_interval or (best.speedup, best.speedup)
            baseline = f"{files[first.model]} on {first.runtime}"
            if is_noisy((low, high)):
                sentence += f"; times are too noisy to compare it with {baseline}"
            else:
                sentence += f", {best.speedup:.2f} × as fast as {baseline} (95 % interval {low:.2f} to {high:.2f})"
        sentences.append(sentence + ".")
    return tuple(sentences)


def notes(document: BenchResult) -> tuple[Note, ...]:
    """Return what a reader has to know about rows and machine; the same sentence about several rows is one note."""
    files = document.file_names
    places: dict[tuple[Kind, str], list[Row]] = {}
    for row in document.rows:
        if not row.ok:
            places.setdefault((Kind(row.status), row.reason or "no reason given"), []).append(row)
        if row.wrong and not any(flag.startswith(_WRONG) for flag in row.flags):
            text = "its outputs differ from the first model's, so its speed means nothing"
            places.setdefault((Kind.WRONG, text), []).append(row)
        for flag in row.flags:
            kind = Kind.WRONG if flag.startswith(_WRONG) else Kind.CAUTION
            places.setdefault((kind, flag.removeprefix(_WRONG)), []).append(row)
    listed = [
        Note(kind=kind, where=_places(rows, document.rows, files), text=text) for (kind, text), rows in places.items()
    ]
    if document.machine.is_busy:
        text = (
            f"the machine was busy when measuring began ({document.machine.load}); if it stayed so, times are too "
            "long and intervals wide: measure again when it is idle."
        )
        listed.append(Note(kind=Kind.CAUTION, where=None, text=text))
    quota = document.machine.cpu_quota
    if quota is not None:
        text = (
            f"the container's CPU quota is the time of {quota:g} cores, and what needs more of it is throttled: times, "
            "and p90 above all, are then those of the quota and not of the model; measure without a quota."
        )
        listed.append(Note(kind=Kind.CAUTION, where=None, text=text))
    if document.drawn_pictures and any(row.sqnr_db is not None for row in document.rows):
        text = (
            "agreement and SQNR are those of drawn pictures, which INT8 files were not calibrated for; pass --data "
            "PICTURES for those of yours."
        )
        listed.append(Note(kind=Kind.CAUTION, where=None, text=text))
    sample = document.pictures
    if sample is not None and sample.used < sample.total:
        text = (
            f"top-1, agreement and SQNR are of {sample.used:,} of the {sample.total:,} pictures in --data; --samples "
            f"{sample.total} takes all."
        )
        listed.append(Note(kind=Kind.CAUTION, where=None, text=text))
    return tuple(sorted(listed, key=lambda note: list(Kind).index(note.kind)))


def machine_line(machine: Machine) -> str:
    """Return the machine and the versions that matter, in a line."""
    cores = counted(machine.cores, "core") if machine.cores else ""
    packages = [f"{name} {version}" for name, version in machine.packages.items() if version]
    accelerators = [f"{name} {value}" for name, value in machine.other.items() if name in ("gpu", "gpus", "device")]
    python = machine.python and f"Python {machine.python}"
    facts = [machine.cpu, cores, machine.int8, *accelerators, machine.os, python, *packages]
    return ", ".join(fact for fact in facts if fact)


def threads_line(document: BenchResult) -> str:
    """Return the threads that the rows had, if all had the same; otherwise nothing."""
    threads = {row.threads for row in document.rows}
    if len(threads) != 1:
        return ""
    (count,) = threads
    text = counted(count, "thread")
    affinities = {row.affinity or () for row in document.measured}
    if len(affinities) != 1 or () in affinities:
        return text
    (cores,) = affinities
    return f"{text} on {'core' if len(cores) == 1 else 'cores'} {', '.join(map(str, cores))}"


def cell(value: float | None, digits: int | None = None) -> str:
    """Return a number with so many digits behind the point, or three that count; a dash for what is not known."""
    if value is None:
        return _DASH
    return three_digits(value) if digits is None else f"{value:,.{digits}f}"


def interval_cell(ends: tuple[float, float] | None, digits: int | None = None) -> str:
    """Return an interval as :func:`cell` writes its ends; in words where it is too wide to tell anything."""
    if ends is None:
        return _DASH
    return NOISY if is_noisy(ends) else "–".join(cell(end, digits) for end in ends)


def number(value: float) -> str:
    """Return a number as an axis has it: three digits, and no zeros behind the last one that counts.

    Example:
        >>> [number(value) for value in (12345.6, 123.4, 12.34, 1.234, 0.01234, 0.5, 20.0)]
        ['12,346', '123', '12.3', '1.23', '0.0123', '0.5', '20']
    """
    text = three_digits(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def three_digits(value: float) -> str:
    """Return a number as a cell has it: three digits that count, or all of those before the point.

    Example:
        >>> [three_digits(value) for value in (12345.6, 123.4, 20.0, 1.2, 0.01234, 0.0)]
        ['12,346', '123', '20.0', '1.20', '0.0123', '0']
    """
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def _places(rows: Sequence[Row], everything: Sequence[Row], files: Mapping[str, str]) -> str:
    """Name rows; if they are all those of one runtime, by that alone."""
    runtime = rows[0].runtime
    if len(rows) > 1 and list(rows) == [row for row in everything if row.runtime == runtime]:
        return runtime
    batches: dict[str, dict[int, None]] = {}
    for row in rows:
        batches.setdefault(f"{files[row.model]} on {row.runtime}", {})[row.batch] = None
    words = [f"{where}, batch {', '.join(map(str, sizes))}" for where, sizes in batches.items()]
    more = f"; and {len(words) - 3} more" if len(words) > 3 else ""
    return "; ".join(words[:3]) + more


def _speedup(row: Row) -> str:
    interval = row.speedup_interval
    if interval is None or interval == (1.0, 1.0):  # of the first row
        return cell(row.speedup, 2)
    return NOISY if is_noisy(interval) else f"{cell(row.speedup, 2)} ({interval_cell(interval, 2)})"


def _per_cent(fraction: float | None, digits: int) -> str:
    return _DASH if fraction is None else f"{100 * fraction:.{digits}f} %"
