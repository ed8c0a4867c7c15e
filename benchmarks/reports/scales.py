"""Axes: which numbers to write beside them, and where a value stands.

Ticks of linear axes are 1, 2 or 5 times a power of ten apart, the usual "nice numbers" (Heckbert 1990, Graphics Gems).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Scale", "linear_scale", "log_scale", "number", "three_digits"]

_STEPS = (1, 2, 5, 10)
_LEAST = 1e-100  # what is smaller is zero


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis from ``low`` to ``high``, with the values of its ``ticks`` in between, ends included."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def position(self, value: float) -> float:
        """Return where ``value`` stands: 0 at ``low``, 1 at ``high``."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_scale(values: Sequence[float], *, zero: bool = True, ticks: int = 6) -> Scale:
    """Return a scale whose ends are ticks and hold all values.

    Args:
        values: Finite numbers, at least one.
        zero: Whether zero has to be on the axis.
        ticks: About how many steps there should be.
    """
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * largest, _LEAST):  # one value: an axis around it
        spread = largest / 10 if largest > _LEAST else 1.0
        low, high = low - spread, high + spread
    step = _nice_step((high - low) / ticks)
    # the tolerance keeps an end that is a tick but for rounding from adding a step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = tuple(_rounded(i * step, step) for i in range(first, last + 1))
    return Scale(low=marks[0], high=marks[-1], ticks=marks)


def log_scale(values: Sequence[float]) -> Scale:
    """Return a logarithmic scale over all values, with ticks at 1, 2 and 5 times powers of ten.

    Over more than three powers of ten, only the powers are ticks.

    Args:
        values: Finite numbers above zero, at least one.
    """
    low, high = min(values), max(values)
    mantissas = (1,) if high / low > 1000 else (1, 2, 5)
    start, stop = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    candidates = [_rounded(m * 10.0**e, 10.0**e) for e in range(start, stop + 1) for m in mantissas]
    first = max(i for i, mark in enumerate(candidates) if mark <= low)
    last = min(i for i, mark in enumerate(candidates) if mark >= high)
    if first == last:
        last += 1
    marks = tuple(candidates[first : last + 1])
    return Scale(low=marks[0], high=marks[-1], ticks=marks, log=True)


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
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}"


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(step for step in _STEPS if step * power >= rough * (1 - 1e-9))


def _rounded(value: float, step: float) -> float:
    return round(value, max(0, 2 - math.floor(math.log10(step))))
