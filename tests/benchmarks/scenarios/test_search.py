from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks.scenarios.search import highest_rate


@dataclass(frozen=True)
class Tried:
    rate: float
    purpose: str
    held: bool


@given(st.floats(1, 1e4), st.floats(0.1, 3), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_threshold_is_found_from_below_and_from_above(threshold: float, start: float, precision: float) -> None:
    rate, trials = highest_rate(
        lambda rate, purpose: Tried(rate, purpose, rate <= threshold),
        start=start * threshold,
        lowest=threshold / 1000,
        precision=precision,
    )
    assert rate is not None
    assert threshold / (1 + precision) <= rate <= threshold
    assert trials[-1] == Tried(rate, "confirm", True)
    assert len(trials) <= 20
    # bracket, then bisect, then confirm; never a rate again but to confirm it
    order = [("bracket", "bisect", "confirm").index(trial.purpose) for trial in trials]
    assert order == sorted(order)
    searched = [trial.rate for trial in trials if trial.purpose != "confirm"]
    assert len(set(searched)) == len(searched)


def test_nothing_is_said_where_not_even_the_lowest_holds() -> None:
    rate, trials = highest_rate(lambda rate, purpose: Tried(rate, purpose, False), start=100, lowest=7)
    assert rate is None
    assert trials[-1].rate == 7
    assert [trial.rate for trial in trials] == sorted((trial.rate for trial in trials), reverse=True)


def test_the_lowest_is_reached_however_far_it_is() -> None:
    rate, trials = highest_rate(lambda rate, purpose: Tried(rate, purpose, rate <= 1e-4), start=1e6, lowest=1e-4)
    assert rate == pytest.approx(1e-4, rel=0.05)
    assert trials[-1].rate >= 1e-4


def test_below_the_lowest_nothing_is_tried() -> None:
    rate, trials = highest_rate(lambda rate, purpose: Tried(rate, purpose, rate < 30), start=1, lowest=20)
    assert rate is not None
    assert 30 / 1.05 <= rate < 30
    assert min(trial.rate for trial in trials) == 20


def test_a_rate_that_does_not_hold_again_gives_way_to_lower_ones() -> None:
    rate, trials = highest_rate(
        lambda rate, purpose: Tried(rate, purpose, rate <= (80 if purpose == "confirm" else 100)), start=50, lowest=1
    )
    assert rate is not None
    assert rate <= 80
    confirming = [trial for trial in trials if trial.purpose == "confirm"]
    assert [trial.held for trial in confirming] == [False] * (len(confirming) - 1) + [True]
    # steps double, so it takes few, and the last one is 20 % at most
    assert len(confirming) <= 4
    assert rate > 80 / 1.2


def test_a_rate_that_never_holds_again_is_none() -> None:
    rate, trials = highest_rate(
        lambda rate, purpose: Tried(rate, purpose, purpose != "confirm" and rate <= 100), start=50, lowest=40
    )
    assert rate is None
    assert trials[-1] == Tried(40, "confirm", False)


def test_what_holds_at_every_rate_comes_to_an_end() -> None:
    rate, trials = highest_rate(lambda rate, purpose: Tried(rate, purpose, True), start=50, lowest=40)
    assert rate == pytest.approx(max(trial.rate for trial in trials))
    assert 50 * 100 <= max(trial.rate for trial in trials) < 50 * 100 * 1.25
