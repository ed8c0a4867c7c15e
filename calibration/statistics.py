"""The statistics of a tensor: exact ends and sums, and a histogram.

Sums are integers, multiples of a power of two, and so the same in any order:

    Σ over images of the lowest (highest) value        in units of 2⁻¹⁴⁹, of which every float32 is a multiple
    Σ over the values of a channel                     in units of 2⁻⁴⁸, to the nearest for each image
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rexport.calibration.histogram import Histogram

__all__ = ["CHANNEL_UNIT", "IMAGE_UNIT", "TensorRange", "TensorStatistics", "exact_units"]

IMAGE_UNIT = -149  # the exponent of the smallest float32
CHANNEL_UNIT = -48


@dataclass(frozen=True)
class TensorRange:
    """The smallest and the largest value of a tensor that count."""

    low: float
    high: float

    def merge(self, another: TensorRange) -> TensorRange:
        """Return the range of both; the order of merging makes no difference."""
        return TensorRange(min(self.low, another.low), max(self.high, another.high))

    @property
    def finite(self) -> bool:
        """Whether both ends are numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True, kw_only=True)
class TensorStatistics:
    """The statistics of a tensor of shape ``(N, C, ...)``, over all images.

    Attributes:
        images: The number of rows along axis 0: images, where that is the batch.
        values: The number of values of each channel.
        channel_lows: The smallest value of each channel, a float32; shape ``(C,)``. A tensor whose number of channels
            is open, or that has no axis 1, counts as one channel.
        channel_highs: The largest.
        channel_sums: The sum of a channel's values, in units of 2⁻⁴⁸.
        sum_of_lows: The sum of each image's smallest value, in units of 2⁻¹⁴⁹.
        sum_of_highs: The sum of each image's largest value.
        histogram: The histogram of a fixed sample of each image's values (all of them if they are few).
    """

    images: int
    values: int
    channel_lows: tuple[float, ...]
    channel_highs: tuple[float, ...]
    channel_sums: tuple[int, ...]
    sum_of_lows: int
    sum_of_highs: int
    histogram: Histogram

    @classmethod
    def of(cls, values: np.ndarray) -> TensorStatistics:
        """Return the statistics of one tensor, finite float32 of shape ``(N, C, ...)``; its histogram is of all."""
        flat = np.asarray(values, np.float32).reshape(*values.shape[:2], -1) + np.float32(0)  # no -0
        sums = flat.astype(np.float64).sum(axis=(0, 2))
        return cls(
            images=len(flat),
            values=flat.shape[0] * flat.shape[2],
            channel_lows=tuple(flat.min(axis=(0, 2)).tolist()),
            channel_highs=tuple(flat.max(axis=(0, 2)).tolist()),
            channel_sums=tuple(round(math.ldexp(value, -CHANNEL_UNIT)) for value in sums.tolist()),
            sum_of_lows=exact_units(flat.min(axis=(1, 2))),
            sum_of_highs=exact_units(flat.max(axis=(1, 2))),
            histogram=Histogram.of(flat),
        )

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.channel_lows)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.channel_highs)

    @property
    def range(self) -> TensorRange:
        """The smallest and the largest value."""
        return TensorRange(self.low, self.high)

    @property
    def average_range(self) -> TensorRange:
        """The means over images of the smallest and of the largest value."""
        low, high = (_mean(total, self.images, IMAGE_UNIT) for total in (self.sum_of_lows, self.sum_of_highs))
        return TensorRange(low, high)

    @property
    def channel_means(self) -> np.ndarray:
        """The mean of each channel, float64 of shape ``(C,)``."""
        return np.array([_mean(total, self.values, CHANNEL_UNIT) for total in self.channel_sums])

    def merge(self, another: TensorStatistics) -> TensorStatistics:
        """Return the statistics over the images of both; the order of merging makes no difference, to the bit.

        Raises:
            ValueError: They have different numbers of channels.
        """
        return TensorStatistics(
            images=self.images + another.images,
            values=self.values + another.values,
            channel_lows=tuple(map(min, zip(self.channel_lows, another.channel_lows, strict=True))),
            channel_highs=tuple(map(max, zip(self.channel_highs, another.channel_highs, strict=True))),
            channel_sums=tuple(map(sum, zip(self.channel_sums, another.channel_sums, strict=True))),
            sum_of_lows=self.sum_of_lows + another.sum_of_lows,
            sum_of_highs=self.sum_of_highs + another.sum_of_highs,
            histogram=self.histogram.merge(another.histogram),
        )


def exact_units(values: np.ndarray) -> int:
    """Return the exact sum of float32 ``values``, in units of 2⁻¹⁴⁹."""
    return sum(int(math.ldexp(value, -IMAGE_UNIT)) for value in values.tolist())


def _mean(total: int, count: int, unit: int) -> float:
    # Python divides integers of any size to the nearest float; the quotient can't overflow, as its terms are float32
    return total / (count << -unit)
