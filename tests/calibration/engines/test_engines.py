from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from rexport._cpu import this_cpu
from rexport._errors import DataError, RexportError, UnavailableError, UsageError
from rexport.calibration.engines import EngineName, LocalEngine, ProcessEngine, RayEngine, choose_engine
from tests.calibration.engines._works import Squares

_ROOT = Path(__file__).parents[3]
_ENGINES = [
    LocalEngine(threads=1),
    ProcessEngine(workers=1, threads=1),
    pytest.param(ProcessEngine(workers=3, threads=1), marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def _importable_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_ROOT))  # workers get the path of their parent


@pytest.mark.slow
@pytest.mark.parametrize("engine", _ENGINES, ids=["local", "one process", "three processes"])
def test_every_item_is_done_once(engine: LocalEngine | ProcessEngine, tmp_path: Path) -> None:
    done = dict(engine.map(Squares(marks=tmp_path), range(3, 12)))
    assert {index: square for index, (square, _) in done.items()} == {index: (index + 3) ** 2 for index in range(9)}
    workers = {process for _, process in done.values()}
    assert (os.getpid() in workers) == isinstance(engine, LocalEngine)
    assert len(workers) == getattr(engine, "workers", 1)
    assert list(engine.map(Squares(marks=tmp_path), [])) == []


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_its_item_done_again(tmp_path: Path) -> None:
    work = Squares(marks=tmp_path, deadly=frozenset({2, 5}), lives=2)
    done = dict(ProcessEngine(workers=2, threads=1).map(work, range(8)))
    assert {index: square for index, (square, _) in done.items()} == {index: index**2 for index in range(8)}
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.slow
def test_workers_that_are_lost_again_and_again_are_an_error(tmp_path: Path) -> None:
    work = Squares(marks=tmp_path, deadly=frozenset({3}), lives=100)
    with pytest.raises(RexportError, match=r"ended 3 times over part 4 of the work \(exit code -9\).*fewer --workers"):
        dict(ProcessEngine(workers=2, threads=1, retries=2).map(work, range(8)))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
@pytest.mark.parametrize("engine", _ENGINES, ids=["local", "one process", "three processes"])
def test_what_the_work_raises_is_raised(engine: LocalEngine | ProcessEngine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 is refused"):
        dict(engine.map(Squares(marks=tmp_path, refused=4), range(8)))


@pytest.mark.slow
def test_closing_ends_the_processes(tmp_path: Path) -> None:
    with closing(ProcessEngine(workers=2, threads=1).map(Squares(marks=tmp_path), range(100))) as results:
        processes = {process for _, (_, process) in (next(results), next(results))}
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_engines_are_chosen_by_name() -> None:
    cores = this_cpu().cores
    assert choose_engine(EngineName.LOCAL) == LocalEngine(threads=cores)
    assert choose_engine(EngineName.LOCAL, workers=1, threads=3) == LocalEngine(threads=3)
    assert choose_engine(EngineName.PROCESSES) == ProcessEngine(workers=2, threads=max(1, cores // 2))
    assert choose_engine(EngineName.PROCESSES, workers=5, threads=2) == ProcessEngine(workers=5, threads=2)
    assert choose_engine(EngineName.RAY, address="auto") == RayEngine(threads=1, address="auto")


def test_options_of_another_engine_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="pass --engine processes"):
        choose_engine(EngineName.LOCAL, workers=2)
    with pytest.raises(UsageError, match="pass --engine ray"):
        choose_engine(EngineName.PROCESSES, address="auto")


def test_without_ray_its_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[ray\]'"):
        dict(RayEngine(threads=1).map(Squares(marks=tmp_path), [1]))
