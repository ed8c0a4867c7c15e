from __future__ import annotations

from dataclasses import replace

import pytest

from rexport._errors import UsageError
from rexport.benchmarks.document import Latency, LoadgenResult, Row, Trial
from rexport.benchmarks.scenarios import OfflineResult, Outcome, Scenario, ScenarioRequest, ServerResult
from rexport.cli._scenario import parse_scenario, print_rows, say_trial

TRIAL = Trial(
    rate_per_second=123.4,
    queries=1234,
    held=True,
    purpose="confirm",
    stopped=False,
    mean_batch=1.75,
    seconds=10.0,
    p50_ms=6.0,
    p90_ms=12.5,
    p99_ms=19.5,
)
STOPPED = Trial(
    rate_per_second=200.0,
    queries=150,
    held=False,
    purpose="bracket",
    stopped=True,
    mean_batch=4.0,
    seconds=0.8,
    p50_ms=None,
    p90_ms=None,
    p99_ms=None,
)


def outcome(result: OfflineResult | ServerResult, verdict: LoadgenResult | None = None) -> Row:
    row = Row(model="m.onnx", runtime="cpu", batch=8, threads=2)
    return replace(row, **Outcome(result=result, loadgen=verdict).row_fields())


def server(*, rate: float | None = 123.4, percentile: int = 99, reason: str | None = None) -> ServerResult:
    return ServerResult(
        batch=8,
        latency_bound_ms=20,
        percentile=percentile,
        rate_per_second=rate,
        reason=reason,
        one_image_ms=5.0,
        capacity_per_second=170.0,
        trials=(STOPPED, TRIAL),
        latencies=(0.006, 0.0195),
    )


def said(*, valid: bool) -> LoadgenResult:
    return LoadgenResult(
        scenario=Scenario.SERVER,
        valid=valid,
        reasons=() if valid else ("early stopping not satisfied", "Run unsuccessful."),
        samples_per_second=121.0,
        latency_ms=Latency(p50=6.1, p90=12.0, p99=20.5),
        queries=1230,
        min_seconds=10,
        target_per_second=123.4,
        latency_bound_ms=20,
        percentile=99,
        early_stopping="",
        version="6.0",
        note="this is not an MLPerf result",
    )


def test_without_a_scenario_models_take_turns() -> None:
    assert parse_scenario(None, None, None, loadgen=False) is None


def test_what_is_asked_for() -> None:
    assert parse_scenario(Scenario.SERVER, 20, None, loadgen=False) == ScenarioRequest(
        scenario=Scenario.SERVER, latency_bound_ms=20, seconds=10
    )
    assert parse_scenario(Scenario.OFFLINE, None, 3, loadgen=False) == ScenarioRequest(
        scenario=Scenario.OFFLINE, seconds=3
    )


@pytest.mark.parametrize(
    ("scenario", "bound", "seconds", "match"),
    [
        (None, 20.0, None, "--latency-bound belongs to a scenario"),
        (None, None, 5.0, "--seconds belongs to a scenario"),
        (Scenario.OFFLINE, 20.0, None, "--latency-bound belongs to --scenario server"),
        (Scenario.SERVER, None, None, "such as --latency-bound 20"),
        (Scenario.SERVER, 0.0, None, "--latency-bound 0: must be above 0 ms"),
        (Scenario.SERVER, 9000.0, None, "Pass --seconds 45"),
        (Scenario.SINGLE_STREAM, None, 0.0, "--seconds 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    scenario: Scenario | None, bound: float | None, seconds: float | None, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        parse_scenario(scenario, bound, seconds, loadgen=False)


def test_loadgen_is_of_a_scenario() -> None:
    with pytest.raises(UsageError, match="--loadgen belongs to a scenario"):
        parse_scenario(None, None, None, loadgen=True)


def test_the_servers_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([outcome(server())], title="a machine")
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].rstrip() == "a machine; highest query rate with p99 within 20 ms"
    row = next(line for line in lines if "m.onnx" in line).split()
    assert row == ["m.onnx", "cpu", "8", "123.4", "1.8", "6.00", "12.50", "19.50"]
    assert printed.err == ""


def test_no_rate_is_no_number_but_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    result = server(rate=None, percentile=90, reason="no rate kept p90 within 20 ms.")
    print_rows([outcome(result)], title="a machine")
    printed = capsys.readouterr()
    row = next(line for line in printed.out.splitlines() if "m.onnx" in line).split()
    assert row == ["m.onnx", "cpu", "8"]
    assert "m.onnx on cpu: no rate kept p90 within 20 ms." in printed.err
    assert "judged at p90" in printed.err


def test_offline_has_images_per_second(capsys: pytest.CaptureFixture[str]) -> None:
    result = OfflineResult(batch=8, seconds=(0.05,) * 70, elapsed=4.0)
    print_rows([outcome(result)], title="a machine")
    row = next(line for line in capsys.readouterr().out.splitlines() if "m.onnx" in line).split()
    assert row == ["m.onnx", "cpu", "8", "140.0", "50.00", "50.00"]


def test_what_loadgen_says_and_what_it_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [outcome(server(), said(valid=valid)) for valid in (True, False)]
    print_rows(rows, title="a machine")
    printed = capsys.readouterr()
    assert "  VALID" in printed.out
    assert "INVALID" in printed.out
    assert "m.onnx on cpu, INVALID: early stopping not satisfied; Run unsuccessful." in printed.err
    assert printed.err.count("this is not an MLPerf result") == 1


def test_trials_are_told_as_they_end(capsys: pytest.CaptureFixture[str]) -> None:
    say_trial(TRIAL)
    say_trial(STOPPED)
    assert capsys.readouterr().err.splitlines() == [
        "confirm: 123.4 queries/s, 1234 answered, p99 19.50 ms: holds",
        "bracket: 200.0 queries/s, 150 answered, stopped early: does not hold",
    ]
