"""What commands say: data on stdout, notes, errors and progress on stderr, colour only on a terminal."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["fail", "note", "print_facts", "print_json", "print_table", "say"]


_FOLDED, _GAP = 16, 3  # characters: the least for text that is folded, and between two columns


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


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print labels with their texts, which are wrapped at words on a terminal."""
    indent = max(len(label) for label, _ in facts) + 2
    for label, text in facts:
        lines = [text]
        if sys.stdout.isatty():
            room = max(_FOLDED, shutil.get_terminal_size().columns - indent)
            lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        print(f"{label:{indent}}" + f"\n{'':{indent}}".join(lines))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    left: Collection[int] = (0,),
    keys: int = 1,
) -> None:
    """Print a table to stdout; where it is too wide for the terminal, the columns that don't fit follow below.

    Args:
        columns: Their names.
        rows: Cells of each row.
        title: Stands above it.
        left: The indices of columns of text, which are left-aligned and may be folded; numbers are never broken.
        keys: How many columns at the left tell the rows apart, and are repeated where columns follow below.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    # not a terminal: no width to fit, so let no cell be cut or wrapped
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    if title is not None:
        console.print(title, style="bold")
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    least = [min(width, _FOLDED) if index in left else width for index, width in enumerate(widths)]
    for indices in _parts(least, keys, console.width):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for index in indices:
            is_text = index in left
            justify: Literal["left", "right"] = "left" if is_text else "right"
            table.add_column(
                columns[index], justify=justify, overflow="fold", min_width=least[index], no_wrap=not is_text
            )
        for row in rows:
            table.add_row(*(row[index] for index in indices))
        console.print(table)


def _parts(widths: Sequence[int], keys: int, most: int) -> Iterator[list[int]]:
    """Yield the columns of each table that one with these ``widths`` is printed as, in at most so many characters."""
    part = list(range(keys))
    for index in range(keys, len(widths)):
        if len(part) > keys and sum(widths[place] + _GAP for place in (*part, index)) > most + 1:
            yield part
            part = list(range(keys))
        part.append(index)
    yield part


def _line(label: str, style: str, message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text(f"{label}: ", style=style) + Text(message, style="default")
    console = Console(stderr=True, highlight=False)
    console.print(line, soft_wrap=not console.is_terminal)
