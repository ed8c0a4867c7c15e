from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import load_from_string

from rexport._errors import UnavailableError, UsageError
from rexport.benchmarks import peak as peak_module
from rexport.benchmarks.document import Kind, Peak, PeakPrecision
from rexport.benchmarks.interleave import Failure, Timing
from rexport.benchmarks.peak import LOADS, measure_peaks
from rexport.benchmarks.peak_models import Load
from rexport.runtimes.onnxruntime import executed_ops, open_session
from tests._deep import deep

if TYPE_CHECKING:
    from pathlib import Path

_TINY = (
    Load(kind=Kind.CONVOLUTION, channels=32, kernel=3, side=8, layers=2, images=2),
    Load(kind=Kind.CONVOLUTION, channels=32, kernel=1, side=8, layers=2, images=2),
    Load(kind=Kind.MATRIX_PRODUCT, channels=64, images=32, layers=2),
)


@pytest.mark.parametrize("load", _TINY, ids=str)
@pytest.mark.parametrize("precision", PeakPrecision)
def test_a_load_does_what_it_says(load: Load, precision: PeakPrecision) -> None:
    data = load.to_model(precision)
    ops = executed_ops(data)
    multiply = load.layers + (2 if load.kind is Kind.CONVOLUTION else 0)
    integer, other = ("QLinearConv", "Conv") if load.kind is Kind.CONVOLUTION else ("QGemm", "Gemm")
    expected = integer if precision is PeakPrecision.INT8 else other
    assert ops[expected] + ops["Fused" + expected] == multiply
    if precision is PeakPrecision.INT8:
        assert not ops[other]
    session = open_session(data, threads=1)
    images = np.random.default_rng(0).standard_normal(load.shape).astype(np.float32)
    (result,) = session.run(None, {"images": images})
    assert np.isfinite(result).all()
    assert np.count_nonzero(result) > result.size / 100


@pytest.mark.parametrize("load", [*_TINY, *deep(*LOADS)], ids=str)
def test_multiply_accumulates_are_those_of_the_file(load: Load) -> None:
    graph = load_from_string(load.to_model(PeakPrecision.FLOAT32)).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    places = load.images * load.side**2
    counted = sum(places * math.prod(weights[node.input[1]]) for node in graph.node if node.op_type in ("Conv", "Gemm"))
    assert load.macs == counted


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["cpu", "openvino"])
def test_a_peak_is_measured_once(tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    monkeypatch.setattr(peak_module, "_SECONDS", 0.02)
    monkeypatch.setattr(peak_module, "_STEADY", 0.0)  # whatever else this machine does
    asked: list[int] = []
    real = peak_module.measure

    def counted(jobs: list[object], **options: object) -> object:
        asked.append(len(jobs))
        return real(jobs, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(peak_module, "measure", counted)
    options = {"threads": 1, "loads": _TINY, "path": tmp_path / "peaks.json"}
    first = measure_peaks(runtime, PeakPrecision.INT8, **options)  # type: ignore[arg-type]
    assert {peak.kind for peak in first} == set(Kind)
    assert all(0.01 < peak.gmacs_per_second < 1e5 for peak in first)
    second = measure_peaks(runtime, PeakPrecision.INT8, **options)  # type: ignore[arg-type]
    assert [peak.gmacs_per_second for peak in second] == [peak.gmacs_per_second for peak in first]
    assert all(peak.remembered for peak in second)
    assert asked == [3]


def _measured(monkeypatch: pytest.MonkeyPatch, seconds: list[float], *, failing: int = 0) -> list[int]:
    """Let every call take ``seconds`` in turn, the first ``failing`` loads fail, and return what is asked for."""
    asked: list[int] = []

    def measure(jobs: list[object], **_: object) -> list[Timing | Failure]:
        asked.append(len(jobs))
        timing = Timing(rounds=(tuple(seconds),), peak_memory_mib=None)
        bad = Failure(reason="Its process was killed.", kind="Died")
        return [bad if index < failing else timing for index in range(len(jobs))]

    monkeypatch.setattr(peak_module, "measure", measure)
    return asked


def test_the_best_load_of_each_kind_is_the_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _measured(monkeypatch, [0.001] * 10)
    conv, product = measure_peaks("cpu", PeakPrecision.INT8, threads=2, loads=_TINY, path=tmp_path / "p.json")
    assert conv.gmacs_per_second == pytest.approx(_TINY[0].macs / 0.001 / 1e9)  # the larger of the two
    assert product.gmacs_per_second == pytest.approx(_TINY[2].macs / 0.001 / 1e9)
    assert (conv.load, conv.threads, conv.at_least, conv.steady) == (str(_TINY[0]), 2, False, True)


@pytest.mark.parametrize(
    "other",
    [
        {"threads": 1},
        {"precision": PeakPrecision.FLOAT32},
        {"runtime": "openvino"},
        {"loads": _TINY[1:]},
        {"again": True},
    ],
)
def test_under_other_conditions_or_again_it_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: dict[str, object]
) -> None:
    asked = _measured(monkeypatch, [0.001] * 10)
    here = {"runtime": "cpu", "precision": PeakPrecision.INT8, "threads": 2, "loads": _TINY}
    for conditions in (here, here, {**here, **other}):
        measure_peaks(**conditions, path=tmp_path / "p.json")  # type: ignore[arg-type]
    assert len(asked) == 2


def test_what_other_programs_disturbed_is_not_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = _measured(monkeypatch, [0.001] * 3 + [0.002] * 7)
    for _ in range(2):
        peaks = measure_peaks("cpu", PeakPrecision.INT8, threads=2, loads=_TINY, path=tmp_path / "p.json")
        assert [peak.steady for peak in peaks] == [False, False]
    assert len(asked) == 2


@pytest.mark.parametrize(
    "entry",
    [None, [], [{}], 3, "broken", [{"gmacs_per_second": 0}], [{"gmacs_per_second": "fast"}], [{"kind": "division"}]],
)
def test_a_broken_file_is_measured_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: object) -> None:
    asked = _measured(monkeypatch, [0.001] * 10)
    path = tmp_path / "p.json"
    (good, *_) = measure_peaks("cpu", PeakPrecision.INT8, threads=2, loads=_TINY, path=path)
    document = json.loads(path.read_text())
    (key,) = document["entries"]
    broken = [{**good.to_json(), **part} for part in entry] if entry and isinstance(entry, list) and entry[0] else entry
    path.write_text("{" if entry == "broken" else json.dumps({**document, "entries": {key: broken}}))
    again = measure_peaks("cpu", PeakPrecision.INT8, threads=2, loads=_TINY, path=path)
    assert again[0] == good
    assert len(asked) == 2


def test_a_load_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _measured(monkeypatch, [0.001] * 10, failing=2)
    (only,) = measure_peaks("cpu", PeakPrecision.INT8, loads=_TINY, path=tmp_path / "p.json")
    assert only.kind is Kind.MATRIX_PRODUCT
    _measured(monkeypatch, [0.001] * 10, failing=3)
    with pytest.raises(UnavailableError, match=r"The peak of cpu can't be measured: Its process was killed\."):
        measure_peaks("cpu", PeakPrecision.INT8, loads=_TINY, path=tmp_path / "q.json")


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="peak of torch can't be measured; choose from cpu, openvino"):
        measure_peaks("torch", PeakPrecision.INT8)
    with pytest.raises(UsageError, match="one load and one thread"):
        measure_peaks("cpu", PeakPrecision.INT8, threads=0)
    with pytest.raises(UsageError, match="one load and one thread"):
        measure_peaks("cpu", PeakPrecision.INT8, loads=[])


def test_a_peak_is_json() -> None:
    peak = Peak(
        runtime="cpu",
        precision=PeakPrecision.INT8,
        kind=Kind.MATRIX_PRODUCT,
        threads=2,
        gmacs_per_second=860.0,
        load="a load",
    )
    document = json.loads(json.dumps(peak.to_json()))
    assert (document["precision"], document["kind"], document["gmacs_per_second"]) == ("int8", "matrix product", 860.0)
