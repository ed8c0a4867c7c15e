"""Ranges that leave out a fixed share of the values at each end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rexport.calibration.statistics import TensorRange

if TYPE_CHECKING:
    from rexport.calibration.histogram import Histogram

__all__ = ["percentile_range"]


def percentile_range(histogram: Histogram, percentage: float, *, symmetric: bool) -> TensorRange:
    """Return the range over (under) whose ends lie ``percentage`` per cent of the values, to the edge of a bin.

    Where it is ``symmetric``, the magnitudes of that many lie within it.
    """
    needed = math.ceil(percentage / 100 * histogram.total)
    if symmetric:
        threshold = (_reached(histogram.magnitudes(), needed) + 1) * histogram.width
        return TensorRange(-threshold, threshold)
    counts, edges = np.array(histogram.counts), histogram.edges()
    low, high = edges[len(counts) - 1 - _reached(counts[::-1], needed)], edges[_reached(counts, needed) + 1]
    return TensorRange(float(low), float(high))


def _reached(counts: np.ndarray, needed: int) -> int:
    """Return the index of the bin with which ``needed`` values have been passed."""
    return int(np.searchsorted(np.cumsum(counts), needed))
