"""What commands say: data on stdout, notes, errors and progress on stderr, colour only on a terminal."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from rexport._progress import Advance

__all__ = ["fail", "note", "print_json", "print_table", "progress", "say"]


def fail(message: str, exit_code: int) -> int:
    """Print an error and return its exit code."""
    _line("error", "bold red", message)
    return exit_code


def note(message: str) -> None:
    """Print something the user should know but need not act on."""
    _line("note", "yellow", message)


def say(message: str) -> None:
    """Print a line about the work itself to stderr."""
    print(message, file=sys.stderr, flush=True)


def print_json(document: dict[str, Any]) -> None:
    """Print the one document of a ``--json`` run; non-finite numbers become ``null``."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None, left: Collection[int] = (0,)
) -> None:
    """Print a table to stdout; the columns whose indices are in ``left`` are left-aligned, the others right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # not a terminal: no width to fit, so let no cell be cut or wrapped
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    if title is not None:
        console.print(title, style="bold")
    console.print(table)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Advance]:
    """Show a progress bar with an ETA on a terminal, and nothing elsewhere (see ``rexport._progress``)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    text, eta = TextColumn("{task.description}"), TextColumn("eta")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), eta, TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def advance(steps: int, *, now: str = "") -> None:
            bar.update(task, advance=steps, description=f"{description}: {now}" if now else None)

        yield advance


def _line(label: str, style: str, message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text(f"{label}: ", style=style) + Text(message, style="default")
    Console(stderr=True, highlight=False, soft_wrap=True).print(line)
