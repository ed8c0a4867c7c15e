"""The scenarios on real models in real processes; how fast they are is not for a test to say, so bounds are wide."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rexport._errors import RexportError, UsageError
from rexport.benchmarks.document import Row, Status, Trial
from rexport.benchmarks.jobs import Failure, Job
from rexport.benchmarks.scenarios import (
    Outcome,
    Scenario,
    ScenarioRequest,
    ScenariosInterrupted,
    process,
    run_job,
    run_rows,
    run_server,
)
from rexport.preprocessing import Preprocessing
from rexport.runtimes.source import Source
from tests.benchmarks._processes import becomes, check_end_with_parent, linux

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.conftest import MakeModel
    from tests.benchmarks.scenarios.conftest import FakeMachine

    MakeMachine = Callable[[Callable[[int], float]], FakeMachine]

QUICK = ScenarioRequest(scenario=Scenario.SERVER, latency_bound_ms=40, seconds=0.4)


def job_of(path: Path, *, batch: int = 4, side: int = 8) -> Job:
    return Job(source=Source(path=path), runtime="cpu", shape=(batch, 3, side, side), threads=1)


@pytest.mark.slow
def test_a_real_server(make_model: MakeModel) -> None:
    job = job_of(make_model("m.onnx", size=64), side=64)
    result = run_server(job, replace(QUICK, percentile=90), precision=0.5)
    assert result.rate_per_second is not None, result.reason
    last = result.confirmed
    assert last is not None
    assert last.p90_ms is not None
    assert 0 < last.p90_ms <= 40
    assert min(result.latencies) > 0
    assert last.seconds >= 0.9 * last.queries / last.rate_per_second


@pytest.mark.slow
def test_every_scenario_of_a_job(make_model: MakeModel) -> None:
    source = Source(path=make_model("m.onnx", raw=True))
    job = Job(source=source, runtime="cpu", shape=(2, 8, 8, 3), dtype="uint8", threads=1)
    for scenario in (Scenario.SINGLE_STREAM, Scenario.OFFLINE):
        outcome = run_job(job, ScenarioRequest(scenario=scenario, seconds=0.1))
        assert isinstance(outcome, Outcome), outcome
        fields = outcome.row_fields()
        assert fields["scenario"] == scenario.value
        assert fields["images_per_second"] > 0
        assert fields["loadgen"] is None
    with pytest.raises(UsageError, match="--latency-bound 20"):
        run_job(job, ScenarioRequest(scenario=Scenario.SERVER))


def row_and_job(path: Path, *, side: int = 8) -> tuple[Row, Job]:
    return Row(model=path.name, runtime="cpu", batch=2, threads=1), job_of(path, batch=2, side=side)


@pytest.mark.slow
def test_rows_that_fail_leave_the_others_alone(make_model: MakeModel) -> None:
    path = make_model("m.onnx")
    never = Failure(reason="Not here.", kind="UnavailableError")
    plans = [(row_and_job(path)[0], never), row_and_job(path, side=9), row_and_job(path)]
    rows = run_rows(plans, ScenarioRequest(scenario=Scenario.OFFLINE, seconds=0.1))
    assert [row.status for row in rows] == [Status.UNAVAILABLE, Status.FAILED, Status.OK]
    documents = [json.loads(json.dumps(row.to_json(), allow_nan=False)) for row in rows]
    assert documents[0]["reason"] == "Not here."
    assert documents[0]["images_per_second"] is None
    assert documents[2]["images_per_second"] > 0
    assert documents[2]["scenario"] == "offline"
    assert sum(documents[2]["calls_per_round"]) == len(documents[2]["seconds"])


def test_ctrl_c_keeps_the_rows_that_are_finished(make_model: MakeModel, fake_machine: MakeMachine) -> None:
    fake_machine(lambda images: 0.010)
    seen: list[Trial] = []

    def interrupt(trial: Trial) -> None:
        seen.append(trial)
        if [one.purpose for one in seen].count("confirm") == 1 and trial.purpose == "bracket":
            raise KeyboardInterrupt

    plans = [row_and_job(make_model("m.onnx"), side=1)] * 2
    with pytest.raises(ScenariosInterrupted) as caught:
        run_rows(plans, ScenarioRequest(scenario=Scenario.SERVER, latency_bound_ms=50), on_trial=interrupt)
    (row,) = caught.value.rows
    assert row.to_json()["server"]["rate_per_second"] > 0


def test_from_pixels_on_the_preprocessing_is_part_of_it(make_model: MakeModel) -> None:
    job = replace(job_of(make_model("m.onnx")), shape=(1, 8, 8, 3), dtype="uint8", preprocessing=Preprocessing(size=8))
    outcome = run_job(job, ScenarioRequest(scenario=Scenario.SINGLE_STREAM, seconds=0.05))
    assert isinstance(outcome, Outcome), outcome


@pytest.mark.slow
def test_a_model_that_can_not_run_says_so(make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    network = replace(job_of(tmp_path), source=Source(network="cifar_resnet8"))
    for job, kind, reason in (
        (network, "UnavailableError", "rexport onnx"),
        (job_of(tmp_path / "broken.onnx"), "ModelFileError", "broken.onnx"),
        (job_of(make_model("m.onnx"), side=9), "RexportError", "failed on cpu"),
    ):
        outcome = run_job(job, ScenarioRequest(scenario=Scenario.OFFLINE, seconds=0.1))
        assert isinstance(outcome, Failure)
        assert outcome.kind == kind
        assert reason in outcome.reason


class Watched(process.SutProcess):
    """Remembers the process that was started last."""

    last: process.SutProcess

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        Watched.last = self


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    monkeypatch.setattr(process, "SutProcess", Watched)
    return Watched


def test_a_process_that_dies_is_an_error_and_not_a_hang(make_model: MakeModel, watched: type[Watched]) -> None:
    with pytest.raises(RexportError, match=r"m\.onnx failed on cpu.*SIGKILL"):
        run_server(
            job_of(make_model("m.onnx")), QUICK, on_trial=lambda trial: os.kill(watched.last.pid, signal.SIGKILL)
        )


@pytest.mark.slow
def test_a_process_that_hangs_is_given_up(
    make_model: MakeModel, watched: type[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(trial: Trial) -> None:
        monkeypatch.setattr(process, "_PATIENCE", 0.5)
        os.kill(watched.last.pid, signal.SIGSTOP)

    with pytest.raises(RexportError, match=r"It did not answer for [\d.]+ s \(server\)"):
        run_server(job_of(make_model("m.onnx")), QUICK, on_trial=stop)


@pytest.mark.slow
@linux
def test_after_ctrl_c_no_process_is_left(make_model: MakeModel, watched: type[Watched]) -> None:
    def interrupt(trial: Trial) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_server(job_of(make_model("m.onnx")), QUICK, on_trial=interrupt)
    assert becomes(watched.last.pid, "gone", "Z")


@linux
def test_the_process_ends_in_the_middle_of_a_run_if_its_parent_is_killed(make_model: MakeModel) -> None:
    code = (
        "from pathlib import Path\n"
        "from rexport.benchmarks.jobs import Job\n"
        "from rexport.benchmarks.scenarios import process\n"
        "from rexport.runtimes.source import Source\n"
        f"source = Source(path=Path({str(make_model('m.onnx'))!r}))\n"
        "with process.opened(Job(source=source, runtime='cpu', shape=(1, 3, 8, 8), threads=1)) as sut:\n"
        "    print(sut.pid, flush=True)\n"
        "    sut.request('offline', should_take=60, min_seconds=60)\n"
    )
    check_end_with_parent(code)


@linux
def test_a_process_holds_its_own_runtime_only(make_model: MakeModel) -> None:
    with process.opened(job_of(make_model("m.onnx"))) as sut:
        assert "libtorch" not in Path(f"/proc/{sut.pid}/maps").read_text()
