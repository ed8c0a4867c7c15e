"""What ``bench`` prints and writes of limits and layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rexport._errors import UnavailableError
from rexport.benchmarks.limits import Limits
from rexport.benchmarks.peak import Peak
from rexport.benchmarks.peak_models import Kind, PeakPrecision
from rexport.benchmarks.results import Row, Status
from rexport.cli import _limits
from rexport.model_file import save
from tests.quantization._tables import exported

if TYPE_CHECKING:
    from pathlib import Path

_PEAK = Peak(
    runtime="cpu",
    precision=PeakPrecision.FLOAT32,
    kind=Kind.CONVOLUTION,
    threads=1,
    gmacs_per_second=100.0,
    load="6 of 3×3",
)


@pytest.fixture
def row(tmp_path: Path) -> Row:
    save(exported("cifar_resnet8"), tmp_path / "m.onnx")
    return Row(model=str(tmp_path / "m.onnx"), runtime="cpu", batch=4, threads=1, rounds=((0.001, 0.001),))


@pytest.mark.slow
def test_limits_and_layers_in_the_document(
    row: Row, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rexport.benchmarks.limits.measure_peaks", lambda *_, **__: (_PEAK,))
    failed = replace(row, rounds=(), status=Status.FAILED, reason="It crashed.")
    limits, peaks = _limits.measure_limits([row, failed], peak=True, again=False)
    profiles = _limits.profile_rows([row, row, failed])
    assert len(profiles) == 1
    document = _limits.with_limits({"schema": "s", "rows": [{"batch": 4}, {"batch": 4}]}, limits, peaks, profiles)
    first, second = document["rows"]
    assert first["macs"] == second["macs"] == 12_501_632
    assert first["gmacs_per_second"] == pytest.approx(12_501_632 * 4 / 0.001 / 1e9)
    assert first["share_of_peak"] == pytest.approx(0.50006528)
    assert second["gmacs_per_second"] is second["share_of_peak"] is None
    assert document["peaks"][0]["gmacs_per_second"] == 100.0
    assert [entry["batch"] for entry in document["layers"]] == [4]
    assert _limits.limit_cells(limits[0]) == ("50", "50 %")
    assert _limits.limit_cells(limits[1]) == ("–", "–")
    capsys.readouterr()
    _limits.print_layers(profiles[0])
    out, err = capsys.readouterr()
    assert "layer1.0.conv1" in out
    assert "layout change" in out
    assert "rexport quantize" in err


def test_without_a_peak_there_is_speed_alone(row: Row) -> None:
    limits, peaks = _limits.measure_limits([row], peak=False, again=False)
    assert peaks == ()
    assert limits[0].gmacs_per_second
    assert limits[0].share_of_peak is None
    assert "peaks" not in _limits.with_limits({"rows": [{}]}, limits, peaks)


def test_a_peak_that_can_not_be_measured_is_a_note(
    row: Row, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UnavailableError("The peak of cpu can't be measured: no memory.")

    monkeypatch.setattr("rexport.benchmarks.limits.measure_peaks", fail)
    limits, _ = _limits.measure_limits([row], peak=True, again=False)
    assert limits[0].gmacs_per_second
    assert "no memory" in capsys.readouterr().err


def test_what_can_not_be_profiled_is_a_note(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    network = replace(row, model="cifar_resnet8", runtime="torch")
    assert _limits.profile_rows([network, replace(row, runtime="torch")]) == ()
    err = capsys.readouterr().err
    assert "cifar_resnet8 is no file" in err
    assert "Layers of torch can't be profiled" in err


def test_peaks_say_what_they_are_worth(capsys: pytest.CaptureFixture[str]) -> None:
    low = replace(_PEAK, at_least=True, gmacs_per_second=120.0, load="a model that was measured")
    _limits.print_peaks([replace(_PEAK, remembered=True), replace(_PEAK, steady=False), low])
    out, err = capsys.readouterr()
    assert out == ""
    assert "100 GMAC/s (6 of 3×3; remembered)" in err
    assert "measured while other programs ran" in err
    assert "at least 120 GMAC/s" in err
    assert "--remeasure-peak" in err


def test_small_numbers_keep_their_digits() -> None:
    assert _limits.limit_cells(Limits(gmacs_per_second=0.034, share_of_peak=0.004)) == ("0.034", "0 %")
