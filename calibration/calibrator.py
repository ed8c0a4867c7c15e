"""Choosing the range of a tensor's integers from its statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rexport._errors import UsageError
from rexport._words import suggestion
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
        MINMAX: Covers all observed values.
        AVERAGE: The mean over images of each image's smallest and largest value: as a moving average estimates it, but
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
                f"A percentile must be above 50 and at most 100, such as percentile:99.9, not {self.percentage:g}."
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
        choices = ", ".join(Method).replace("percentile", "percentile[:99.9]")
        raise UsageError(f"There is no calibrator {text!r}; choose one of {choices}.{suggestion(name, Method)}")

    def __str__(self) -> str:
        return f"{self.method}:{self.percentage:g}" if self.method is Method.PERCENTILE else str(self.method)


Calibrator.MINMAX = Calibrator(Method.MINMAX)
Calibrator.AVERAGE = Calibrator(Method.AVERAGE)
Calibrator.PERCENTILE = Calibrator(Method.PERCENTILE)
Calibrator.ENTROPY = Calibrator(Method.ENTROPY)
Calibrator.MSE = Calibrator(Method.MSE)


def choose_range(statistics: TensorStatistics, calibrator: Calibrator, *, steps: int, symmetric: bool) -> TensorRange:
    """Return the range for a tensor's integers; it contains zero, and lies within the observed values and zero.

    Args:
        statistics: The tensor's statistics.
        calibrator: The way to choose.
        steps: The steps between the lowest and the highest integer (255 for uint8); where zero is in the middle, those
            on either side of it (127).
        symmetric: Whether the integers reach as far below zero as above it.
    """
    widest = statistics.range.merge(TensorRange(0.0, 0.0))
    match calibrator.method:
        case Method.MINMAX:
            interval = widest
        case Method.AVERAGE:
            interval = statistics.average_range
        case Method.PERCENTILE:
            interval = percentile_range(statistics.histogram, calibrator.percentage, symmetric=symmetric)
        case Method.ENTROPY:
            threshold = entropy_threshold(statistics.histogram)
            interval = TensorRange(-threshold, threshold)
        case Method.MSE:
            interval = least_squares_range(statistics.histogram, widest, steps=steps, symmetric=symmetric)
    # The edge of a bin may lie beyond the last value in it.
    low, high = max(min(interval.low, 0.0), widest.low), min(max(interval.high, 0.0), widest.high)
    return TensorRange(low, high)


def costlier_than_minmax(
    table: CalibrationTable, calibrator: Calibrator, *, steps: int, symmetric: bool, factor: float = _MUCH
) -> dict[str, float]:
    """Return the tensors that lose much more with a calibrator's range than with that of all values, worst first.

    A calibrator clips some values so that the others are rounded more finely. Where that costs more than it gains even
    on the images of the calibration, it does not suit them.

    Args:
        table: The statistics.
        calibrator: The way to choose.
        steps: As for :func:`choose_range`.
        symmetric: Likewise.
        factor: How many times the squared error of :attr:`Calibrator.MINMAX` counts as much.

    Returns:
        By tensor, the ratio of the squared errors, estimated from its histogram.
    """
    ratios: dict[str, float] = {}
    for name, statistics in table.tensors.items():
        narrow = choose_range(statistics, calibrator, steps=steps, symmetric=symmetric)
        widest = choose_range(statistics, Calibrator.MINMAX, steps=steps, symmetric=symmetric)
        if narrow == widest:
            continue
        if narrow.low == narrow.high:  # every value but zero is lost
            ratios[name] = math.inf
            continue
        cost, least = (
            squared_error(statistics.histogram, ends, steps=steps, symmetric=symmetric) for ends in (narrow, widest)
        )
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
