from __future__ import annotations

import json
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks import BenchResult, Row, Status, machine_facts
from rexport.benchmarks.results import compare_with_first, latency_percentiles, speedup, timed

seconds = st.floats(1e-5, 10.0)
calls = st.lists(seconds, min_size=1, max_size=40)
rounds = st.lists(calls, min_size=1, max_size=12)


def row(*blocks: tuple[float, ...], batch: int = 1, model: str = "m.onnx") -> Row:
    bare = Row(model=model, runtime="cpu", batch=batch, threads=2)
    return timed(bare, blocks) if blocks else bare


@given(calls)
def test_the_middle_percentile_is_the_median(times: list[float]) -> None:
    assert latency_percentiles(times)["p50"] == pytest.approx(median(times) * 1e3)


def test_percentiles_of_known_times() -> None:
    p = latency_percentiles([n / 1000 for n in range(1001)])  # 0 to 1000 ms
    assert p == {"p50": pytest.approx(500), "p90": pytest.approx(900), "p99": pytest.approx(990)}


@pytest.mark.parametrize(
    ("count", "given_percentiles"),
    [
        (0, []),
        (1, ["p50"]),
        (63, ["p50"]),
        (64, ["p50", "p90"]),
        (661, ["p50", "p90"]),
        (662, ["p50", "p90", "p99"]),
    ],
)
def test_too_few_calls_leave_percentiles_out(count: int, given_percentiles: list[str]) -> None:
    percentiles = latency_percentiles([0.1] * count)
    assert [name for name, value in percentiles.items() if value is not None] == given_percentiles


@given(rounds, st.floats(0.1, 10))
def test_a_planted_ratio_is_found_exactly(times: list[list[float]], factor: float) -> None:
    slower = [[factor * t for t in block] for block in times]
    ratio, (low, high) = speedup(times, slower)
    assert ratio == pytest.approx(1 / factor)
    assert (low, high) == (pytest.approx(1 / factor), pytest.approx(1 / factor))


@given(st.lists(st.floats(0.2, 5.0), min_size=10, max_size=20))
def test_drift_that_hits_both_rows_does_not_hide_a_slow_down(drift: list[float]) -> None:
    noise = [0.97, 1.0, 1.03, 1.01, 0.99]
    first = [[0.010 * d * n for n in noise] for d in drift]
    second = [[0.020 * d * n * (1.02 if i % 2 else 0.98) for n in noise] for i, d in enumerate(drift)]
    ratio, (low, high) = speedup(first, second)
    assert ratio == pytest.approx(0.5, rel=0.03)
    assert 0.48 < low <= high < 0.52


def test_launches_that_differ_widen_the_interval() -> None:
    """Rounds of a process agree with each other to 1 %, and the processes to 5 %."""
    first = [[1.0, 1.0]] * 20
    second = [[(1 + 0.05 * (index // 4 - 2)) * (1 + 0.01 * (index % 4)), 1.0] for index in range(20)]
    second = [[block[0], block[0]] for block in second]
    ratio, (low, high) = speedup(first, second, launches=[4] * 5)
    _, (a, b) = speedup(first, second)
    assert low < a < ratio < b < high
    assert high - low > 0.15  # t(4) = 2.776 times 8 % over the root of 5, to both sides


@pytest.mark.parametrize("second", [[[1.0]], []])
def test_rounds_that_are_not_pairs_are_refused(second: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"zip|no rounds"):
        speedup([[1.0], [1.0]] if second else [], second)


def test_throughput_is_the_batch_over_the_median() -> None:
    assert row((0.1, 0.2, 0.9), batch=8).images_per_second == pytest.approx(40)
    assert row().images_per_second is None


@pytest.mark.slow
@given(rounds.filter(lambda blocks: len(blocks) > 1), st.integers(1, 64))
def test_the_interval_of_the_speed_holds_the_speed(times: list[list[float]], batch: int) -> None:
    half = len(times) // 2
    measured = timed(row(batch=batch), times, launches=(half, len(times) - half))
    low, high = measured.images_per_second_interval or (0, 0)
    assert 0 < low <= (measured.images_per_second or 0) <= high


def test_the_interval_of_the_speed_is_that_of_its_rounds() -> None:
    times = [(second,) for second in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
    assert row(*times).images_per_second_interval == (pytest.approx(1 / 0.9), pytest.approx(1 / 0.2))
    assert row().images_per_second_interval is None


def test_rows_are_compared_within_their_batch_size() -> None:
    failed = Row(model="x", runtime="cpu", batch=8, threads=2, status=Status.FAILED, reason="It did not load.")
    rows = compare_with_first([row((0.2,)), failed, row((0.4,), batch=8), row((0.1,)), row((0.1,), batch=8)])
    assert [r.speedup for r in rows] == [1.0, None, 1.0, pytest.approx(2), pytest.approx(4)]


def test_the_document_has_the_keys_that_others_rely_on() -> None:
    measured, failed = (
        row((0.1, 0.2), (0.3,)),
        Row(model="x", runtime="cpu", batch=8, threads=2, status=Status.UNAVAILABLE, reason="Not here."),
    )
    result = BenchResult(machine=machine_facts(), rows=compare_with_first([measured, failed]))
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["schema"] == "rexport.bench/1"
    assert set(document) == {"schema", "machine", "rows"}
    for entry in document["rows"]:
        assert list(entry) == [
            "model", "runtime", "batch", "threads", "status", "reason", "images_per_second",
            "images_per_second_interval", "latency_ms", "speedup", "speedup_interval", "peak_memory_mib",
            "load_seconds", "first_call_seconds", "warm_up_calls", "affinity", "phases_ms", "agreement", "sqnr_db",
            "wrong", "top1", "flags", "seconds", "calls_per_round", "rounds_per_launch", "scenario", "server",
            "loadgen", "macs", "gmacs_per_second", "share_of_peak",
        ]  # fmt: skip
        assert set(entry["latency_ms"]) == {"p50", "p90", "p99"}
    good, bad = document["rows"]
    assert (good["status"], good["seconds"], good["calls_per_round"]) == ("ok", [0.1, 0.2, 0.3], [2, 1])
    assert (bad["status"], bad["seconds"], bad["speedup"]) == ("unavailable", [], None)
    assert result.measured == (result.rows[0],)
