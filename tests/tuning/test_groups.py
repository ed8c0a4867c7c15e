from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport._errors import UnavailableError, UsageError
from rexport.benchmarks.interleave import Failure
from rexport.calibration import calibrate
from rexport.passes import fuse
from rexport.passes.regroup import groups_of
from rexport.quantization import X86, quantize
from rexport.tuning import Comparison, GroupForm, Timings, regroup
from tests._graphs import convolution, graph, images, run
from tests.tuning.test_conv_layer import BODY, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import onnx_ir as ir


def int8() -> ir.Model:
    model = graph(BODY, WEIGHTS, outputs="float[N, 5] y")
    target = X86.with_reduced_range()  # without VNNI, larger sums saturate, each order its own way
    return quantize(model, calibrate(model, [images(16)]), target=target).model


def groups(model: ir.Model) -> list[int]:
    return [groups_of(node) for node in model.graph if node.op_type == "Conv"]


def equal(model: ir.Model, other: ir.Model) -> bool:
    pictures = images(4, seed=3)
    return all(map(np.array_equal, run(model, pictures), run(other, pictures)))


def measured(monkeypatch: pytest.MonkeyPatch, times: dict[str, float], *, speedup: float) -> list[str]:
    """Let layers take ``times`` by their form, 9 s if not given, and return the list of layers that are measured.

    The whole model is ``speedup`` times as fast.
    """
    asked: list[str] = []

    def seconds(layer: object, forms: Iterable[GroupForm], conditions: object) -> dict[GroupForm, float]:
        asked.append(str(layer))
        return {form: times.get(str(form), 9.0) for form in forms}

    def compare(model: object, changed: object, conditions: object, *, progress: object) -> Comparison:
        return Comparison(speedup=speedup, interval=(speedup - 0.05, speedup + 0.05))

    monkeypatch.setattr("rexport.tuning.groups._seconds", seconds)
    monkeypatch.setattr("rexport.tuning.groups.compare", compare)
    return asked


def test_each_layer_gets_its_fastest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured(monkeypatch, {"1": 3.0, "2": 1.0, "4": 2.0}, speedup=1.5)
    model = int8()
    result = regroup(model, timings=Timings(tmp_path / "t.json"))
    assert (result.kept, result.report.changed) == (True, 4)
    assert (groups(model), groups(result.model)) == ([1, 4, 4, 4, 2], [1, 2, 2, 2, 1])
    assert equal(result.model, model)


def test_branches_are_a_form_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured(monkeypatch, {"2 in branches": 1.0, "1": 3.0}, speedup=1.5)
    body = """
        s = Conv(x, stem)
        r = Relu(s)
        a = Conv<group=4, pads=[1,1,1,1]>(r, wa)
        ar = Relu(a)
        p = GlobalAveragePool(ar)
        y = Flatten(p)
    """
    weights = {"stem": convolution(16, 3), "wa": convolution(16, 4)}
    model = fuse(graph(body, weights, outputs="float[N, 16] y")).model
    result = regroup(model, timings=Timings(tmp_path / "t.json"))
    assert (result.kept, result.report.changed) == (True, 1)
    assert groups(result.model) == [1] * 4
    np.testing.assert_allclose(run(result.model, images(4))[0], run(model, images(4))[0], rtol=1e-4, atol=1e-6)


def test_between_equals_the_one_with_fewer_zeros_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured(monkeypatch, {"1": 3.0, "2": 1.01, "4": 1.0}, speedup=1.5)
    result = regroup(int8(), timings=Timings(tmp_path / "t.json"))
    assert [str(choice.form) for choice in result.choices] == ["2", "2", "2"]


@pytest.mark.parametrize("speedup", [0.9, 1.0, 1.04])
def test_what_is_not_surely_faster_goes_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, speedup: float) -> None:
    measured(monkeypatch, {"1": 3.0, "2": 1.0, "4": 2.0}, speedup=speedup)
    model = int8()
    result = regroup(model, timings=Timings(tmp_path / "t.json"))
    assert not result.kept
    assert result.model is model
    assert result.comparison is not None


def test_where_every_layer_is_fastest_as_it_is_nothing_is_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured(monkeypatch, {"1": 1.0, "2": 2.0, "4": 2.0}, speedup=1.5)
    model = int8()
    result = regroup(model, timings=Timings(tmp_path / "t.json"))
    assert (result.kept, result.model is model, result.comparison) == (False, True, None)


def test_what_was_measured_is_not_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = measured(monkeypatch, {"1": 3.0, "2": 1.0, "4": 2.0}, speedup=1.5)
    model, timings = int8(), Timings(tmp_path / "t.json")
    first, second = regroup(model, timings=timings), regroup(model, timings=timings)
    assert len(asked) == 3
    assert [[choice.remembered for choice in result.choices] for result in (first, second)] == [[False] * 3, [True] * 3]
    assert [choice.seconds for choice in first.choices] == [choice.seconds for choice in second.choices]
    regroup(model, batch=8, timings=timings)
    assert len(asked) == 6


def test_a_number_is_taken_where_it_divides(tmp_path: Path) -> None:
    model = graph(BODY, WEIGHTS, outputs="float[N, 5] y")
    result = regroup(model, merged=4)
    assert groups(result.model) == [1, 1, 1, 1, 2]
    assert [refusal.why for refusal in result.report.refusals] == ["its 2 groups can't merge by 4; choose a divisor"]
    none = regroup(model, merged=3)
    assert (none.kept, none.model is model) == (False, True)


@pytest.mark.slow
def test_really_measured_the_result_is_the_same_and_never_slower(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rexport.tuning.groups._LAYER_SECONDS", 0.05)
    monkeypatch.setattr("rexport.tuning.comparison._SECONDS", 0.5)
    model = int8()
    result = regroup(model, threads=1, timings=Timings(tmp_path / "t.json"))
    for choice in result.choices:
        assert set(choice.seconds) == set(choice.layer.forms(widest=128, most_branches=8))
        assert min(choice.seconds.values()) > 0
    assert result.kept == (result.comparison is not None and result.comparison.is_faster)
    assert equal(result.model, model)


@pytest.mark.parametrize("wrong", [{"merged": 0}, {"batch": 0}, {"threads": 0}])
def test_numbers_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        regroup(int8(), **wrong)


def test_a_model_of_another_batch_is_refused() -> None:
    model = graph(BODY, WEIGHTS, inputs="float[2, 3, 16, 16] x", outputs="float[2, 5] y")
    with pytest.raises(UsageError, match="takes batches of 2 only, so nothing can be measured at 8"):
        regroup(model, batch=8)


def test_a_layer_that_does_not_run_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(jobs: list[object], **_: object) -> list[Failure]:
        return [Failure(reason="Its process was killed.", kind="Died") for _ in jobs]

    monkeypatch.setattr("rexport.tuning.groups.measure", measure)
    with pytest.raises(UnavailableError, match=r"The layer 3×3, 16 → 16 of 8×8 can't be measured: Its process"):
        regroup(int8(), timings=Timings(tmp_path / "t.json"))
