"""Choosing between measured candidates, as arithmetic on planted times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.tuning import Bounds, Candidate, Goal, Measured, Variant, choose
from rexport.tuning.deployment_choice import nearest, order

_FLOAT = Variant(path=Path("m.onnx"), precision="fp32", drop_points=0.0)
_INT8 = Variant(path=Path("int8.onnx"), precision="int8", made=True, drop_points=0.4)


def measured(
    seconds: float,
    *,
    batch: int = 1,
    threads: int = 1,
    variant: Variant = _FLOAT,
    noise: float = 0.0,
    seed: int = 0,
    slow: float = 1.0,
) -> Measured:
    """Return 10 rounds of 10 calls of ``seconds`` with normal ``noise``; every fifth takes ``slow`` times that."""
    calls = seconds * (1 + noise * np.random.default_rng(seed).standard_normal((10, 10)))
    calls[:, ::5] *= slow
    candidate = Candidate(variant=variant, runtime="cpu", batch=batch, threads=threads)
    return Measured(candidate=candidate, rounds=tuple(map(tuple, calls.tolist())))


_MEASURED = st.builds(
    measured,
    st.floats(1e-4, 1.0),
    batch=st.sampled_from([1, 2, 4, 8]),
    threads=st.integers(1, 4),
    variant=st.sampled_from([_FLOAT, _INT8, replace(_INT8, drop_points=None)]),
    slow=st.sampled_from([1.0, 3.0]),
)
_SEVERAL = st.lists(_MEASURED, min_size=1, max_size=6)
_BOUNDS = st.builds(Bounds, latency_ms=st.none() | st.floats(0.1, 2000), drop_points=st.none() | st.floats(0, 1))
_GOALS = st.sampled_from(list(Goal))


def value(one: Measured, goal: Goal) -> float:
    return one.images_per_second if goal is Goal.THROUGHPUT else 1 / one.percentile_ms(50)


@given(several=_SEVERAL, bounds=_BOUNDS, goal=_GOALS)
def test_what_is_chosen_keeps_within_the_bounds_and_nothing_is_only_if_none_does(
    several: list[Measured], bounds: Bounds, goal: Goal
) -> None:
    chosen = choose(several, bounds, goal)
    held = [
        one
        for one in several
        if np.percentile(one.seconds, 90) * 1e3 <= (bounds.latency_ms or np.inf)
        and (
            bounds.drop_points is None
            or (one.candidate.variant.drop_points or 9) <= bounds.drop_points
            or one.candidate.variant is _FLOAT
        )
    ]
    if chosen is None:
        assert not held
    else:
        assert chosen in held
        assert value(chosen, goal) == pytest.approx(max(value(one, goal) for one in held), rel=0.051)


@given(several=_SEVERAL, bounds=_BOUNDS, goal=_GOALS, looser=st.floats(1, 10))
def test_a_looser_bound_never_costs_anything(
    several: list[Measured], bounds: Bounds, goal: Goal, looser: float
) -> None:
    """The times have no noise, so that only what is as fast to the bit counts as equal."""
    tight = choose(several, bounds, goal)
    loose = choose(
        several,
        Bounds(
            latency_ms=bounds.latency_ms and looser * bounds.latency_ms,
            drop_points=bounds.drop_points and looser * bounds.drop_points,
        ),
        goal,
    )
    if tight is not None:
        assert loose is not None
        assert value(loose, goal) >= value(tight, goal) * (1 - 1e-8)


@pytest.mark.slow
@given(several=_SEVERAL, one=_MEASURED, bounds=_BOUNDS, goal=_GOALS)
def test_one_more_to_choose_from_never_costs_anything(
    several: list[Measured], one: Measured, bounds: Bounds, goal: Goal
) -> None:
    before, after = choose(several, bounds, goal), choose([*several, one], bounds, goal)
    if before is not None:
        assert after is not None
        assert value(after, goal) >= value(before, goal) * (1 - 1e-8)


@given(several=_SEVERAL, bounds=_BOUNDS, goal=_GOALS, data=st.data())
def test_the_order_that_they_come_in_does_not_matter(
    several: list[Measured], bounds: Bounds, goal: Goal, data: st.DataObject
) -> None:
    chosen = choose(several, bounds, goal)
    again = choose(data.draw(st.permutations(several)), bounds, goal)
    assert (chosen is None) == (again is None)
    if chosen is not None and again is not None:
        assert value(again, goal) == value(chosen, goal)


def test_without_bounds_the_fastest_is_chosen() -> None:
    slow, fast = measured(0.010, batch=1), measured(0.040, batch=8)
    assert choose([slow, fast], Bounds(), Goal.THROUGHPUT) is fast
    assert choose([slow, fast], Bounds(), Goal.LATENCY) is slow


def test_the_bound_is_for_nine_calls_of_ten() -> None:
    """20 % of the calls are slow: the median keeps within the bound, and p90 does not."""
    often = measured(0.010, batch=8, slow=5.0)
    steady = measured(0.012, batch=4)
    assert choose([often, steady], Bounds(latency_ms=20), Goal.THROUGHPUT) is steady
    assert choose([often], Bounds(latency_ms=20), Goal.THROUGHPUT) is None
    assert choose([often, steady], Bounds(latency_ms=60), Goal.THROUGHPUT) is often


def test_a_file_of_unknown_accuracy_keeps_within_no_bound_on_it() -> None:
    unknown = measured(0.001, variant=replace(_INT8, drop_points=None))
    known, exact = measured(0.002, variant=_INT8), measured(0.003)
    assert choose([unknown, known, exact], Bounds(), Goal.THROUGHPUT) is unknown
    assert choose([unknown, known, exact], Bounds(drop_points=0.4), Goal.THROUGHPUT) is known
    assert choose([unknown, known, exact], Bounds(drop_points=0.3), Goal.THROUGHPUT) is exact


@pytest.mark.parametrize(
    ("best", "cheaper"),
    [
        ({"threads": 2}, {"threads": 1}),
        ({"batch": 8}, {"batch": 4}),
        ({"variant": _INT8}, {"variant": _FLOAT}),
        ({"variant": replace(_INT8, regrouped=True)}, {"variant": _INT8}),
        ({"threads": 2, "batch": 1}, {"threads": 1, "batch": 8}),
    ],
)
def test_what_can_not_be_told_apart_goes_to_the_cheaper(best: dict[str, object], cheaper: dict[str, object]) -> None:
    def of(options: dict[str, object], per_image: float, seed: int) -> Measured:
        return measured(per_image * int(str(options.get("batch", 1))), noise=0.1, seed=seed, **options)  # type: ignore[arg-type]

    # 1 % apart and 10 % of noise in a call
    one, other = of(best, 0.0100, 0), of(cheaper, 0.0101, 1)
    assert choose([one, other], Bounds(), Goal.THROUGHPUT) is other
    # 10 % apart: far beyond the noise of a median of 100 calls
    other = of(cheaper, 0.0111, 1)
    assert choose([one, other], Bounds(), Goal.THROUGHPUT) is one


def test_what_is_far_behind_is_no_tie_however_noisy() -> None:
    """In four rounds of ten it is the faster one, so that the interval contains 1, but the median is 20 % behind."""
    one, other = measured(0.010, threads=2), measured(0.012, threads=1)
    other = replace(other, rounds=((0.008,) * 10,) * 4 + ((0.012,) * 10,) * 6)
    assert choose([one, other], Bounds(), Goal.THROUGHPUT) is one


def test_what_is_close_is_no_tie_where_it_is_measured_exactly() -> None:
    one, other = measured(0.0100, threads=2), measured(0.0102, threads=1)
    assert choose([one, other], Bounds(), Goal.THROUGHPUT) is one


@pytest.mark.slow
@given(several=_SEVERAL, bounds=_BOUNDS, goal=_GOALS)
def test_the_order_of_promise_begins_with_what_would_be_chosen(
    several: list[Measured], bounds: Bounds, goal: Goal
) -> None:
    ordered = order(several, bounds, goal)
    assert sorted(map(id, ordered)) == sorted(map(id, several))
    chosen = choose(several, bounds, goal)
    if chosen is not None:
        assert bounds.hold(ordered[0])
        assert value(ordered[0], goal) >= value(chosen, goal)
    held = [bounds.hold(one) for one in ordered]
    assert held == sorted(held, reverse=True)


def test_the_nearest_is_accurate_and_then_the_fastest() -> None:
    unknown = measured(0.001, variant=replace(_INT8, drop_points=None))
    slow, slower = measured(0.003), measured(0.002, slow=3.0)
    assert nearest([unknown, slower, slow], Bounds(latency_ms=0.5, drop_points=1)) is slow
    assert nearest([unknown, slower, slow], Bounds(latency_ms=0.5)) is unknown


@pytest.mark.slow
def test_intervals_hold_the_true_median_about_as_often_as_they_say() -> None:
    """Of 200 measurements 95 % or a few more, which is as close as order statistics of ten rounds come."""
    inside = 0
    for seed in range(200):
        estimate = measured(0.010, noise=0.1, seed=seed).percentile_estimate(50)
        assert estimate.low <= estimate.value <= estimate.high
        inside += estimate.low <= 10.0 <= estimate.high
    assert 180 <= inside < 200


def test_throughput_follows_from_the_median_call() -> None:
    one = measured(0.010, batch=8, noise=0.1)
    call, throughput = one.percentile_estimate(50), one.throughput_estimate()
    assert throughput.value == pytest.approx(one.images_per_second)
    assert throughput.low == pytest.approx(8e3 / call.high)
    assert throughput.high == pytest.approx(8e3 / call.low)
