"""Histograms that add up exactly, whatever the order and the parts of their values.

    bin of x = ⌊x / 2ᵉ⌋        ⌊k / 2⌋ is its bin at e + 1

Counts are integers and bin widths powers of two, so a histogram of width 2ᵉ becomes one of 2ᵉ⁺¹ by adding up pairs of
bins, and is then what it would have been at that width from the start. The width follows from the largest magnitude
alone. So one pass over the data is enough, though the range is unknown before it ends.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

import numpy as np

__all__ = ["BINS", "Histogram", "HistogramBuilder", "exponent_for"]

_LOG2_BINS = 12
BINS = 2**_LOG2_BINS  # on either side of zero, at most
# 2 to it and its inverse are normal float32 numbers; values smaller than 2⁻¹⁰⁸ fall into the bins next to zero.
_SMALLEST_EXPONENT = -120


def exponent_for(largest: float) -> int:
    """Return the smallest exponent e so that ``largest``, a magnitude, is less than 2¹² bins of width 2ᵉ."""
    if not largest:  # whose exponent is 0 to frexp, larger than that of one half
        return _SMALLEST_EXPONENT
    return max(math.frexp(largest)[1] - _LOG2_BINS, _SMALLEST_EXPONENT)


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The number of values in each bin.

    Attributes:
        exponent: The width of a bin is 2 to it.
        first: The index of the first bin, k of [k · 2ᵉ, (k + 1) · 2ᵉ).
        counts: Of the bins from ``first`` on, int64; neither the first nor the last is zero.
    """

    exponent: int
    first: int
    counts: array[int]

    @classmethod
    def of(cls, values: np.ndarray) -> Histogram:
        """Count finite float32 ``values`` of any shape."""
        builder = HistogramBuilder()
        builder.add(values, largest=float(np.abs(values).max(initial=0.0)))
        return builder.build()

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def edges(self) -> np.ndarray:
        """Return the edges of the bins, float64 of shape ``(len(counts) + 1,)``, rising."""
        edges: np.ndarray = np.arange(self.first, self.first + len(self.counts) + 1) * self.width
        return edges

    def magnitudes(self) -> np.ndarray:
        """Return how many values lie in each bin of magnitudes, [m · 2ᵉ, (m + 1) · 2ᵉ) from m = 0; int64."""
        bins = np.arange(self.first, self.first + len(self.counts))
        magnitudes = np.where(bins < 0, -1 - bins, bins)
        counts = np.zeros(int(magnitudes.max()) + 1, np.int64)
        np.add.at(counts, magnitudes, np.array(self.counts))
        return counts

    def merge(self, another: Histogram) -> Histogram:
        """Return the histogram of the values of both, with the wider bins of the two."""
        exponent = max(self.exponent, another.exponent)
        parts = [part.coarsened(exponent) for part in (self, another)]
        first = min(part.first for part in parts)
        counts = np.zeros(max(part.first + len(part.counts) for part in parts) - first, np.int64)
        for part in parts:
            counts[part.first - first :][: len(part.counts)] += part.counts
        return Histogram(exponent=exponent, first=first, counts=_packed(counts))

    def coarsened(self, exponent: int) -> Histogram:
        """Return the histogram of the same values with bins of 2 to ``exponent``, which is not less than its own."""
        shift = min(exponent - self.exponent, _LOG2_BINS + 1)  # by then all are in the two bins next to zero
        if not shift:
            return self
        bins = np.arange(self.first, self.first + len(self.counts)) >> shift
        counts = np.zeros(bins[-1] - bins[0] + 1, np.int64)
        np.add.at(counts, bins - bins[0], self.counts)
        return Histogram(exponent=exponent, first=int(bins[0]), counts=_packed(counts))


def _packed(counts: np.ndarray) -> array[int]:
    return array("q", counts.astype(np.int64).tobytes())


class HistogramBuilder:
    """A histogram that grows."""

    def __init__(self) -> None:
        self._exponent = _SMALLEST_EXPONENT
        self._counts = np.zeros(2 * BINS, np.int64)

    def add(self, values: np.ndarray, *, largest: float) -> None:
        """Count finite float32 ``values`` of any shape, none of a magnitude over ``largest``."""
        self._widen(exponent_for(largest))
        # A quotient may be too small for float32 only where bins are wider than 1: there it would lose its sign.
        dtype = np.float32 if self._exponent <= 0 else np.float64
        bins = np.multiply(values.reshape(-1), math.ldexp(1.0, -self._exponent), dtype=dtype)
        np.floor(bins, out=bins)
        bins += BINS
        self._counts += np.bincount(bins.astype(np.intp), minlength=2 * BINS)

    def build(self) -> Histogram:
        """Return the histogram of the counted values, of which there must be one."""
        used = np.flatnonzero(self._counts)
        first, last = int(used[0]), int(used[-1])
        counts = _packed(self._counts[first : last + 1])
        return Histogram(exponent=self._exponent, first=first - BINS, counts=counts)

    def _widen(self, exponent: int) -> None:
        steps = exponent - self._exponent
        if steps <= 0:
            return
        if self._counts.any():
            for _ in range(min(steps, _LOG2_BINS + 1)):  # by then all are in the two bins next to zero
                pairs = self._counts.reshape(-1, 2).sum(axis=1)
                self._counts[:] = 0
                self._counts[BINS // 2 : BINS // 2 + BINS] = pairs
        self._exponent = exponent
