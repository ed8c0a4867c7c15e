"""The range of least squared error, rounding and clipping together.

    E = Σ over bins b of c_b / w · ∫_b (x − s · clip(round(x / s), −z, n − z))² dx

with c_b values in a bin of width w, taken as spread evenly over it; s = (high − low) / n, z = round(−low / s). With
u = x / s and q its integer, the integral from 0 to x is s³ (q / 12 + (u − q)³ / 3), clipped or not.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rexport.calibration.statistics import TensorRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from rexport.calibration.histogram import Histogram

__all__ = ["least_squares_range", "squared_error"]

_OCTAVES = 10  # down to a thousandth of the widest range
_PER_OCTAVE = 8
_COARSE = 2.0 ** -(np.arange(_OCTAVES * _PER_OCTAVE + 1) / _PER_OCTAVE)
_NEAR = 2.0 ** (np.arange(-_PER_OCTAVE + 1, _PER_OCTAVE) / _PER_OCTAVE)
_FINE = 2.0 ** (np.arange(-_PER_OCTAVE + 1, _PER_OCTAVE) / _PER_OCTAVE**2)
_ROUNDS = 2  # of choosing one end after the other


def least_squares_range(histogram: Histogram, widest: TensorRange, *, steps: int, symmetric: bool) -> TensorRange:
    """Return the range with the least error; ``widest``, which holds zero, if none is better.

    An end of ``widest`` that is zero stays. See :func:`rexport.calibration.choose_range` for ``steps`` and
    ``symmetric``.
    """
    largest = max(-widest.low, widest.high)
    if largest == 0.0:
        return widest
    error = _Error(histogram.edges() / largest, np.array(histogram.counts, np.float64), steps)
    if symmetric:
        factor = _best(error.of_symmetric)
        return TensorRange(-largest * factor, largest * factor)
    low, high = widest.low / largest, widest.high / largest
    # Both to one magnitude first: moving one end of the widest range alone may gain nothing.
    factor = _best(lambda factors: error.of(np.maximum(low, -factors), np.minimum(high, factors)))
    below, above = (min(1.0, factor / end) if end else 1.0 for end in (-low, high))
    if low and high:
        for _ in range(_ROUNDS):
            above = _best(partial(_with_high, error, low * below, high), near=above)
            below = _best(partial(_with_low, error, low, high * above), near=below)
    return TensorRange(widest.low * below, widest.high * above)


def squared_error(histogram: Histogram, interval: TensorRange, *, steps: int, symmetric: bool) -> float:
    """Return the mean squared error of the values of a histogram, rounded and clipped to the integers of a range.

    ``interval`` holds zero and another number. The error is in units of the square of the histogram's largest
    magnitude, so that float64 does not overflow.
    """
    edges, largest = histogram.edges(), max(-interval.low, interval.high)
    unit = np.abs(edges).max()
    error = _Error(edges / unit, np.array(histogram.counts, np.float64), steps)
    low, high, threshold = (np.array([end / unit]) for end in (interval.low, interval.high, largest))
    errors = error.of_symmetric(threshold) if symmetric else error.of(low, high)
    return float(errors[0] / (histogram.total * histogram.width / unit))


def _with_high(error: _Error, low: float, high: float, factors: np.ndarray) -> np.ndarray:
    return error.of(np.full_like(factors, low), high * factors)


def _with_low(error: _Error, low: float, high: float, factors: np.ndarray) -> np.ndarray:
    return error.of(low * factors, np.full_like(factors, high))


def _best(error_of: Callable[[np.ndarray], np.ndarray], *, near: float | None = None) -> float:
    """Return the factor, up to 1, of the least error (the larger of two alike), or the best one ``near`` another."""
    coarse = _COARSE if near is None else near * _NEAR
    best = _least(error_of, coarse)
    return _least(error_of, best * _FINE)


def _least(error_of: Callable[[np.ndarray], np.ndarray], factors: np.ndarray) -> float:
    falling = np.unique(np.minimum(factors, 1.0))[::-1]
    return float(falling[np.argmin(error_of(falling))])


class _Error:
    """The squared error of rounding the values of a histogram to integers, for many ranges at once.

    ``edges`` of its bins are in units of the largest magnitude, and so are the ranges.
    """

    def __init__(self, edges: np.ndarray, counts: np.ndarray, steps: int) -> None:
        self._edges = edges
        self._counts = counts
        self._steps = steps

    def of(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Return the errors of integers between the ends ``low`` and ``high``, both of shape (K,)."""
        scale = (high - low) / self._steps
        zero_point = np.rint(-low / scale)
        return self._of(scale, -zero_point, self._steps - zero_point)

    def of_symmetric(self, threshold: np.ndarray) -> np.ndarray:
        """Return the errors of integers between each ``threshold``, shape (K,), and its negative."""
        steps = np.full_like(threshold, self._steps)
        return self._of(threshold / steps, -steps, steps)

    def _of(self, scale: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
        quotients = self._edges / scale[:, None]
        integers = np.clip(np.rint(quotients), lowest[:, None], highest[:, None])
        quotients -= integers
        integrals = quotients * quotients
        integrals *= quotients
        integrals *= 4.0
        integrals += integers  # of twelfths
        errors: np.ndarray = scale**3 / 12 * (np.diff(integrals, axis=1) @ self._counts)
        return errors
