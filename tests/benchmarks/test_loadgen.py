"""MLPerf's real LoadGen on real models, for moments."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rexport._errors import RexportError, UnavailableError, UsageError
from rexport.benchmarks.document import Latency, LoadgenResult
from rexport.benchmarks.jobs import Job
from rexport.benchmarks.loadgen import run_loadgen
from rexport.benchmarks.scenarios import Outcome, Scenario, ScenarioRequest, run_job
from rexport.benchmarks.scenarios.loadgen_sut import parse_log, run_under_loadgen
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from tests.benchmarks.conftest import MakeModel

loadgen = pytest.mark.skipif(
    importlib.util.find_spec("mlperf_loadgen") is None, reason="mlcommons-loadgen is not installed"
)


def short(
    path: Path, scenario: Scenario, *, batch: int = 1, side: int = 8, rate: float | None = None, **options: Any
) -> LoadgenResult:
    job = Job(source=Source(path=path), runtime="cpu", shape=(batch, 3, side, side), threads=1)
    return run_loadgen(job, ScenarioRequest(scenario=scenario, **{"seconds": 0.3, **options}), rate=rate)


@pytest.mark.slow
@loadgen
def test_a_single_stream_is_valid_by_its_own_settings_and_no_mlperf_result(make_model: MakeModel) -> None:
    result = short(make_model("m.onnx", size=32), Scenario.SINGLE_STREAM, batch=8, side=32)
    assert (result.valid, result.reasons) == (True, ())
    assert result.queries >= 64
    assert result.percentile == 90
    assert result.latency_ms.p90 is not None
    assert 0 < result.latency_ms.p90 < 1000
    assert result.samples_per_second is not None
    assert "Processed at least 64 queries" in result.early_stopping
    assert "not an MLPerf result: it ran for 0.3 s, where submissions take 600 s" in result.note
    assert json.loads(json.dumps(asdict(result), allow_nan=False))["valid"] is True


@pytest.mark.slow
@loadgen
def test_offline_is_one_query_of_many_samples(make_model: MakeModel) -> None:
    result = short(make_model("m.onnx", size=32), Scenario.OFFLINE, batch=8, side=32)
    assert result.queries == 1
    assert result.latency_ms == Latency()
    assert result.samples_per_second is not None
    assert result.samples_per_second > 0
    assert result.target_per_second is not None
    if not result.valid:  # faster than warm, a run ends before its time
        assert "min duration not satisfied" in result.reasons


@pytest.mark.slow
@loadgen
def test_a_server_that_holds_is_valid_and_one_with_no_chance_is_not(make_model: MakeModel) -> None:
    path = make_model("m.onnx", size=32)
    options: dict[str, Any] = {"batch": 4, "side": 32, "rate": 400.0, "percentile": 90}
    easy = short(path, Scenario.SERVER, latency_bound_ms=50.0, **options)
    assert (easy.valid, easy.reasons) == (True, ())
    assert easy.samples_per_second is not None
    assert easy.samples_per_second < 600  # it can't complete more than arrive
    # one image takes longer than this
    hopeless = short(path, Scenario.SERVER, latency_bound_ms=0.001, **options)
    assert not hopeless.valid
    assert hopeless.reasons[:2] == (
        "the latency at its percentile is above the bound",
        "early stopping not satisfied",
    )
    assert "Reduce target QPS to improve latency." in hopeless.reasons


@loadgen
def test_a_run_that_was_too_short_is_invalid_and_says_min_duration() -> None:
    entries = run_under_loadgen(
        fake_sut(lambda images: None),
        scenario="SingleStream",
        settings={"min_duration_ms": 200, "min_query_count": 10, "max_query_count": 10},
    )
    assert entries["result_validity"] == "INVALID"
    assert entries["result_min_duration_met"] is False
    assert entries["result_query_count"] == 10
    assert any("Max query count reached" in error for error in entries["errors"])


@loadgen
@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_batches_are_no_larger_than_asked_and_every_sample_is_run(scenario: str) -> None:
    sizes: list[int] = []
    entries = run_under_loadgen(
        fake_sut(lambda images: sizes.append(len(images)), batch=4),
        scenario=scenario,
        settings={
            "min_duration_ms": 100,
            "min_query_count": 100,
            "offline_expected_qps": 500,
            "server_target_qps": 2000,
            "server_target_latency_ns": 10**8,
        },
    )
    assert 1 <= min(sizes) <= max(sizes) <= 4
    if scenario == "Offline":
        assert sum(sizes) == entries["effective_samples_per_query"] >= 100
        assert set(sizes[:-1]) == {4}
    else:
        assert sum(sizes) == entries["result_query_count"] >= 100


@loadgen
def test_a_model_that_fails_in_the_middle_ends_the_run_with_its_error() -> None:
    def fail(images: np.ndarray) -> None:
        raise RuntimeError("out of everything")

    with pytest.raises(RuntimeError, match="out of everything"):
        run_under_loadgen(
            fake_sut(fail), scenario="Offline", settings={"min_duration_ms": 50, "offline_expected_qps": 100}
        )


@loadgen
def test_a_process_that_fails_says_so(make_model: MakeModel) -> None:
    with pytest.raises(RexportError, match=r"m\.onnx failed on cpu"):
        short(make_model("m.onnx"), Scenario.OFFLINE, side=9)


@pytest.mark.slow
@loadgen
def test_a_job_runs_loadgen_beside(make_model: MakeModel) -> None:
    job = Job(source=Source(path=make_model("m.onnx")), runtime="cpu", shape=(2, 3, 8, 8), threads=1)
    outcome = run_job(job, ScenarioRequest(scenario=Scenario.OFFLINE, seconds=0.2, loadgen=True))
    assert isinstance(outcome, Outcome), outcome
    assert outcome.loadgen is not None
    assert outcome.row_fields()["loadgen"].scenario == "offline"


@pytest.mark.parametrize(
    ("scenario", "rate", "match"),
    [
        (Scenario.SERVER, None, "takes a rate and a latency bound"),
        (Scenario.OFFLINE, 10.0, "Only LoadGen.s server scenario"),
        (Scenario.SERVER, -1.0, "rate must be above 0"),
        (Scenario.SERVER, float("nan"), "rate must be above 0"),
    ],
)
def test_a_rate_that_makes_no_sense_is_refused(
    make_model: MakeModel, scenario: Scenario, rate: float | None, match: str
) -> None:
    bound = {Scenario.SERVER: 20.0}.get(scenario)
    with pytest.raises(UsageError, match=match):
        short(make_model("m.onnx"), scenario, rate=rate, latency_bound_ms=bound, seconds=10.0)


def test_without_the_package_it_says_what_to_install(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[loadgen\]'"):
        short(make_model("m.onnx"), Scenario.OFFLINE)
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[loadgen\]'"):
        run_under_loadgen(fake_sut(lambda images: None), scenario="Offline", settings={})


def test_the_log_is_read_line_by_line() -> None:
    def line(key: str, value: object, *, is_error: bool = False) -> str:
        return ":::MLLOG " + json.dumps({"key": key, "value": value, "metadata": {"is_error": is_error}})

    text = "\n".join(
        [
            "something else",
            line("result_validity", "VALID"),
            ':::MLLOG {"key": "broken',
            line("error_runtime", "ended early", is_error=True),
            line("result_validity", "INVALID"),
        ]
    )
    assert parse_log(text) == {"result_validity": "INVALID", "errors": ["ended early"]}


def fake_sut(run: Callable[[np.ndarray], None], *, batch: int = 1) -> Any:
    return SimpleNamespace(batch=batch, run_images=run)
