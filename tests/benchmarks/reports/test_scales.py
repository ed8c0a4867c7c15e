from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks.reports.scales import linear_scale, log_scale, number, three_digits

# times, rates and shares: nothing that is measured is smaller or larger
positive = st.floats(1e-6, 1e9)
values = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20)
positives = st.lists(positive, min_size=1, max_size=20)
# a tick is a rounded multiple of its step, so the ends hold the values but for rounding
EPS = 1e-6


@given(values, st.booleans())
def test_a_linear_axis_holds_every_value_between_ticks(numbers: list[float], zero: bool) -> None:
    scale = linear_scale(numbers, zero=zero)
    assert scale.low < scale.high
    assert (scale.low, scale.high) == (scale.ticks[0], scale.ticks[-1])
    assert 2 <= len(scale.ticks) <= 10
    assert list(scale.ticks) == sorted(set(scale.ticks))
    for value in [*numbers, *([0.0] if zero else [])]:
        assert -EPS <= scale.position(value) <= 1 + EPS


@given(values)
def test_linear_ticks_are_one_two_or_five_apart(numbers: list[float]) -> None:
    ticks = linear_scale(numbers).ticks
    step = (ticks[-1] - ticks[0]) / (len(ticks) - 1)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 5)) < 1e-6
    for one, other in itertools.pairwise(ticks):
        assert other - one == pytest.approx(step, rel=1e-6)


@given(positives)
def test_a_logarithmic_axis_holds_every_value_between_ticks(numbers: list[float]) -> None:
    scale = log_scale(numbers)
    assert 0 < scale.low < scale.high
    assert (scale.low, scale.high) == (scale.ticks[0], scale.ticks[-1])
    assert list(scale.ticks) == sorted(set(scale.ticks))
    for value in numbers:
        assert -EPS <= scale.position(value) <= 1 + EPS
    for tick in scale.ticks:
        mantissa = tick / 10 ** math.floor(math.log10(tick) + 1e-9)
        assert min(abs(mantissa - nice) for nice in (1, 2, 5)) < 1e-6


@given(positives, positive, positive)
def test_places_are_in_the_order_of_the_values(numbers: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    for scale in (linear_scale([*numbers, low, high]), log_scale([*numbers, low, high])):
        assert scale.position(low) <= scale.position(high) + EPS


def test_known_axes() -> None:
    assert linear_scale([12.0, 97.0]).ticks == (0, 20, 40, 60, 80, 100)
    assert linear_scale([0.915, 0.932], zero=False).ticks == (0.915, 0.92, 0.925, 0.93, 0.935)
    assert linear_scale([20.0], zero=False).ticks == (18, 19, 20, 21, 22)
    assert log_scale([0.3, 7.0]).ticks == (0.2, 0.5, 1, 2, 5, 10)
    assert log_scale([1.0]).ticks == (1, 2)
    assert log_scale([0.5, 9000.0]).ticks == (0.1, 1, 10, 100, 1000, 10000)


@given(st.floats(1e-6, 1e9))
def test_three_digits_are_within_half_of_the_third(value: float) -> None:
    for text in (three_digits(value), number(value)):
        assert float(text.replace(",", "")) == pytest.approx(value, rel=0.005 + 1e-9)
