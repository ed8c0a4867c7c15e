"""Ranges that leave out a fixed share of the values at each end.

Of a tensor that is nearly always zero it might leave out all that is not, so nine in ten of those values stay.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rexport.calibration.statistics import TensorRange

if TYPE_CHECKING:
    from rexport.calibration.histogram import Histogram

__all__ = ["percentile_range"]

_KEPT = 0.9  # of the values that are not in the bins at zero


def percentile_range(histogram: Histogram, percentage: float, *, symmetric: bool) -> TensorRange:
    """Return the range over (under) whose ends lie ``percentage`` per cent of the values, to the edge of a bin.

    Where it is ``symmetric``, the magnitudes of that many lie within it.
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
