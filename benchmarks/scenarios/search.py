"""The highest rate that holds: bracket it, halve the bracket, and confirm what was found.

Rates are halved on a logarithmic scale, until the bracket is as narrow as asked. All trials of the search see the same
gaps, stretched, so that luck does not move the bracket; and because the rate that comes out may owe itself to luck
with these gaps, it has to hold once more with others. If it does not, lower ones are tried, in steps that double.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Verdict", "highest_rate"]

_UP = 1.25
_DOWN = 0.6
_MOST_UP = 100  # times the start: what holds there, holds at any rate


class Verdict(Protocol):
    """What a trial says."""

    @property
    def held(self) -> bool:
        """Whether the rate held."""
        ...


_T = TypeVar("_T", bound=Verdict)


def highest_rate(
    trial: Callable[[float, str], _T], *, start: float, lowest: float, precision: float = 0.05
) -> tuple[float | None, tuple[_T, ...]]:
    """Search the highest rate that holds.

    Args:
        trial: Tries a rate, for ``"bracket"``, ``"bisect"`` or ``"confirm"``.
        start: The rate to try first; at least
        lowest: the lowest to try.
        precision: How far, relatively, the lowest rate that failed may be above the one found.

    Returns:
        The rate that was confirmed, ``None`` if not even the lowest holds; and all trials in order.
    """
    trials: list[_T] = []

    def holds(rate: float, purpose: str) -> bool:
        trials.append(trial(rate, purpose))
        return trials[-1].held

    good, bad = _bracket(holds, max(start, lowest), lowest)
    if good is None:
        return None, tuple(trials)
    while bad is not None and bad / good > 1 + precision:
        middle = math.sqrt(good * bad)
        if holds(middle, "bisect"):
            good = middle
        else:
            bad = middle
    step = precision
    rate = good
    while True:
        if holds(rate, "confirm"):
            return rate, tuple(trials)
        if rate <= lowest:
            return None, tuple(trials)
        rate = max(rate / (1 + step), lowest)
        step *= 2


def _bracket(holds: Callable[[float, str], bool], rate: float, lowest: float) -> tuple[float | None, float | None]:
    """Return a rate that holds, or ``None``, and one that does not, or ``None`` where all do."""
    good: float | None = None
    bad: float | None = None
    start = rate
    while good is None or good < _MOST_UP * start:
        if holds(rate, "bracket"):
            good = rate
            if bad is not None:
                break
            rate *= _UP
        else:
            bad = rate
            if good is not None or rate <= lowest:
                break
            rate = max(rate * _DOWN, lowest)
    return good, bad
