from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rexport._cpu import this_cpu
from rexport._errors import DataError, RexportError, UnavailableError, UsageError
from rexport.calibration.workers import LocalWorkers, ProcessWorkers, RayWorkers, Workers, choose_workers
from tests.calibration.workers._works import FragileError, Squares, onnxruntime_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parents[3]
_WORKERS = [
    LocalWorkers(threads=1),
    ProcessWorkers(count=1, threads=1),
    pytest.param(ProcessWorkers(count=3, threads=1), marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def _importable_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_ROOT))  # workers get the path of their parent


@pytest.mark.slow
@pytest.mark.parametrize("workers", _WORKERS, ids=["local", "one process", "three processes"])
def test_every_item_is_done_once(workers: Workers, tmp_path: Path) -> None:
    done = dict(workers.map(Squares(marks=tmp_path), range(3, 12)))
    assert {index: square for index, (square, _) in done.items()} == {index: (index + 3) ** 2 for index in range(9)}
    processes = {process for _, process in done.values()}
    assert (os.getpid() in processes) == isinstance(workers, LocalWorkers)
    assert len(processes) == getattr(workers, "count", 1)
    assert list(workers.map(Squares(marks=tmp_path), [])) == []


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_its_item_done_again(tmp_path: Path) -> None:
    work = Squares(marks=tmp_path, deadly=frozenset({2, 5}), lives=2)
    done = dict(ProcessWorkers(count=2, threads=1).map(work, range(8)))
    assert {index: square for index, (square, _) in done.items()} == {index: index**2 for index in range(8)}
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.slow
def test_workers_that_are_lost_again_and_again_are_an_error(tmp_path: Path) -> None:
    work = Squares(marks=tmp_path, deadly=frozenset({3}), lives=100)
    with pytest.raises(RexportError, match=r"ended 3 times over part 4 of the work \(exit code -9\).*fewer --workers"):
        dict(ProcessWorkers(count=2, threads=1, retries=2).map(work, range(8)))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
@pytest.mark.parametrize("workers", _WORKERS, ids=["local", "one process", "three processes"])
def test_what_the_work_raises_is_raised_once(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 is refused"):
        dict(workers.map(Squares(marks=tmp_path, refused=4), range(8)))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("error", "expected"), [(EOFError, EOFError), (FragileError, RuntimeError)])
def test_errors_of_all_kinds_arrive(
    error: type[Exception], expected: type[Exception], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(expected, match="4 is refused"):
        dict(ProcessWorkers(count=1, threads=1).map(Squares(marks=tmp_path, refused=4, error=error), range(8)))
    assert len(list(tmp_path.iterdir())) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("error", [MemoryError, onnxruntime_out_of_memory])
def test_what_had_no_memory_is_done_again(error: Callable[[str], Exception], tmp_path: Path) -> None:
    work = Squares(marks=tmp_path, refused=2, error=error)
    with pytest.raises(RexportError, match=r"ended 2 times over part 3 of the work \(out of memory\)"):
        dict(ProcessWorkers(count=1, threads=1, retries=1).map(work, range(4)))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_closing_ends_the_processes(tmp_path: Path) -> None:
    with closing(ProcessWorkers(count=2, threads=1).map(Squares(marks=tmp_path), range(100))) as results:
        processes = {process for _, (_, process) in (next(results), next(results))}
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ray", RayWorkers(threads=1)),
        ("ray,8", RayWorkers(threads=1, count=8)),
        ("ray:auto", RayWorkers(threads=1, address="auto")),
        ("ray:head:6379,8", RayWorkers(threads=1, count=8, address="head:6379")),
        ("ray://head:10001", RayWorkers(threads=1, address="ray://head:10001")),
        ("ray://[::1]:10001,2", RayWorkers(threads=1, count=2, address="ray://[::1]:10001")),
    ],
)
def test_a_ray_cluster_is_named(text: str, expected: RayWorkers) -> None:
    assert choose_workers(text) == expected


def test_workers_of_this_machine_share_its_cores() -> None:
    cores = this_cpu().cores
    assert choose_workers() == choose_workers("local") == LocalWorkers(threads=cores)
    assert choose_workers("local", threads=3) == LocalWorkers(threads=3)
    assert choose_workers("2") == ProcessWorkers(count=2, threads=max(1, cores // 2))
    assert choose_workers("5", threads=2) == ProcessWorkers(count=5, threads=2)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "²", "processes", "local,2", "ray,0", "ray,x", "ray:", "raymond"]
)
def test_what_names_no_workers_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="choose local, a number of processes such as 4, or ray"):
        choose_workers(text)


def test_without_ray_its_workers_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[ray\]'"):
        dict(RayWorkers(threads=1).map(Squares(marks=tmp_path), [1]))
