from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport.benchmarks.warm_up import is_settled, warm_up

if TYPE_CHECKING:
    from collections.abc import Iterable


def calls(seconds: Iterable[float], *, max_seconds: float = 3.0) -> list[float]:
    """Warm up a model whose calls take so long, and return how long those took that were made."""
    times = iter(seconds)
    return warm_up(lambda: next(times), max_seconds=max_seconds)


def test_what_is_steady_is_warm_after_two_windows() -> None:
    assert len(calls(repeat(0.01))) == 10


@pytest.mark.parametrize("cold", [12, 30, 60])
def test_a_planted_fall_is_waited_for(cold: int) -> None:
    falling = [0.02 * 0.96**index for index in range(cold)]  # each window is 18 % faster than the one before
    made = calls(chain(falling, repeat(falling[-1])))
    assert cold < len(made) <= cold + 30  # two windows of 20 ms after it


def test_fast_calls_are_warmed_up_for_a_while() -> None:
    made = calls(repeat(1e-4))
    assert 0.04 <= sum(made) < 0.05


def test_what_never_settles_is_bounded() -> None:
    made = calls((0.1 * 0.9**index for index in range(10**6)), max_seconds=0.7)
    assert 0.7 <= sum(made) < 0.8


def test_a_call_longer_than_the_bound_is_made_once() -> None:
    assert calls(repeat(5.0)) == [5.0]


def test_noise_does_not_keep_a_model_cold() -> None:
    random = np.random.default_rng(0)
    lengths = [len(calls(iter(lambda: 0.01 * float(random.lognormal(0, 0.1)), None))) for _ in range(200)]
    assert np.median(lengths) <= 15


def test_windows_are_compared_within_their_scatter() -> None:
    assert is_settled([1.0, 1.1, 0.9], [0.95, 1.0, 0.9])
    assert not is_settled([1.0, 1.01, 0.99], [0.9, 0.91, 0.89])
    assert is_settled([1.0, 1.01, 0.99], [1.5, 1.5, 1.5])
