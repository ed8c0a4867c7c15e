from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.calibration.histogram import BINS, Histogram, HistogramBuilder, exponent_for
from tests.calibration._tables import VALUES


def _by_hand(values: np.ndarray) -> dict[int, int]:
    """Count with Python's integers: ⌊x / 2ᵉ⌋ of fractions that are exact."""
    counts: dict[int, int] = {}
    exponent = exponent_for(float(np.abs(values).max()))
    for value in values.tolist():
        numerator, denominator = value.as_integer_ratio()
        index = numerator * 2 ** max(-exponent, 0) // (denominator * 2 ** max(exponent, 0))
        counts[index] = counts.get(index, 0) + 1
    return counts


def _as_dict(histogram: Histogram) -> dict[int, int]:
    return {index: count for index, count in enumerate(histogram.counts, histogram.first) if count}


@given(VALUES)
def test_bins_are_those_of_exact_fractions(values: np.ndarray) -> None:
    histogram = Histogram.of(values)
    assert _as_dict(histogram) == _by_hand(values)
    assert histogram.total == len(values)
    assert -BINS <= histogram.first <= histogram.first + len(histogram.counts) <= BINS


@given(VALUES, st.lists(st.integers(0, 60), max_size=4), st.randoms())
def test_any_split_in_any_order_gives_the_same(values: np.ndarray, cuts: list[int], random: object) -> None:
    parts = [part for part in np.split(values, sorted(cuts)) if len(part)]
    random.shuffle(parts)
    builder = HistogramBuilder()
    merged = Histogram.of(parts[0])
    for index, part in enumerate(parts):
        builder.add(part, largest=float(np.abs(part).max()))
        merged = merged.merge(Histogram.of(part)) if index else merged
    assert builder.build() == merged == Histogram.of(values)


@pytest.mark.parametrize("largest", [0.25, 1e-30, 3.0])
def test_a_part_of_zeros_widens_no_bin(largest: float) -> None:
    parts = [np.zeros(3, np.float32), np.float32([largest, -largest / 2])]
    whole = Histogram.of(np.concatenate(parts))
    assert Histogram.of(parts[0]).merge(Histogram.of(parts[1])) == whole
    assert Histogram.of(parts[1]).merge(Histogram.of(parts[0])) == whole


@pytest.mark.slow
@given(VALUES, VALUES, VALUES)
def test_merging_is_associative_and_commutative(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = map(Histogram.of, (a, b, c))
    assert x.merge(y).merge(z) == x.merge(y.merge(z))
    assert x.merge(y) == y.merge(x)


@pytest.mark.parametrize("power", [-149, -120, -30, 0, 30, 127])
def test_powers_of_two_are_just_above_the_edge(power: int) -> None:
    largest = math.ldexp(1.0, power)
    histogram = Histogram.of(
        np.array([largest, -largest, np.nextafter(np.float32(largest), np.float32(0))], np.float32)
    )
    assert math.frexp(largest)[1] - 12 <= histogram.exponent
    assert histogram.total == 3
    if power > -100:  # half of the bins are used, the upper edge excluded
        assert _as_dict(histogram) == {BINS // 2: 1, -BINS // 2: 1, BINS // 2 - 1: 1}


def test_a_tiny_negative_value_stays_below_zero_however_wide_the_bins() -> None:
    values = np.array([-1e-45, 1e-45, -0.0, 3e38], np.float32)
    assert _as_dict(Histogram.of(values)) == {-1: 1, 0: 2, int(3e38 / Histogram.of(values).width): 1}
    assert Histogram.of(values[:3]).merge(Histogram.of(values[3:])) == Histogram.of(values)


def test_magnitudes_fold_at_zero() -> None:
    histogram = Histogram.of(np.array([0.0, 0.5, -0.5, 0.999, -1.0], np.float32))
    magnitudes = histogram.magnitudes()
    half, almost = int(0.5 / histogram.width), int(0.999 / histogram.width)
    # -0.5 lies at the upper edge of its bin, and so one below 0.5
    expected = {0: 1, half: 1, half - 1: 1, almost: 1, int(1 / histogram.width) - 1: 1}
    assert {int(i): int(magnitudes[i]) for i in np.flatnonzero(magnitudes)} == expected
    assert histogram.edges()[[0, -1]].tolist() == [-1.0, 0.999 // histogram.width * histogram.width + histogram.width]
