from __future__ import annotations

import math

import numpy as np
from hypothesis import given

from rexport.calibration import TensorRange, TensorStatistics
from rexport.calibration.accumulator import Accumulator
from tests.calibration._tables import arrays, statistics


def _accumulated(*batches: np.ndarray) -> TensorStatistics:
    """Return what the accumulator makes of a tensor, with sums as exact as float32 allows."""
    accumulator = Accumulator(["t"])
    for batch in batches:
        with np.errstate(over="ignore"):
            sums = batch.astype(np.float64).sum(axis=2).astype(np.float32)
        outputs = [batch.min(axis=2), batch.max(axis=2), sums, np.array(batch.shape), batch.reshape(len(batch), -1)]
        accumulator.add(batch, outputs, images=len(batch), before=0)
    return accumulator.statistics()["t"]


@given(statistics(), statistics(), statistics())
def test_merging_is_associative_and_commutative_to_the_bit(
    a: TensorStatistics, b: TensorStatistics, c: TensorStatistics
) -> None:
    assert repr(a.merge(b).merge(c)) == repr(a.merge(b.merge(c)))  # repr tells -0.0 from 0.0
    assert repr(a.merge(b)) == repr(b.merge(a))


@given(arrays(), arrays(), arrays())
def test_one_batch_after_the_other_is_all_of_them_merged_in_any_order(
    a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> None:
    together = repr(_accumulated(a, b, c))
    assert together == repr(_accumulated(c, a, b))
    assert together == repr(_accumulated(b).merge(_accumulated(c)).merge(_accumulated(a)))
    single = [image[None] for batch in (b, a, c) for image in batch]
    assert together == repr(_accumulated(*single))


@given(arrays())
def test_ends_and_means_are_those_of_the_array(values: np.ndarray) -> None:
    seen = TensorStatistics.of(values)
    assert seen.range == TensorRange(float(values.min()), float(values.max()))
    exact = [math.fsum(channel.ravel().tolist()) / channel.size for channel in values.transpose(1, 0, 2)]
    # float64 sums of 12 values: 12 roundings of 2⁻⁵³ of the largest, and half a unit of the fixed point
    largest = float(np.abs(values).max())
    np.testing.assert_allclose(seen.channel_means, exact, rtol=0, atol=12 * 2**-53 * largest + 2**-49)
    lows = [math.fsum(ends.tolist()) / len(values) for ends in (values.min(axis=(1, 2)), values.max(axis=(1, 2)))]
    np.testing.assert_allclose([seen.average_range.low, seen.average_range.high], lows, rtol=2**-50, atol=0)


@given(arrays())
def test_sums_agree_with_those_of_the_accumulator(values: np.ndarray) -> None:
    found, exact = _accumulated(values).channel_means, TensorStatistics.of(values).channel_means
    # its sums come in float32, half of 2⁻²³ off, of at most 4 values each; and saturate at 2⁵³
    np.testing.assert_allclose(found, exact, rtol=0, atol=_sum_error(values))


def _sum_error(values: np.ndarray) -> float:
    largest = float(np.abs(values.astype(np.float64).sum(axis=2)).max())
    return (largest if largest >= 2.0**53 else largest * 2**-24) + 2**-48


def test_a_sum_that_overflows_is_saturated() -> None:
    values = np.full((2, 1, 4), 3e38, np.float32)
    seen = _accumulated(values)
    assert seen.channel_sums == (2 * 2**53 * 2**48,)
    assert seen.high == float(np.float32(3e38))
