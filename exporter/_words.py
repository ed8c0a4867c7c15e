"""Numbers, names and errors in sentences."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["NONE", "counted", "did_you_mean", "first_few", "first_line", "in_units", "percent", "suggestion"]

NONE = "–"
"""The cell of a number that there is none of."""


def counted(count: float, noun: str) -> str:
    """Return ``1 thread``, ``2 threads``."""
    plural = "" if count == 1 else "s"
    return f"{count:g} {noun}{plural}"


def first_few(names: Sequence[str]) -> str:
    """Return ``a, b, c …``: the first three names, and a sign that there are more."""
    few = ", ".join(names[:3])
    return f"{few} …" if len(names) > 3 else few


def did_you_mean(near: Sequence[str]) -> str:
    """Return `` Did you mean a or b?``, to stand behind a sentence; empty if no name is ``near``."""
    return f" Did you mean {' or '.join(near)}?" if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def in_units(size: int) -> str:
    """Return a number of bytes in words."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return a fraction in per cent, or a dash for none."""
    return NONE if fraction is None else f"{100 * fraction:.{digits}f} %"


def suggestion(name: str, names: Iterable[str], most: int = 1) -> str:
    """Return `` Did you mean b?`` for the nearest of ``names``, to stand behind a sentence; empty if none is near."""
    return did_you_mean(difflib.get_close_matches(name, list(names), n=most))
