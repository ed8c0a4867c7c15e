from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport._child import Child
from rexport.benchmarks.affinity import choose_cores, sibling_groups, usable_cores

if TYPE_CHECKING:
    from tests.benchmarks.conftest import MakeModel


@given(st.integers(1, 16), st.integers(1, 2), st.integers(1, 40))
def test_physical_cores_come_first(physical: int, siblings: int, threads: int) -> None:
    groups = [tuple(core + physical * rank for rank in range(siblings)) for core in range(physical)]
    cores = choose_cores(threads, groups)
    assert len(cores) == len(set(cores)) == min(threads, physical * siblings)
    touched = {core % physical for core in cores}
    assert len(touched) == min(threads, physical)  # no two threads share a core while another is free


def test_siblings_are_what_the_system_says(tmp_path: Path) -> None:
    for core, text in enumerate(("0,2", "1,3", "0,2", "1,3", "4-5", "4-5")):
        topology = tmp_path / f"cpu{core}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{text}\n")
    assert sibling_groups(range(6), system=tmp_path) == ((0, 2), (1, 3), (4, 5))
    assert sibling_groups([1, 2, 3, 9], system=tmp_path) == ((1, 3), (2,), (9,))
    assert choose_cores(2, sibling_groups([1, 2, 3], system=tmp_path)) == (1, 2)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="cores are looked up in /proc")
def test_every_thread_of_a_worker_stays_on_its_cores() -> None:
    last = usable_cores()[-1]
    with Child("rexport.benchmarks.worker", cores=[last]) as worker:
        reply = worker.ask("load", runtime="torch", network="cifar_resnet8", threads=2)
        worker.ask("prepare", shape=[1, 3, 32, 32], dtype="float32", seed=0, preprocessing=None)
        worker.ask("run", calls=1)
        threads = list(Path(f"/proc/{worker.pid}/task").iterdir())
        assert {tuple(os.sched_getaffinity(int(thread.name))) for thread in threads} == {(last,)}
    assert reply["affinity"] == [last]
    assert len(threads) > 1


def test_without_a_choice_a_worker_may_go_anywhere(make_model: MakeModel) -> None:
    with Child("rexport.benchmarks.worker") as worker:
        reply = worker.ask("load", runtime="cpu", path=str(make_model("m.onnx")), threads=1)
    assert tuple(reply["affinity"] or ()) == usable_cores()
