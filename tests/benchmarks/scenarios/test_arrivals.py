from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks.scenarios.arrivals import poisson_arrivals

COUNT = 100_000


def gaps(rate: float, *, seed: int = 0) -> np.ndarray:
    return np.diff(poisson_arrivals(rate, COUNT, seed=seed), prepend=0.0)


@pytest.mark.parametrize("rate", [0.5, 40.0, 9000.0])
def test_gaps_have_the_mean_and_the_variance_of_exponential_ones(rate: float) -> None:
    # standard errors: of the mean 1/√n = 0.3 %, of the variance √(8/n) = 0.9 %; four of each
    assert gaps(rate).mean() == pytest.approx(1 / rate, rel=4 / COUNT**0.5)
    assert gaps(rate).var() == pytest.approx(1 / rate**2, rel=4 * (8 / COUNT) ** 0.5)


@pytest.mark.parametrize("multiple", [0.1, 1.0, 3.0])
def test_long_gaps_are_as_rare_as_exponential_ones(multiple: float) -> None:
    share = float(np.mean(gaps(40.0) > multiple / 40.0))
    expected = np.exp(-multiple)
    assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / COUNT) ** 0.5)


def test_gaps_do_not_depend_on_the_one_before() -> None:
    times = gaps(40.0)
    # the correlation of n independent pairs has a standard error of 1/√n
    assert abs(np.corrcoef(times[:-1], times[1:])[0, 1]) < 4 / COUNT**0.5


def test_arrivals_in_a_second_are_as_many_as_poisson_says() -> None:
    moments = poisson_arrivals(40.0, COUNT, seed=3)
    counts = np.bincount(moments.astype(int))[:-1]  # the last second is cut short
    # of a Poisson process the variance of counts is their mean; its standard error is √(2/n) of it, about 3 %
    assert counts.var() / counts.mean() == pytest.approx(1, abs=4 * (2 / len(counts)) ** 0.5)


@given(st.floats(0.01, 1e5), st.floats(0.01, 1e5), st.integers(0, 2**32))
def test_a_seed_gives_the_same_gaps_at_every_rate_stretched(first: float, second: float, seed: int) -> None:
    a, b = (poisson_arrivals(rate, 50, seed=seed) for rate in (first, second))
    np.testing.assert_allclose(a * first, b * second, rtol=1e-12)
    assert (np.diff(a) >= 0).all()


def test_seeds_differ() -> None:
    assert not np.allclose(gaps(1.0, seed=0), gaps(1.0, seed=1))
