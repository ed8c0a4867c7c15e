"""The search, with times that are planted and a clock that goes by them; and once for real."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from rexport._errors import ModelFileError, UsageError
from rexport.benchmarks.interleave import Failure, Job, Timing
from rexport.model_file import save
from rexport.tuning import Bounds, Candidate, Goal, Measured, SearchResult, Variant, search_deployment
from tests._graphs import convolution, graph

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_WEIGHTS = {"w": convolution(4, 3)}


@dataclass
class Planted:
    """What measures instead of processes: ``seconds`` says how long a job's call takes, or why it fails."""

    seconds: Callable[[Job], float | str]
    now: float = 0.0
    groups: list[list[Job]] = field(default_factory=list)

    def measure(
        self, jobs: Sequence[Job], *, min_seconds: float, min_calls: int, progress: object
    ) -> list[Timing | Failure]:
        self.groups.append(list(jobs))
        outcomes: list[Timing | Failure] = []
        for job in jobs:
            second = self.seconds(job)
            if isinstance(second, str):
                outcomes.append(Failure(reason=second, kind="Died"))
                continue
            calls = max(min_calls, 10)
            self.now += max(min_seconds, calls * second)
            outcomes.append(Timing(rounds=((second,),) * calls, peak_memory_mib=None))
        return outcomes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save(graph("y = Conv(x, w)", _WEIGHTS), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Job], float | str]], Planted]:
    def do(seconds: Callable[[Job], float | str]) -> Planted:
        planted = Planted(seconds)
        monkeypatch.setattr("rexport.tuning.deployment.measure", planted.measure)
        monkeypatch.setattr("rexport.tuning.deployment.monotonic", lambda: planted.now)
        return planted

    return do


def grid(
    *paths: Path,
    batches: Sequence[int] = (1, 2, 4, 8, 16),
    threads: Sequence[int] = (1, 2),
    on: str = "cpu",
    **variant: Any,
) -> list[Candidate]:
    return [
        Candidate(variant=Variant(path=path, precision="fp32", **variant), runtime=runtime, batch=batch, threads=count)
        for path in paths
        for runtime in on.split(",")
        for batch in batches
        for count in threads
    ]


def search(candidates: Sequence[Candidate], bounds: Bounds | None = None, **options: Any) -> SearchResult:
    return search_deployment(candidates, bounds=bounds or Bounds(), **options)


def _batch_and_threads(measured: Measured | None) -> tuple[int, int]:
    assert measured is not None
    return measured.candidate.batch, measured.candidate.threads


def usual(job: Job) -> float:
    """A call costs a fixed time and some for each image; a second thread makes it 1.6 times as fast."""
    return (0.004 + 0.010 * job.shape[0]) / (1.6 if job.threads == 2 else 1.0)


def test_the_best_of_many_is_found_in_time(file: Path, plant: Any) -> None:
    planted = plant(usual)
    found = search(grid(file, on="cpu,openvino"), seconds=60)
    assert _batch_and_threads(found.chosen) == (16, 2)
    assert found.nearest is None
    assert all(trial.measured is not None and trial.reason is None for trial in found.trials)
    assert sum(trial.is_finalist for trial in found.trials) == 4
    assert found.seconds == planted.now < 1.2 * 60
    assert max(map(len, planted.groups)) <= 6  # models in memory at once
    assert len(planted.groups[-1]) == 4
    stages = [[stage for stage, _ in trial.stages] for trial in found.trials]
    assert sorted(map(len, stages)) == [1] * 10 + [2] * 6 + [3] * 4  # the worse half is looked at once


def test_every_time_is_kept(file: Path, plant: Any) -> None:
    plant(usual)
    found = search(grid(file), seconds=30)
    for trial in found.trials:
        assert trial.measured is not None
        assert trial.stages[0][0] == "first look"
        assert trial.stages[-1][1] == trial.measured.rounds


def test_a_bound_is_kept_and_what_is_beyond_it_for_sure_is_not_measured(file: Path, plant: Any) -> None:
    plant(usual)
    found = search(grid(file), Bounds(latency_ms=30), seconds=30)
    # 4 images on 2 threads take 27.5 ms, 2 on 1 thread 24 ms
    assert _batch_and_threads(found.chosen) == (4, 2)
    reasons = {(trial.candidate.batch, trial.candidate.threads): trial.reason for trial in found.trials if trial.reason}
    assert reasons == {
        (8, 1): "Batch 4 already takes longer than 30 ms.",
        (16, 1): "Batch 4 already takes longer than 30 ms.",
        (16, 2): "Batch 8 already takes longer than 30 ms.",
    }


def test_for_latency_the_shortest_call_is_found(file: Path, plant: Any) -> None:
    plant(usual)
    found = search(grid(file), goal=Goal.LATENCY, seconds=30)
    assert _batch_and_threads(found.chosen) == (1, 2)


def test_where_nothing_keeps_within_the_bound_the_nearest_is_told(file: Path, plant: Any) -> None:
    plant(usual)
    found = search(grid(file), Bounds(latency_ms=1), seconds=30)
    assert found.chosen is None
    assert _batch_and_threads(found.nearest) == (1, 2)


def test_what_fails_is_listed_and_the_others_go_on(file: Path, plant: Any) -> None:
    plant(lambda job: "It died." if job.threads == 2 else usual(job))
    found = search(grid(file), seconds=30)
    assert found.chosen is not None
    assert found.chosen.candidate.threads == 1
    assert [trial.reason for trial in found.trials if trial.candidate.threads == 2] == ["It died."] * 5


def test_where_all_fail_nothing_is_chosen_and_nothing_is_near(file: Path, plant: Any) -> None:
    plant(lambda job: "It died.")
    found = search(grid(file), seconds=30)
    assert (found.chosen, found.nearest) == (None, None)
    assert {trial.reason for trial in found.trials} == {"It died."}


def test_a_finalist_that_fails_leaves_the_others(file: Path, plant: Any) -> None:
    seen: list[Job] = []

    def fails_later(job: Job) -> float | str:
        seen.append(job)
        best = (job.shape[0], job.threads) == (16, 2)
        return "It died." if best and seen.count(job) == 2 else usual(job)

    plant(fails_later)
    found = search(grid(file), seconds=30)
    assert _batch_and_threads(found.chosen) == (8, 2)
    (failed,) = (trial for trial in found.trials if trial.reason)
    assert (failed.measured, len(failed.stages)) == (None, 1)  # what was measured before is kept


def test_where_the_last_four_turn_out_too_slow_the_next_are_tried(file: Path, plant: Any) -> None:
    """At the first look nine of ten keep within the bound; when measured again, those on two threads do not."""
    seen: list[Job] = []

    def slows_down(job: Job) -> float:
        seen.append(job)
        return usual(job) / 20 * (20 if job.threads == 2 and seen.count(job) > 1 else 1)

    plant(slows_down)
    found = search(grid(file), Bounds(latency_ms=6), seconds=60)
    assert found.chosen is not None
    assert found.chosen.candidate.threads == 1
    assert sum(trial.is_finalist for trial in found.trials) > 4


def test_what_there_is_no_time_for_says_so(file: Path, plant: Any) -> None:
    planted = plant(lambda job: 0.5)
    found = search(grid(file, on="cpu,openvino"), seconds=10)
    late = [
        trial for trial in found.trials if trial.reason == "Time was up before it was measured; give more --seconds."
    ]
    assert len(late) == 14  # of 20, 6 being the first group
    assert found.chosen is not None
    # 6 looks of 10 calls and the last round's 4 × 10, of half a second each
    assert planted.now == pytest.approx(50)


def test_what_loses_too_much_is_never_run(file: Path, plant: Any) -> None:
    planted = plant(usual)
    candidates = grid(file, drop_points=0.0, batches=[1]) + grid(file, drop_points=0.7, batches=[2])
    found = search(candidates, Bounds(drop_points=0.5), seconds=30)
    assert {job.shape[0] for group in planted.groups for job in group} == {1}
    assert found.trials[-1].reason == "It loses 0.70 points of top-1 (limit 0.5 points)."


def test_a_file_of_one_batch_is_run_at_that(tmp_path: Path, plant: Any) -> None:
    path = tmp_path / "m.onnx"
    save(graph("y = Conv(x, w)", _WEIGHTS, inputs="float[4, 3, 16, 16] x"), path)
    plant(usual)
    found = search(grid(path), seconds=30)
    assert found.chosen is not None
    assert found.chosen.candidate.batch == 4
    reasons = {trial.reason for trial in found.trials if trial.candidate.batch != 4}
    assert reasons == {"The file takes batches of 4 only; export it with `--batch dynamic`."}


def test_jobs_have_the_pictures_that_the_file_takes(tmp_path: Path, plant: Any) -> None:
    raw = graph(
        "f = Cast<to = 1>(x) t = Transpose<perm = [0, 3, 1, 2]>(f) y = Conv(t, w)",
        _WEIGHTS,
        inputs="uint8[N, 20, 20, 3] x",
    )
    save(raw, tmp_path / "raw.onnx")
    save(graph("y = Conv(x, w)", _WEIGHTS), tmp_path / "m.onnx")
    planted = plant(usual)
    search(grid(tmp_path / "raw.onnx", tmp_path / "m.onnx", batches=[2], threads=[1]), seconds=10)
    jobs = {job.source.path: (job.shape, job.dtype) for job in planted.groups[-1]}
    assert jobs == {
        tmp_path / "raw.onnx": ((2, 20, 20, 3), "uint8"),
        tmp_path / "m.onnx": ((2, 3, 16, 16), "float32"),
    }


@pytest.mark.parametrize(
    ("candidates", "options", "words"),
    [
        ({"batches": []}, {}, "nothing to measure"),
        ({"batches": [0]}, {}, "must be at least 1"),
        ({"threads": [0]}, {}, "must be at least 1"),
        ({}, {"seconds": 0.0}, "above 0 seconds"),
        ({}, {"seconds": float("nan")}, "above 0 seconds"),
        ({}, {"bounds": Bounds(latency_ms=0)}, "above 0 ms"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    file: Path, candidates: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        search_deployment(grid(file, **candidates), **{"bounds": Bounds(), **options})


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"m\.onnx"):
        search(grid(tmp_path / "m.onnx"))


@pytest.mark.slow
def test_for_real_more_images_a_call_are_more_images_a_second(tmp_path: Path) -> None:
    """A network of microseconds, whose calls cost more than its images: batch 64 has to beat batch 1."""
    save(graph("a = Relu(x) y = GlobalAveragePool(a)"), tmp_path / "m.onnx")
    found = search(grid(tmp_path / "m.onnx", batches=[1, 64], threads=[1]), seconds=1)
    assert found.chosen is not None
    assert found.chosen.candidate.batch == 64
    assert len(found.chosen.seconds) >= 64
