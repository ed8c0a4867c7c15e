"""What an arithmetic explains, and what it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.evaluation.likeness import Arithmetic, difference

_RANDOM = np.random.default_rng(0)


def _values(shape: tuple[int, ...] = (2, 16, 8, 8)) -> np.ndarray:
    return _RANDOM.standard_normal(shape).astype(np.float32)


@given(step=st.floats(1e-4, 1e3), seed=st.integers(0, 99))
def test_one_step_of_integers_is_explained_and_two_are_not(step: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    integers = random.integers(-128, 128, (2, 3, 4, 4))
    expected = (integers * step).astype(np.float32)
    place = np.zeros(integers.shape, np.int64)
    place.flat[random.integers(place.size)] = 1
    one, two = (((integers + count * place) * step).astype(np.float32) for count in (1, 2))
    size = np.float32([step])
    assert difference(expected, one, step=size).explained_by(Arithmetic.INT8)
    assert not difference(expected, two, step=size).explained_by(Arithmetic.INT8)
    assert not difference(expected, expected, step=size, actual_step=2 * size).explained_by(Arithmetic.INT8)


def test_steps_may_be_of_each_channel() -> None:
    expected = _values((1, 2, 4, 4))
    steps = np.float32([0.1, 10.0])
    actual = expected + np.float32([0.1, 10.0]).reshape(1, 2, 1, 1)
    assert difference(expected, actual, step=steps).steps == pytest.approx(1, rel=1e-3)
    assert difference(expected, actual, step=steps[:1]).steps == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize(
    ("arithmetic", "noise", "explained"),
    [
        (Arithmetic.FLOAT32, 1e-6, True),
        (Arithmetic.FLOAT32, 1e-3, False),
        (Arithmetic.FLOAT16, 1e-3, True),
        (Arithmetic.FLOAT16, 3e-2, False),
        (Arithmetic.EIGHT_BITS, 3e-2, True),
        (Arithmetic.EIGHT_BITS, 0.5, False),
    ],
)
def test_noise_of_a_float_tensor(arithmetic: Arithmetic, noise: float, explained: bool) -> None:
    expected = _values()
    assert difference(expected, expected + np.float32(noise) * _values()).explained_by(arithmetic) is explained


def test_one_place_is_seen_that_hardly_shows_in_the_ratio() -> None:
    expected = _values((1, 512, 28, 28))
    actual = expected.copy()
    actual[0, 3, 5, 5] += 3e-3 * np.abs(expected).max()
    found = difference(expected, actual)
    assert found.sqnr_db > Arithmetic.FLOAT32.least_sqnr_db
    assert not found.explained_by(Arithmetic.FLOAT32)


def test_what_is_not_finite_is_never_explained_unless_both_are() -> None:
    expected = _values()
    broken = expected.copy()
    broken[0, 0, 0, 0] = np.nan
    assert not any(difference(expected, broken).explained_by(one) for one in Arithmetic)
    assert difference(broken, broken).sqnr_db == math.inf
    zero = np.zeros_like(expected)
    assert difference(zero, zero).explained_by(Arithmetic.FLOAT32)
    assert not difference(zero, expected).explained_by(Arithmetic.FLOAT32)
