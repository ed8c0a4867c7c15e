from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport._errors import GateError, InputError, UsageError
from rexport.benchmarks.reports import Verdict, compare, require_same_machine

MACHINE = {"cpu": "A", "architecture": "x86_64", "cores": 2, "int8": "VNNI", "packages": {"onnxruntime": "1.31.1"}}


def row(typical: float = 0.01, *, noise: float = 0.01, seed: int = 0, **keys: Any) -> dict[str, Any]:
    """A row of 5 launches of 4 rounds of 6 calls, whose times scatter by ``noise``."""
    times = typical * np.exp(np.random.default_rng(seed).normal(0, noise, 120))
    base = {"model": "nets/m.onnx", "runtime": "cpu", "batch": 8, "threads": 2, "status": "ok", "reason": None}
    raw = {"seconds": times.tolist(), "calls_per_round": [6] * 20, "rounds_per_launch": [4] * 5}
    return {**base, **raw, **keys}


def document(*rows: dict[str, Any], **machine: Any) -> dict[str, Any]:
    return {"schema": "rexport.bench/1", "machine": {**MACHINE, **machine}, "rows": list(rows)}


def test_the_same_run_has_not_changed(sample: dict[str, Any]) -> None:
    changes = compare(sample, sample, 0)
    assert changes.rows
    assert {change.verdict for change in changes.rows} == {Verdict.SAME}
    assert all(change.ratio == pytest.approx(1) for change in changes.rows)
    assert (changes.machine, changes.versions, changes.broken, changes.gone, changes.appeared) == ((), (), (), (), ())
    changes.require()


@settings(deadline=None)
@given(st.floats(0.2, 5.0))
def test_a_planted_ratio_is_found_exactly(factor: float) -> None:
    old = row()
    new = {**old, "seconds": [second / factor for second in old["seconds"]]}
    (change,) = compare(document(old), document(new)).rows
    assert change.ratio == pytest.approx(factor)
    assert change.interval is not None
    assert change.interval[0] <= change.ratio <= change.interval[1]


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, Verdict.FASTER), (0.9, Verdict.SLOWER), (1.0, Verdict.SAME)])
def test_what_is_beyond_noise_is_said(factor: float, verdict: Verdict) -> None:
    (change,) = compare(document(row(seed=1)), document(row(0.01 / factor, seed=2))).rows
    assert change.verdict is verdict


def test_runs_of_the_same_thing_differ_beyond_noise_in_about_one_of_twenty() -> None:
    # launches scatter by 1.5 %, rounds by 2 %: what two runs of one file do on a real machine
    generator = np.random.default_rng(0)

    def noisy() -> dict[str, Any]:
        launches = np.repeat(generator.normal(0, 0.015, 5), 4)
        rounds = np.repeat(launches + generator.normal(0, 0.02, 20), 6)
        return row() | {"seconds": (0.01 * np.exp(rounds)).tolist()}

    pairs = [compare(document(noisy()), document(noisy())).rows[0].verdict for _ in range(200)]
    # 5 % of 200 is 10; a fair coin of 5 % gives more than 20 with a probability of 0.1 %
    assert sum(verdict is not Verdict.SAME for verdict in pairs) <= 20


def test_a_regression_past_the_bound_fails() -> None:
    old, new = document(row(seed=1)), document(row(0.0115, seed=2))
    changes = compare(old, new, 5)
    assert len(changes.regressions) == 1
    with pytest.raises(
        GateError, match=r"Slower by more than 5 %: m\.onnx on cpu, batch 8, 2 threads: 0\.8\d × \("
    ) as info:
        changes.require()
    assert info.value.exit_code == 4
    compare(old, new, 20).require()
    compare(old, new).require()
    compare(new, old, 0).require()


def test_noise_is_no_regression() -> None:
    changes = compare(document(row(noise=0.3, seed=1)), document(row(0.0105, noise=0.3, seed=2)), 0)
    assert changes.rows[0].ratio < 1
    changes.require()


def test_what_no_longer_runs_fails() -> None:
    failed = row(
        status="failed", reason="It did not answer for 120 s.", seconds=[], calls_per_round=[], rounds_per_launch=[]
    )
    with pytest.raises(GateError, match=r"no longer does: .*did not answer"):
        compare(document(row()), document(failed), 5).require()
    with pytest.raises(GateError, match="outputs are wrong now"):
        compare(document(row()), document(row(wrong=True)), 5).require()
    compare(document(row(wrong=True)), document(row(wrong=True)), 5).require()


def test_another_machine_is_named_and_no_bound_is_held_to_it() -> None:
    old, new = document(row(seed=1), cpu="B", cores=4), document(row(0.02, seed=2))
    changes = compare(old, new)
    assert changes.machine == ("the processor was B and is A", "the number of cores was 4 and is 2")
    assert any(sentence.startswith("ANOTHER MACHINE") for sentence in changes.sentences)
    changes.require()
    with pytest.raises(InputError, match=r"another machine \(the processor was B and is A"):
        compare(old, new, 5).require()
    with pytest.raises(InputError, match="another machine"):
        require_same_machine(old, {**MACHINE})
    require_same_machine(new, {**MACHINE})


def test_other_versions_are_named_and_compared() -> None:
    old = document(row(seed=1), packages={"onnxruntime": "1.30.0", "openvino": "2026.0"}, python="3.11")
    changes = compare(old, document(row(seed=2), python="3.12"), 5)
    assert changes.machine == ()
    assert changes.versions == (
        "python was 3.11 and is 3.12",
        "onnxruntime was 1.30.0 and is 1.31.1",
        "openvino was 2026.0 and is not there",
    )
    changes.require()


def test_rows_that_came_and_went_are_named() -> None:
    old = document(row(), row(batch=1), row(runtime="openvino"))
    new = document(row(), row(threads=1), row(runtime="torch", status="unavailable", reason="Not here."))
    changes = compare(old, new)
    assert [str(key) for key in changes.gone] == [
        "m.onnx on cpu, batch 1, 2 threads",
        "m.onnx on openvino, batch 8, 2 threads",
    ]
    assert [str(key) for key in changes.appeared] == ["m.onnx on cpu, batch 8, 1 thread"]
    assert any("Only in the old run: m.onnx on cpu, batch 1" in sentence for sentence in changes.sentences)


def test_files_are_matched_by_name_and_by_path_where_names_are_not_enough() -> None:
    assert len(compare(document(row(model="a/m.onnx")), document(row(model="b/m.onnx"))).rows) == 1
    two = document(row(model="a/m.onnx"), row(model="b/m.onnx"))
    assert [change.key.model for change in compare(two, two).rows] == ["a/m.onnx", "b/m.onnx"]
    one = document(row(model="b/m.onnx"))
    assert [change.key.model for change in compare(two, one).rows] == ["b/m.onnx"]
    assert [change.key.model for change in compare(one, two).rows] == ["b/m.onnx"]


def test_one_factor_for_all_rows_points_at_the_machine() -> None:
    slower = [row(0.0115, seed=seed, batch=seed) for seed in (1, 2, 3)]
    old = document(*(row(seed=seed + 10, batch=seed) for seed in (1, 2, 3)))
    changes = compare(old, document(*slower))
    assert changes.common_change is not None
    assert any("look for its cause in the machine" in sentence for sentence in changes.sentences)
    assert compare(old, document(slower[0], *old["rows"][1:])).common_change is None


def test_without_raw_times_nothing_is_beyond_noise() -> None:
    bare = row(seconds=[], calls_per_round=[], rounds_per_launch=[], images_per_second=100.0)
    (change,) = compare(document(bare), document({**bare, "images_per_second": 50.0})).rows
    assert (change.ratio, change.interval, change.verdict) == (0.5, None, Verdict.UNKNOWN)
    with pytest.raises(InputError, match="nothing to hold for"):
        compare(document(bare), document(bare), 5).require()
    with pytest.raises(InputError, match="nothing to hold for"):
        compare(document(row()), document(row(batch=1)), 5).require()


def test_servers_are_compared_by_the_rate_that_held() -> None:
    old = row(scenario="server", server={"rate_per_second": 200.0})
    new = row(scenario="server", server={"rate_per_second": 150.0}, seed=3)
    (change,) = compare(document(old), document(new)).rows
    assert (change.ratio, change.verdict) == (0.75, Verdict.UNKNOWN)
    assert compare(document(old), document(row(scenario="server", server=None))).rows == ()


def test_a_run_of_single_launches_says_so() -> None:
    single = row(rounds_per_launch=None)
    assert any("started only once" in sentence for sentence in compare(document(single), document(single)).sentences)
    assert not any("started only once" in sentence for sentence in compare(document(row()), document(row())).sentences)


@pytest.mark.parametrize("percent", [-1, 100, float("nan"), float("inf")])
def test_a_bound_that_makes_no_sense_is_refused(percent: float) -> None:
    with pytest.raises(UsageError, match="a percentage from 0 to below 100"):
        compare(document(), document(), percent)


def test_the_changes_are_a_document(sample: dict[str, Any]) -> None:
    slow = copy.deepcopy(sample)
    slow["rows"][0]["seconds"] = [2 * second for second in slow["rows"][0]["seconds"]]
    changed = compare(sample, slow, 5).to_json()
    assert changed["rows"][0]["regression"] is True
    assert [entry["regression"] for entry in changed["rows"][1:]] == [False] * (len(changed["rows"]) - 1)
    assert changed["rows"][0]["ratio"] == pytest.approx(0.5)
