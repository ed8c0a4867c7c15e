from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks.intervals import central, of_launches, of_median


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (100, 40)])
def test_ranks_are_those_of_the_tables(count: int, rank: int) -> None:
    """David and Nagaraja; of five and fewer there are no ranks that hold 95 %, and all values are taken."""
    assert of_median(range(1, count + 1)) == (rank, count + 1 - rank)


def test_student_s_interval_of_known_numbers() -> None:
    low, high = of_launches([1.0, 2.0, 3.0, 4.0, 5.0])  # s = 1.5811, t(4) = 2.776
    assert (low, high) == (pytest.approx(3 - 1.963, abs=1e-3), pytest.approx(3 + 1.963, abs=1e-3))


@given(st.lists(st.lists(st.floats(-9, 9), min_size=1, max_size=6), min_size=1, max_size=6))
def test_an_interval_holds_its_value(launches: list[list[float]]) -> None:
    value, (low, high) = central([x for one in launches for x in one], [len(one) for one in launches])
    assert low <= value + 1e-12
    assert value - 1e-12 <= high


@pytest.mark.parametrize(("values", "launches"), [([], []), ([1.0], [2]), ([1.0, 2.0], [1])])
def test_rounds_that_are_not_those_of_the_launches_are_refused(values: list[float], launches: list[int]) -> None:
    with pytest.raises(ValueError, match="rounds in launches"):
        central(values, launches)


@pytest.mark.parametrize(("launches", "between"), [(5, 0.0), (5, 1.5), (1, 0.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(launches: int, between: float) -> None:
    """0.95 of 2,000 has a deviation of 0.005; the median's ranks are whole, and hold 0.959 of 20 rounds."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        of_process = random.normal(0, between, (launches, 1)) if between else np.zeros((launches, 1))
        rounds = of_process + random.normal(0, 2, (launches, 20 // launches))
        _, (low, high) = central(rounds.ravel().tolist(), [20 // launches] * launches)
        held += low <= 0 <= high
    assert 0.935 <= held / 2000 <= 0.975


def test_rounds_alone_would_not_hold_it() -> None:
    """Why processes are launched several times: rounds of one process share what befell it."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(500):
        rounds = random.normal(0, 1.5) + random.normal(0, 2, 20)
        _, (low, high) = central(rounds.tolist(), [20])
        held += low <= 0 <= high
    assert held / 500 < 0.7
