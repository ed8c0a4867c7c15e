from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport._progress import silent
from rexport.benchmarks import limits as limits_module
from rexport.benchmarks.document import Kind, Peak, PeakPrecision, Row, Status
from rexport.benchmarks.limits import Reached, against_peaks, cost_of, peaks_for, reached
from rexport.benchmarks.results import timed
from rexport.calibration import calibrate
from rexport.cost import total_macs
from rexport.model_file import save
from rexport.passes.float16 import with_float16
from rexport.quantization import X86, quantize
from rexport.runtimes.source import Source
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from pathlib import Path

_ROW = Reached(runtime="cpu", threads=2, precision=PeakPrecision.INT8, macs=4_000_000_000, images_per_second=150.0)
_CONV = Peak(
    runtime="cpu",
    precision=PeakPrecision.INT8,
    kind=Kind.CONVOLUTION,
    threads=2,
    gmacs_per_second=800.0,
    load="6 of 3×3",
)
_PRODUCT = replace(_CONV, kind=Kind.MATRIX_PRODUCT, gmacs_per_second=600.0)


def test_the_share_is_of_the_higher_peak() -> None:
    (limits,), peaks = against_peaks([_ROW], [_CONV, _PRODUCT])
    assert limits.row_fields() == {"macs": 4_000_000_000, "gmacs_per_second": 600.0, "share_of_peak": 0.75}
    assert peaks == (_CONV, _PRODUCT)


@pytest.mark.parametrize(
    "other", [{"runtime": "openvino"}, {"threads": 1}, {"precision": PeakPrecision.FLOAT32}, {"precision": None}]
)
def test_a_peak_is_for_its_own_rows(other: dict[str, object]) -> None:
    (limits,), _ = against_peaks([replace(_ROW, **other)], [_CONV])
    assert (limits.gmacs_per_second, limits.share_of_peak) == (600.0, None)


@pytest.mark.parametrize("unknown", [{"macs": None}, {"images_per_second": None}])
def test_what_is_not_known_is_not_guessed(unknown: dict[str, None]) -> None:
    (limits,), _ = against_peaks([replace(_ROW, **unknown)], [_CONV])
    assert (limits.gmacs_per_second, limits.share_of_peak) == (None, None)


def test_a_peak_that_a_model_exceeds_is_at_least_that() -> None:
    fast = replace(_ROW, images_per_second=250.0)
    limits, (conv, product) = against_peaks([_ROW, fast], [_CONV, _PRODUCT])
    assert [one.share_of_peak for one in limits] == [None, None]
    assert [one.gmacs_per_second for one in limits] == [600.0, 1000.0]
    assert (conv.at_least, conv.gmacs_per_second) == (True, 1000.0)
    assert product == _PRODUCT
    elsewhere = replace(_ROW, runtime="openvino")
    limits, _ = against_peaks([elsewhere, fast], [_CONV, replace(_CONV, runtime="openvino")])
    assert limits[0].share_of_peak == 0.75


@given(
    speeds=st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=5),
    peaks=st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=2),
)
def test_no_share_is_above_one(speeds: list[float], peaks: list[float]) -> None:
    rows = [replace(_ROW, images_per_second=speed) for speed in speeds]
    measured = [replace(peak, gmacs_per_second=one) for peak, one in zip((_CONV, _PRODUCT), peaks, strict=False)]
    limits, judged = against_peaks(rows, measured)
    assert all(one.share_of_peak is None or 0 < one.share_of_peak <= 1 for one in limits)
    fastest = max(one.gmacs_per_second or 0 for one in limits)
    assert max(peak.gmacs_per_second for peak in judged) >= fastest
    assert any(peak.at_least for peak in judged) == (fastest > max(peaks[:2]))


def test_costs_of_files_and_networks(tmp_path: Path) -> None:
    model = exported("cifar_resnet8")
    macs = total_macs(model)
    integers = quantize(model, calibrate(model, [pictures(2)]), target=X86).model
    for name, file, precision in (
        ("float", model, PeakPrecision.FLOAT32),
        ("int8", integers, PeakPrecision.INT8),
        ("half", with_float16(model).model, None),
    ):
        save(file, tmp_path / f"{name}.onnx")
        assert cost_of(Source(path=tmp_path / f"{name}.onnx")) == (macs, precision), name
    # what PyTorch does without multiplying, the shortcuts of option A, are convolutions in the file
    shortcuts = 16 * 32 * 16 * 16 + 32 * 64 * 8 * 8
    assert cost_of(Source(network="cifar_resnet8")) == ((macs or 0) - shortcuts, PeakPrecision.FLOAT32)


def test_only_what_was_measured_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(exported("cifar_resnet8"), tmp_path / "m.onnx")
    row = timed(Row(model=str(tmp_path / "m.onnx"), runtime="cpu", batch=2, threads=1), ((0.5, 0.5),))
    failed = Row(model=row.model, runtime="openvino", batch=2, threads=1, status=Status.FAILED, reason="It crashed.")
    rows = reached([row, failed, replace(row, runtime="torch")])
    assert [one.images_per_second for one in rows] == [4.0, None, 4.0]
    asked: list[tuple[object, ...]] = []

    def measure(runtime: str, precision: PeakPrecision, *, threads: int, **_: object) -> tuple[Peak, ...]:
        asked.append((runtime, precision, threads))
        return (_CONV,)

    monkeypatch.setattr(limits_module, "measure_peaks", measure)
    assert peaks_for(rows, again=False, progress=silent) == (_CONV,)
    assert asked == [("cpu", PeakPrecision.FLOAT32, 1)]
