"""How sure a row's throughput, and the ratio of two runs, is from the raw times.

    throughput   T = batch / exp(m),        m the typical ln(seconds) of a round
    ratio        T_new / T_old = exp(m_old - m_new)

Of each run, m and its interval (l, u) are those of :mod:`rexport.benchmarks.intervals`: over launches where there are
several, and over rounds otherwise. Two runs are not paired, and the interval of their difference follows from theirs by

    L = d - √((m_old - l_old)² + (u_new - m_new)²),   U = d + √((u_old - m_old)² + (m_new - l_new)²)

(Zou and Donner 2008, "Construction of confidence limits about effect measures"; MOVER).
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from rexport.benchmarks.intervals import central

if TYPE_CHECKING:
    from rexport.benchmarks.document import Row

__all__ = ["ratio_interval", "throughput", "throughput_interval"]

_FEWEST_ROUNDS = 3  # of fewer, nothing can be said about other rounds


def throughput(row: Row) -> float:
    """Return images per second; the row has times."""
    return row.batch / math.exp(_typical(row)[0])


def throughput_interval(row: Row) -> tuple[float, float] | None:
    """Return the 95 % interval of images per second; ``None`` for fewer than three rounds."""
    if len(row.rounds) < _FEWEST_ROUNDS:
        return None
    _, (low, high) = _typical(row)
    return row.batch / math.exp(high), row.batch / math.exp(low)


def ratio_interval(old: Row, new: Row) -> tuple[float, float] | None:
    """Return the 95 % interval of how many times as fast ``new`` is; ``None`` for fewer than three rounds of either."""
    if min(len(old.rounds), len(new.rounds)) < _FEWEST_ROUNDS:
        return None
    before, (before_low, before_high) = _typical(old)
    after, (after_low, after_high) = _typical(new)
    difference = before - after
    low = difference - math.hypot(before - before_low, after_high - after)
    high = difference + math.hypot(before_high - before, after - after_low)
    return math.exp(low), math.exp(high)


def _typical(row: Row) -> tuple[float, tuple[float, float]]:
    return central([math.log(median(block)) for block in row.rounds], row.launches)
