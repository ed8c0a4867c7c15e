"""The scenarios on a model whose times are known exactly, and on real ones in real processes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rexport._errors import UsageError
from rexport.benchmarks.document import Latency, Row, Trial
from rexport.benchmarks.scenarios import (
    Scenario,
    ScenarioRequest,
    ServerResult,
    run_offline,
    run_server,
    run_single_stream,
)
from tests._deep import deep
from tests.benchmarks.scenarios.conftest import FakeMachine

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeMachine = Callable[[Callable[[int], float]], FakeMachine]

SERVICE = 0.010  # seconds


def waits_at_most(wait: float, rate: float, service: float) -> float:
    """Return the share of queries that wait no longer, in an M/D/1 queue (Erlang 1909)."""
    terms = [
        (rate * (k * service - wait)) ** k / math.factorial(k) * math.exp(-rate * (k * service - wait))
        for k in range(math.floor(wait / service) + 1)
    ]
    return (1 - rate * service) * math.fsum(terms)


def highest_md1_rate(bound: float, service: float, share: float) -> float:
    """Return the rate at which ``share`` of the queries of an M/D/1 queue are answered within ``bound``."""
    low, high = 0.0, 1 / service
    for _ in range(60):
        middle = (low + high) / 2
        if waits_at_most(bound - service, middle, service) >= share:
            low = middle
        else:
            high = middle
    return low


def server_request(**options: Any) -> ScenarioRequest:
    return ScenarioRequest(scenario=Scenario.SERVER, **options)


def fake_server(
    machine: FakeMachine,
    *,
    batch: int = 1,
    precision: float = 0.05,
    on_trial: Callable[[Trial], None] | None = None,
    **options: Any,
) -> ServerResult:
    request = server_request(**options)
    return run_server(machine.job.with_batch(batch), request, precision=precision, on_trial=on_trial)


def test_erlangs_formula_is_that_of_pollaczek_and_khinchine_in_the_mean() -> None:
    """The mean wait of M/D/1 is ρ D / (2 (1 − ρ)); the integral of P(W > w) has to give it."""
    rate = 0.6 / SERVICE
    widths = np.linspace(0, 20 * SERVICE, 4001)
    late = [1 - waits_at_most(wait, rate, SERVICE) for wait in widths]
    assert np.trapezoid(late, widths) == pytest.approx(0.6 * SERVICE / (2 * 0.4), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("bound", "percentile"), [(0.025, 90), (0.050, 99), *deep((0.050, 90))])
def test_the_rate_is_that_of_an_md1_queue(fake_machine: MakeMachine, bound: float, percentile: int) -> None:
    exact = highest_md1_rate(bound, SERVICE, percentile / 100)
    result = fake_server(
        fake_machine(lambda images: SERVICE),
        latency_bound_ms=bound * 1e3,
        percentile=percentile,
        seconds=20_000 / exact,
        precision=0.01,
    )
    assert result.rate_per_second is not None
    # Of 20,000 queries some 200 are late at p99, in clusters, and the rate scatters with their number by 2 to 3 %; with
    # three times as many, 24 other seeds gave 0.975 to 1.006 of the rate. What does not hold twice is lowered, so what
    # is found is rather too low.
    assert 0.93 < result.rate_per_second / exact < 1.04
    assert result.one_image_ms == pytest.approx(SERVICE * 1e3)
    assert result.capacity_per_second == pytest.approx(1 / SERVICE)


def test_batches_are_formed_under_load_and_only_then(fake_machine: MakeMachine) -> None:
    """A call takes the same time whatever its batch: eight at a time is eight times the capacity."""
    one = fake_server(fake_machine(lambda images: SERVICE), latency_bound_ms=30)
    eight = fake_server(fake_machine(lambda images: SERVICE), latency_bound_ms=30, batch=8)
    assert one.rate_per_second is not None
    assert eight.rate_per_second is not None
    assert one.rate_per_second < 100 < 4 * 100 < eight.rate_per_second < 8 * 100
    assert one.confirmed is not None
    assert one.confirmed.mean_batch == 1
    assert eight.confirmed is not None
    assert 3 < eight.confirmed.mean_batch <= 8


def test_what_the_result_says_is_what_was_seen(fake_machine: MakeMachine) -> None:
    told: list[Trial] = []
    result = fake_server(fake_machine(lambda images: SERVICE), latency_bound_ms=40, seconds=10, on_trial=told.append)
    assert tuple(told) == result.trials
    last = result.confirmed
    assert last is not None
    assert (last.purpose, last.held, last.queries) == ("confirm", True, len(result.latencies))
    assert last.p99_ms is not None
    assert last.p99_ms <= 40
    late = sum(latency > 0.040 for latency in result.latencies)
    assert late <= 0.01 * len(result.latencies)
    for trial in result.trials:
        assert (trial.p99_ms is None) == trial.stopped == (not trial.held)
        assert trial.queries >= 662 or trial.stopped
    fields = result.row_fields()
    assert fields["images_per_second"] == result.rate_per_second
    assert fields["latency_ms"] == Latency(p50=last.p50_ms, p90=last.p90_ms, p99=last.p99_ms)
    row = replace(Row(model="m.onnx", runtime="cpu", batch=1, threads=1), **fields)
    assert json.loads(json.dumps(row.to_json(), allow_nan=False))["server"]["trials"][-1]["held"] is True


def test_a_slow_model_is_judged_at_p90_and_a_fast_one_at_p99(fake_machine: MakeMachine) -> None:
    slow = fake_server(fake_machine(lambda images: 0.1), latency_bound_ms=400, seconds=10)
    fast = fake_server(fake_machine(lambda images: 0.01), latency_bound_ms=400, seconds=10)
    assert (slow.percentile, fast.percentile) == (90, 99)
    assert slow.confirmed is not None
    assert slow.confirmed.p99_ms is None
    assert slow.confirmed.p90_ms is not None
    assert slow.confirmed.p90_ms <= 400
    # no trial is longer than four times what was asked for, and one service time
    assert max(trial.seconds for trial in (*slow.trials, *fast.trials)) < 40 * 1.3


def test_a_bound_below_one_image_has_no_rate_and_a_sentence(fake_machine: MakeMachine) -> None:
    result = fake_server(fake_machine(lambda images: SERVICE), latency_bound_ms=9)
    assert result.rate_per_second is None
    assert result.confirmed is None
    assert result.latencies == ()
    assert result.reason is not None
    assert "no rate kept p99 within 9 ms" in result.reason
    assert "One image alone takes 10 ms" in result.reason
    assert len(result.trials) == 1
    fields = result.row_fields()
    assert (fields["images_per_second"], fields["latency_ms"].p99, fields["reason"]) == (None, None, result.reason)


@pytest.mark.slow
def test_a_stall_of_the_model_now_and_then_lowers_the_rate(fake_machine: MakeMachine) -> None:
    calls = iter(range(10**9))
    steady = fake_server(fake_machine(lambda images: 0.001), latency_bound_ms=20)
    stalling = fake_server(
        fake_machine(lambda images: 0.060 if next(calls) % 600 == 599 else 0.001), latency_bound_ms=20
    )
    assert steady.rate_per_second is not None
    # a stall is one call in 600, so nothing of a p99 of calls, but at 500 queries/s 30 queries wait for it
    assert (stalling.rate_per_second or 0) < 0.5 * steady.rate_per_second


def test_a_queue_that_grows_is_not_taken_for_one_that_holds(fake_machine: MakeMachine) -> None:
    """With a bound of many calls the last query of a short trial would be in time at any rate."""
    result = fake_server(fake_machine(lambda images: SERVICE), latency_bound_ms=1900, seconds=10)
    assert result.rate_per_second is not None
    assert 0.9 * 100 < result.rate_per_second < 1.06 * 100
    with pytest.raises(UsageError, match=r"takes trials of 60 s.*--seconds 15"):
        fake_server(fake_machine(lambda images: SERVICE), latency_bound_ms=3000, seconds=10)


def test_offline_counts_all_the_time(fake_machine: MakeMachine) -> None:
    machine = fake_machine(lambda images: 0.004 * images)
    result = run_offline(machine.job.with_batch(8), ScenarioRequest(scenario=Scenario.OFFLINE, seconds=1))
    assert result.images_per_second == pytest.approx(250)
    assert set(machine.calls) == {8}
    assert 1 <= result.elapsed < 1.04
    assert [len(block) for block in result.rounds] == [3, 3, 3, 3, 4, 3, 3, 3, 3, 4]
    assert result.row_fields()["scenario"] == "offline"


def test_a_single_stream_has_the_64_queries_of_p90(fake_machine: MakeMachine) -> None:
    machine = fake_machine(lambda images: 0.5)
    request = ScenarioRequest(scenario=Scenario.SINGLE_STREAM, seconds=1)
    result = run_single_stream(machine.job.with_batch(8), request)
    assert len(result.seconds) == 64
    assert set(machine.calls) == {1}
    assert result.latency_ms == {"p50": pytest.approx(500), "p90": pytest.approx(500), "p99": None}
    assert result.images_per_second == pytest.approx(2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        *(({"latency_bound_ms": bound}, "must be above 0 ms") for bound in (0.0, -1.0, math.nan, math.inf)),
        ({"seconds": 0.0}, "must be above 0"),
        ({"seconds": math.nan}, "must be above 0"),
        ({"percentile": 95}, "90 or 99, not 95"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        server_request(**{"latency_bound_ms": 20, **options})


def test_a_precision_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        run_server(FakeMachine.job, server_request(latency_bound_ms=20), precision=0.0)
