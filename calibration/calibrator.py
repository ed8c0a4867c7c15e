"""How to choose the range of a tensor's integers from its statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rexport._errors import UsageError
from rexport.calibration.entropy import entropy_threshold
from rexport.calibration.squared_error import least_squares_range, squared_error
from rexport.calibration.statistics import TensorRange

if TYPE_CHECKING:
    from rexport.calibration.histogram import Histogram
    from rexport.calibration.statistics import TensorStatistics
    from rexport.calibration.table import CalibrationTable

__all__ = ["Calibrator", "Method", "choose_range", "costlier_than_minmax", "percentile_range"]

_MUCH = 4.0  # times the squared error: 6 dB
_KEPT = 0.9  # of the values that are not in the bins at zero


class Method(StrEnum):
    """The ways to choose a range.

    Attributes:
        MINMAX: All values that were seen.
        AVERAGE: The mean over images of each image's smallest and largest value: what a moving average estimates, and
            independent of the images' order.
        PERCENTILE: Leaves out a share of the values at each end.
        ENTROPY: Loses the least information (see :mod:`rexport.calibration.entropy`).
        MSE: Has the least squared error (see :mod:`rexport.calibration.squared_error`).
    """

    MINMAX = "minmax"
    AVERAGE = "average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


@dataclass(frozen=True)
class Calibrator:
    """A way to choose a range: ``Calibrator.MSE``, or ``Calibrator(Method.PERCENTILE, 99.9)``.

    Attributes:
        method: The way.
        percentage: Of the values, kept at each end by a percentile: over 50 and up to 100.

    Raises:
        UsageError: There is no such percentage.
    """

    method: Method
    percentage: float = 99.99

    MINMAX: ClassVar[Calibrator]
    AVERAGE: ClassVar[Calibrator]
    PERCENTILE: ClassVar[Calibrator]
    ENTROPY: ClassVar[Calibrator]
    MSE: ClassVar[Calibrator]

    def __post_init__(self) -> None:
        if not 50 < self.percentage <= 100:
            raise UsageError(
                f"A percentile of {self.percentage:g} leaves out too much; name one over 50 and up to 100, such as "
                "percentile:99.9."
            )

    @classmethod
    def parse(cls, text: str) -> Calibrator:
        """Read ``minmax``, ``average``, ``percentile``, ``percentile:99.9``, ``entropy`` or ``mse``.

        Raises:
            UsageError: It is none of them.
        """
        name, colon, number = text.partition(":")
        try:
            method = Method(name)
            if not colon:
                return cls(method)
            if method is Method.PERCENTILE:
                return cls(method, float(number))
        except ValueError:
            pass
        choices = ", ".join("percentile[:99.9]" if method is Method.PERCENTILE else method for method in Method)
        raise UsageError(f"There is no calibrator {text!r}; choose one of {choices}.")

    def __str__(self) -> str:
        return f"{self.method}:{self.percentage:g}" if self.method is Method.PERCENTILE else str(self.method)


Calibrator.MINMAX = Calibrator(Method.MINMAX)
Calibrator.AVERAGE = Calibrator(Method.AVERAGE)
Calibrator.PERCENTILE = Calibrator(Method.PERCENTILE)
Calibrator.ENTROPY = Calibrator(Method.ENTROPY)
Calibrator.MSE = Calibrator(Method.MSE)


def choose_range(statistics: TensorStatistics, calibrator: Calibrator, *, steps: int, symmetric: bool) -> TensorRange:
    """Return the range of a tensor that its integers are to cover; zero lies in it, and it in what was seen and zero.

    Args:
        statistics: Of the tensor.
        calibrator: The way to choose.
        steps: Between the lowest and the highest integer (255 for uint8); where zero is in the middle, those on either
            side of it (127).
        symmetric: Whether the integers reach as far below zero as above it.
    """
    seen = statistics.range
    widest = TensorRange(min(seen.low, 0.0), max(seen.high, 0.0))
    match calibrator.method:
        case Method.MINMAX:
            chosen = widest
        case Method.AVERAGE:
            chosen = statistics.average_range
        case Method.PERCENTILE:
            chosen = percentile_range(statistics.histogram, calibrator.percentage, symmetric=symmetric)
        case Method.ENTROPY:
            threshold = entropy_threshold(statistics.histogram)
            chosen = TensorRange(-threshold, threshold)
        case Method.MSE:
            chosen = least_squares_range(statistics.histogram, widest, steps=steps, symmetric=symmetric)
    # The edge of a bin may lie beyond the last value in it.
    low, high = max(min(chosen.low, 0.0), widest.low), min(max(chosen.high, 0.0), widest.high)
    return TensorRange(low, high)


def costlier_than_minmax(
    table: CalibrationTable, calibrator: Calibrator, *, steps: int, symmetric: bool, factor: float = _MUCH
) -> dict[str, float]:
    """Return the tensors whose values lose much more by a calibrator's range than by that of all values, worst first.

    A calibrator clips some values so that the others are rounded more finely. Where that costs more than it gains on
    the very images of the calibration, it does not suit them.

    Args:
        table: The statistics.
        calibrator: The way to choose.
        steps: As for :func:`choose_range`.
        symmetric: Likewise.
        factor: How many times the squared error of :attr:`Calibrator.MINMAX` is much.

    Returns:
        By tensor, how many times its squared error is, as its histogram tells it.
    """
    ratios: dict[str, float] = {}
    for name, seen in table.tensors.items():
        chosen, widest = (
            choose_range(seen, way, steps=steps, symmetric=symmetric) for way in (calibrator, Calibrator.MINMAX)
        )
        if chosen == widest:
            continue
        if chosen.low == chosen.high:  # all is lost that is not zero
            ratios[name] = math.inf
            continue
        errors = (squared_error(seen.histogram, ends, steps=steps, symmetric=symmetric) for ends in (chosen, widest))
        cost, least = errors
        if cost > 0:
            ratios[name] = cost / least if least else math.inf
    worst_first = sorted(ratios.items(), key=lambda item: -item[1])
    return {name: ratio for name, ratio in worst_first if ratio > factor}


def percentile_range(histogram: Histogram, percentage: float, *, symmetric: bool) -> TensorRange:
    """Return the range over (under) whose ends lie ``percentage`` per cent of the values, to the edge of a bin.

    Where it is ``symmetric``, the magnitudes of that many lie within it. Of a tensor that is nearly always zero it
    might leave out all that is not, so nine in ten of those values stay.
    """
    at_zero = int(histogram.magnitudes()[0])
    not_zero = histogram.total - at_zero
    needed = max(math.ceil(percentage / 100 * histogram.total), at_zero + math.ceil(_KEPT * not_zero))
    if symmetric:
        threshold = (_reached(histogram.magnitudes(), needed) + 1) * histogram.width
        return TensorRange(-threshold, threshold)
    counts, edges = np.array(histogram.counts), histogram.edges()
    low, high = edges[len(counts) - 1 - _reached(counts[::-1], needed)], edges[_reached(counts, needed) + 1]
    return TensorRange(float(low), float(high))


def _reached(counts: np.ndarray, needed: int) -> int:
    """Return the index of the bin with which ``needed`` values have been passed."""
    return int(np.searchsorted(np.cumsum(counts), needed))
