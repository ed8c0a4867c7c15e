"""Adding up the results of the probes, batch by batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import DataError
from rexport.calibration.histogram import HistogramBuilder
from rexport.calibration.probes import OUTPUTS
from rexport.calibration.statistics import CHANNEL_UNIT, TensorStatistics, exact_units
from rexport.feeds import arrays_of, examples_in, first_examples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rexport.feeds import Feed

__all__ = ["Accumulator"]

_LARGEST_SUM = 2.0**53  # of a channel of one image: a larger one counts as this
_MODULUS = 2**256


@dataclass(frozen=True)
class _Probed:
    """The outputs of the probes: ``lows``, ``highs``, ``sums`` (N, C), ``shape`` (N, C, P), ``sample`` (N, S)."""

    lows: np.ndarray
    highs: np.ndarray
    sums: np.ndarray
    shape: np.ndarray
    sample: np.ndarray

    def first(self, images: int, ran: int) -> _Probed:
        """Leave out the rows of copies: only the first ``images`` of those that ``ran`` are real."""
        if images == ran or len(self.lows) % ran:
            return self
        rows = len(self.lows) // ran * images
        return _Probed(self.lows[:rows], self.highs[:rows], self.sums[:rows], self.shape, self.sample[:rows])


class Accumulator:
    """The statistics of the watched tensors so far."""

    def __init__(self, watched: Sequence[str]) -> None:
        self._tensors = {name: _TensorAccumulator() for name in watched}
        self._data = 0
        self.images = 0

    def add(self, batch: Feed, outputs: Sequence[np.ndarray], *, images: int, before: int) -> None:
        """Add the probes' ``outputs`` for a ``batch``, where only the first ``images`` count.

        ``before`` is the number of images before these, for the error message.

        Raises:
            DataError: A tensor takes values that are not finite.
        """
        for index, (name, tensor) in enumerate(self._tensors.items()):
            probed = _Probed(*outputs[index * OUTPUTS : (index + 1) * OUTPUTS]).first(images, examples_in(batch))
            _require_finite(name, probed, images, before)
            tensor.add(probed)
        for example in _examples(first_examples(batch, images)):
            digest = hashlib.sha256()
            for array in example:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(array.tobytes())
            self._data = (self._data + int.from_bytes(digest.digest())) % _MODULUS
        self.images += images

    @property
    def data_sha256(self) -> str:
        """The hash of the images so far (see :class:`CalibrationTable`)."""
        return f"{self._data:064x}"

    def statistics(self) -> dict[str, TensorStatistics]:
        """Return them, by the names of the tensors."""
        return {name: tensor.statistics() for name, tensor in self._tensors.items()}


class _TensorAccumulator:
    def __init__(self) -> None:
        self._images = 0
        self._values = 0
        self._lows, self._highs = np.array(np.inf, np.float32), np.array(-np.inf, np.float32)
        self._wholes, self._parts = np.array(0), np.array(0)  # of the channels' sums: Σ = wholes + parts · 2⁻⁴⁸
        self._sum_of_lows, self._sum_of_highs = 0, 0
        self._histogram = HistogramBuilder()

    def add(self, probed: _Probed) -> None:
        lows, highs = (ends + np.float32(0) for ends in (probed.lows, probed.highs))  # no -0
        self._images += len(lows)
        self._values += len(lows) * int(probed.shape[2])
        self._lows, self._highs = np.minimum(self._lows, lows.min(axis=0)), np.maximum(self._highs, highs.max(axis=0))
        self._sum_of_lows += exact_units(lows.min(axis=1))
        self._sum_of_highs += exact_units(highs.max(axis=1))
        sums = np.clip(probed.sums.astype(np.float64), -_LARGEST_SUM, _LARGEST_SUM)
        wholes = np.floor(sums)
        parts = np.rint(np.ldexp(sums - wholes, -CHANNEL_UNIT))
        self._add_sums(wholes.astype(np.int64).sum(axis=0), parts.astype(np.int64).sum(axis=0))
        self._histogram.add(probed.sample, largest=float(max(-lows.min(), highs.max())))

    def statistics(self) -> TensorStatistics:
        sums = zip(self._wholes.tolist(), self._parts.tolist(), strict=True)
        return TensorStatistics(
            images=self._images,
            values=self._values,
            channel_lows=tuple(self._lows.tolist()),
            channel_highs=tuple(self._highs.tolist()),
            channel_sums=tuple((integer << -CHANNEL_UNIT) + part for integer, part in sums),
            sum_of_lows=self._sum_of_lows,
            sum_of_highs=self._sum_of_highs,
            histogram=self._histogram.build(),
        )

    def _add_sums(self, wholes: np.ndarray, parts: np.ndarray) -> None:
        carried = (self._parts + parts) >> -CHANNEL_UNIT  # so that the parts stay small
        self._wholes = self._wholes + wholes + carried
        self._parts = self._parts + parts - (carried << -CHANNEL_UNIT)


def _examples(feed: Feed) -> Iterable[tuple[np.ndarray, ...]]:
    """Return the arrays of each example; of all of them where axes do not tell them apart."""
    arrays = arrays_of(feed)
    if min(array.ndim for array in arrays) and len({len(array) for array in arrays}) == 1:
        return zip(*arrays, strict=True)
    return [arrays]


def _require_finite(name: str, probed: _Probed, images: int, before: int) -> None:
    # A minimum passes over NaN, and a sum may overflow though all its terms are finite.
    broken = ~(np.isfinite(probed.lows) & np.isfinite(probed.highs)) | np.isnan(probed.sums)
    if not broken.any():
        return
    row = int(np.argmax(broken.any(axis=1))) * images // len(broken)
    raise DataError(
        f"The tensor {name!r} takes values that are not finite (NaN or infinite), in image {before + row + 1}; it is "
        "the first such tensor, so look at the weights right before it."
    )
