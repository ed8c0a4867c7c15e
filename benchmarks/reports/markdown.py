"""A benchmark as Markdown, for a pull request's review: GitHub's tables, readable as plain text too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rexport.benchmarks.document import read_document
from rexport.benchmarks.reports.table import findings, interval_cell, machine_line, notes, rows_table, threads_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rexport.benchmarks.document import BenchResult
    from rexport.benchmarks.reports.compare import Changes
    from rexport.benchmarks.reports.table import Note, Table

__all__ = ["changes_to_markdown", "code", "escaped", "to_markdown"]

# what a review has no room for; the HTML report and the document have them
_LEFT_OUT = {"img/s 95 %", "p99 ms", "GMAC/s", "up + compute + down ms"}
_SPECIAL = re.compile(r"([\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_]))")


def to_markdown(document: Mapping[str, Any] | BenchResult) -> str:
    """Return the table, its findings, the machine and the notes of a benchmark or its document ``rexport.bench/1``.

    Raises:
        InputError: The document is of another schema or broken.
    """
    read = read_document(document)
    parts = [f"- {escaped(sentence)}" for sentence in findings(read)]
    if read.measured:
        parts += ["", _table(rows_table(read)), ""]
    about = ", ".join(part for part in (machine_line(read.machine), threads_line(read), read.time) if part)
    parts.append(f"{escaped(about)}.")
    if read.command is not None:
        parts += ["", code(read.command)]
    if listed := notes(read):
        parts += ["", *(f"- {_note(note)}" for note in listed)]
    return "\n".join(parts).strip("\n") + "\n"


def changes_to_markdown(changes: Changes) -> str:
    """Return the comparison with an earlier run: its table, and what else is different."""
    header = ["model", "runtime", "batch", "threads", "old", "new", "ratio (95 %)", ""]
    cells = [
        [
            code(row.key.model),
            escaped(row.key.runtime),
            str(row.key.batch),
            str(row.key.threads),
            f"{row.old_per_second:,.1f}",
            f"{row.new_per_second:,.1f}",
            f"{row.ratio:.2f}" + (f" ({interval_cell(row.interval, 2)})" if row.interval else ""),
            f"**{row.verdict}**" if row in changes.regressions else str(row.verdict),
        ]
        for row in changes.rows
    ]
    parts = [_aligned(header, cells, names=2)] if cells else []
    return "\n\n".join([*parts, "\n".join(f"- {escaped(line)}" for line in changes.sentences)]).strip() + "\n"


def code(text: str) -> str:
    """Return ``text`` as a code span that may stand in a table's cell, whatever is in it."""
    line = " ".join(text.split()) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}".replace("|", "\\|")


def escaped(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is: no markup, no HTML, nobody mentioned."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line).replace("@", "&#64;")


def _note(note: Note) -> str:
    return f"**{note.kind}** {': '.join(map(escaped, filter(None, (note.where, note.text))))}"


def _table(table: Table) -> str:
    columns = [i for i, column in enumerate(table.columns) if column not in _LEFT_OUT]
    cells = [[code(row[0]), *(escaped(row[i]) for i in columns[1:])] for row in table.cells]
    return _aligned([table.columns[i] for i in columns], cells, names=table.names)


def _aligned(header: Sequence[str], cells: Sequence[Sequence[str]], *, names: int) -> str:
    """Return the table with its columns padded; the first ``names`` are left-aligned, the others right."""
    widths = [max(3, *map(len, column)) for column in zip(header, *cells, strict=True)]
    alignments = "<" * names + ">" * (len(header) - names)

    def line(row: Sequence[str]) -> str:
        padded = [f"{text:{side}{width}}" for text, side, width in zip(row, alignments, widths, strict=True)]
        return f"| {' | '.join(padded)} |"

    ends = {"<": "-", ">": ":"}
    rule = ["-" * (width - 1) + ends[side] for side, width in zip(alignments, widths, strict=True)]
    return "\n".join(line(row) for row in [header, rule, *cells])
