"""When a model has warmed up.

The first calls of a process pay for memory that is touched for the first time, kernels that are chosen, code that is
compiled and a clock that rises. How many they are differs from model to model, so it is watched: calls are gathered in
windows of at least five calls and 20 ms, and the model is warm when a window's median is no longer below that of the
window before by more than the calls of both scatter (their median absolute deviation, or 1 % of the median if that is
more). The bounds are for what never settles, on a machine that does other things.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["is_settled", "warm_up"]

_WINDOW_CALLS = 5
_WINDOW_SECONDS = 0.02
_LEAST_SCATTER = 0.01  # of the median
_MAX_SECONDS = 3.0


def warm_up(call: Callable[[], float], *, max_seconds: float = _MAX_SECONDS) -> list[float]:
    """Call until warm, or for ``max_seconds``, and return the seconds of every call, at least one.

    Args:
        call: Runs the model once and returns how long that took, in seconds.
        max_seconds: After so many seconds, no further call is made.
    """
    seconds: list[float] = []
    before: list[float] = []
    total = 0.0
    while True:
        window: list[float] = []
        while len(window) < _WINDOW_CALLS or math.fsum(window) < _WINDOW_SECONDS:
            window.append(call())
            seconds.append(window[-1])
            total += window[-1]
            if total >= max_seconds:
                return seconds
        if before and is_settled(before, window):
            return seconds
        before = window


def is_settled(before: Sequence[float], after: Sequence[float]) -> bool:
    """Say whether the calls of a window are no faster than those of the window before, beyond their scatter."""
    earlier, later = median(before), median(after)
    scatter = max(_deviation(before), _deviation(after), _LEAST_SCATTER * later)
    return earlier - later <= scatter


def _deviation(seconds: Sequence[float]) -> float:
    middle = median(seconds)
    return median(abs(second - middle) for second in seconds)
