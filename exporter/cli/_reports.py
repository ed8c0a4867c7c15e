"""Pieces of reports that several commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._words import NONE, in_units
from rexport.cli._console import note, print_table, print_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rexport.passes import PassReport

__all__ = ["listed", "or_dash", "print_passes", "size_of"]


def print_passes(
    reports: Sequence[PassReport], *, changed: bool = False, verbose: bool = False, explain: bool = False
) -> None:
    """Print the passes that refused something or were rolled back, the refusals of one reason in one line.

    Args:
        reports: Of the passes that ran.
        changed: Print those that changed something too.
        verbose: Print all of them.
        explain: Print each refusal by itself.
    """
    shown = [
        report for report in reports if verbose or report.refusals or report.rolled_back or (changed and report.changed)
    ]
    if shown:
        rows = [[report.name, str(report.changed), str(len(report.refusals)), report.summary] for report in shown]
        print_table(["pass", "changed", "refused", "what it does"], rows, left=(0, 3))
    for report in reports:
        if report.rolled_back is not None:
            note(f"{report.name} was rolled back: {report.rolled_back}")
        for text in report.notes:
            note(text)
        if explain:
            for refusal in report.refusals:
                print_text(f"{report.name} skipped {refusal.where}: {refusal.why}")
            continue
        for why in dict.fromkeys(refusal.why for refusal in report.refusals):
            places = [refusal.where for refusal in report.refusals if refusal.why == why]
            print_text(f"{report.name} skipped {listed(places)}: {why}")


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return ``a, b, c and 2 more``."""
    few = ", ".join(names[:most])
    return f"{few} and {len(names) - most} more" if len(names) > most else few


def size_of(path: Path) -> str:
    """Return a file's size in words."""
    return in_units(path.stat().st_size)


def or_dash(value: float | None, spec: str, *, none: str = NONE) -> str:
    """Return a number formatted by ``spec``, or a dash for none."""
    return none if value is None else format(value, spec)
