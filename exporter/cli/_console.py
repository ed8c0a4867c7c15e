"""What commands say: data on stdout, notes, errors and progress on stderr, colour only on a terminal."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Literal

from rexport._words import NONE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["fail", "note", "print_facts", "print_json", "print_table", "print_text", "say"]


_FOLDED, _GAP = 16, 3  # characters: the least for text that is folded, and between two columns
_PARTS = re.compile(r"[^\s/\\._:,=+×-]*[/\\._:,=+×-]|[^\s/\\._:,=+×-]+")  # of words, up to their punctuation


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


def print_text(text: str) -> None:
    """Print a line of a result to stdout, wrapped at words on a terminal."""
    print("\n".join(_wrapped(text)))


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print labels with their texts, which are wrapped at words on a terminal."""
    indent = max(len(label) for label, _ in facts) + 2
    for label, text in facts:
        print(f"{label:{indent}}" + f"\n{'':{indent}}".join(_wrapped(text, indent)))


def _wrapped(text: str, indent: int = 0) -> list[str]:
    """Return the lines that a text takes on a terminal, to the right of ``indent`` columns; elsewhere it takes one."""
    if not sys.stdout.isatty():
        return [text]
    room = max(_FOLDED, shutil.get_terminal_size().columns - indent)
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    left: Collection[int] = (0,),
    keys: int = 1,
) -> None:
    """Print a table to stdout; where it is too wide for the terminal, the columns that don't fit follow below.

    Columns that are empty in all rows are left out.

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

    filled = [i for i in range(len(columns)) if i < keys or not rows or any(row[i] not in ("", NONE) for row in rows)]
    cells = {i: [columns[i], *(row[i] for row in rows)] for i in filled}
    widths = {i: max(map(cell_len, column)) for i, column in cells.items()}
    least = {i: min(widths[i], max(_FOLDED, *map(_unbroken, cells[i]))) if i in left else widths[i] for i in filled}
    console = Console(highlight=False, markup=False)
    if not sys.stdout.isatty():  # there is no width to fit
        console.width = _width(widths.values(), _GAP)
    if title is not None:
        console.print(title, style="bold")
    gap = _GAP if _width(widths.values(), _GAP) <= console.width else _GAP - 1
    for part in _parts(least, gap, keys, console.width):
        fitted = _fit({i: widths[i] for i in part}, least, left, gap, console.width)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 2, 0, 1))
        for i in part:
            justify: Literal["left", "right"] = "left" if i in left else "right"
            table.add_column(columns[i], justify=justify, no_wrap=True, overflow="fold", min_width=fitted[i])
        for row in rows:
            table.add_row(*(_fold(row[i], fitted[i]) if i in left else row[i] for i in part))
        console.print(table)


def _width(widths: Collection[int], gap: int) -> int:
    """Return the width of a table, its edges included, with columns of these ``widths``."""
    return sum(widths) + gap * (len(widths) - 1) + 2


def _parts(widths: Mapping[int, int], gap: int, keys: int, most: int) -> list[list[int]]:
    """Return the columns of each table that one with these ``widths`` is printed as, in at most so many characters.

    Each column goes to the first table that has room for it, so that there are few.
    """
    parts = [list(range(keys))]
    for i in list(widths)[keys:]:
        for part in parts:
            if _width([widths[place] for place in (*part, i)], gap) <= most:
                part.append(i)
                break
        else:
            if len(parts[-1]) == keys:  # not even this column has room beside the keys
                parts[-1].append(i)
            else:
                parts.append([*range(keys), i])
    return parts


def _fit(
    widths: dict[int, int], least: Mapping[int, int], left: Collection[int], gap: int, most: int
) -> dict[int, int]:
    """Return the ``widths`` of columns, the widest of text made narrower until the table fits, if it can."""
    for floor in (least, dict.fromkeys(widths, _FOLDED)):  # words are broken only where nothing else helps
        while _width(widths.values(), gap) > most:
            foldable = [i for i in widths if i in left and widths[i] > floor[i]]
            if not foldable:
                break
            widest = max(foldable, key=lambda i: widths[i])
            widths = widths | {widest: widths[widest] - 1}
    return widths


def _unbroken(text: str) -> int:
    """Return the length of the longest part of a text that is not broken if that can be helped."""
    return max(map(len, _PARTS.findall(text)), default=0)


def _fold(text: str, width: int) -> str:
    """Break a text into lines of at most ``width`` characters: at spaces, else behind punctuation, else anywhere."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for part in _PARTS.findall(word):
            for chunk in textwrap.wrap(part, width, break_on_hyphens=False):
                if len(lines[-1]) + len(chunk) > width:
                    lines.append("")
                lines[-1] += chunk
    return "\n".join(lines)


def _line(label: str, style: str, message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text(f"{label}: ", style=style) + Text(message, style="default")
    console = Console(stderr=True, highlight=False)
    console.print(line, soft_wrap=not console.is_terminal)
