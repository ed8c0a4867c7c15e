"""What the raw times of a row say, and how it compares with the first row.

    throughput   batch / median(seconds)
    speed-up     of the ratios  median(first row in r) / median(this row in r)  of the rounds r,
                 the median in each launch, and their (geometric) mean over launches

The rounds are paired, so that a drift of the machine, which hits all rows of a round alike, cancels. Intervals are of
95 %, Student's over launches, or that of the median over the rounds of a single launch (see ``intervals``).

A percentile needs enough calls beyond it: MLPerf Inference asks for at least 64 queries before a 90th and 662
before a 99th percentile may be reported. With fewer, it is left out.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rexport.benchmarks.document import Latency
from rexport.benchmarks.intervals import central

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rexport.benchmarks.document import Row

__all__ = ["FEWEST_QUERIES", "compare_with_first", "latency_percentiles", "speedup", "timed"]

# What a percentile takes: MLPerf's rules for ending a run early, at 99 % confidence
FEWEST_QUERIES = {50: 1, 90: 64, 99: 662}


def timed(row: Row, rounds: Sequence[Sequence[float]], launches: Sequence[int] = ()) -> Row:
    """Return the row with the times of its rounds, and the speed and latency that they give.

    Args:
        row: Not measured yet.
        rounds: Seconds per call, round by round, at least one.
        launches: How many of the rounds each launch has; all are of one if empty.
    """
    seconds = tuple(second for block in rounds for second in block)
    speed = row.batch / float(np.median(seconds))
    speeds = [math.log(row.batch / float(np.median(block))) for block in rounds]
    _, (low, high) = central(speeds, launches or (len(speeds),))
    return replace(
        row,
        seconds=seconds,
        calls_per_round=tuple(map(len, rounds)),
        rounds_per_launch=tuple(launches),
        images_per_second=speed,
        images_per_second_interval=(min(math.exp(low), speed), max(math.exp(high), speed)),
        latency_ms=Latency(**latency_percentiles(seconds)),
    )


def latency_percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """Return ``p50``, ``p90`` and ``p99`` in milliseconds; ``None`` for those that take more calls."""
    enough = [percent for percent, fewest in FEWEST_QUERIES.items() if len(seconds) >= fewest]
    names = (f"p{percent}" for percent in FEWEST_QUERIES)
    return {
        **dict.fromkeys(names),
        **{f"p{percent}": 1e3 * float(np.percentile(seconds, percent)) for percent in enough},
    }


def speedup(
    first: Sequence[Sequence[float]], other: Sequence[Sequence[float]], *, launches: Sequence[int] = ()
) -> tuple[float, tuple[float, float]]:
    """Return how many times as fast as ``first`` the ``other`` is, and the 95 % interval.

    Args:
        first: Seconds per call, round by round.
        other: Likewise, from the same rounds.
        launches: How many of the rounds each launch has; all are of one if nothing else is said.

    Raises:
        ValueError: They do not have the same number of rounds, or none, or not as many as the launches have.

    Example:
        >>> speedup([[0.2, 0.2], [0.4, 0.4]], [[0.1, 0.1], [0.2, 0.2]])
        (2.0, (2.0, 2.0))
    """
    ratios = [math.log2(float(np.median(a) / np.median(b))) for a, b in zip(first, other, strict=True)]
    if not ratios:
        raise ValueError("no rounds to compare")
    ratio, (low, high) = central(ratios, launches or (len(ratios),))
    return 2.0**ratio, (2.0**low, 2.0**high)


def compare_with_first(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Set each measured row's speed-up over the first measured row of its batch size."""
    first: dict[int, Row] = {}
    compared = []
    for row in rows:
        if row.rounds:
            base = first.setdefault(row.batch, row)
            ratio, interval = speedup(base.rounds, row.rounds, launches=row.launches)
            row = replace(row, speedup=ratio, speedup_interval=interval)
        compared.append(row)
    return tuple(compared)
