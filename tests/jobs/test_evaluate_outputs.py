"""Evaluating what is no classifier of pictures: its outputs against a reference's, and a metric of the user's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport._errors import DataError, ModelFileError, UsageError
from rexport.jobs.evaluate import EvaluateRequest, run
from rexport.jobs.evaluate_outputs import OutputsResult, _kept
from rexport.jobs.quantize import QuantizeRequest
from rexport.jobs.quantize import run as quantize
from rexport.model_file import save
from rexport.quantization import X86
from tests._graphs import graph

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.feeds import Feed

_RANDOM = np.random.default_rng(0)
_A, _B = (_RANDOM.standard_normal((24, 3, 8, 16)).astype(np.float32) for _ in range(2))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two inputs and two outputs, and arrays for them; the INT8 file too."""
    monkeypatch.chdir(tmp_path)
    weights = {name: _RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32) for name in ("v", "w")}
    model = graph(
        "p = Conv<pads=[1,1,1,1]>(a, v) q = Conv<pads=[1,1,1,1]>(b, w) s = Add(p, q) y = Relu(s) "
        "m = GlobalAveragePool(y) z = Flatten(m)",
        weights,
        inputs="float[N, 3, 8, 16] a, float[N, 3, 8, 16] b",
        outputs="float[N, 4, 8, 16] y, float[N, 4] z",
    )
    save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", a=_A, b=_B, labels=np.zeros(24, np.int64))
    request = QuantizeRequest(
        model=tmp_path / "m.onnx", output=tmp_path / "q.onnx", target=X86, data=tmp_path / "x.npz"
    )
    quantize(request)
    return tmp_path


def _evaluated(folder: Path, model: str = "q.onnx", data: str = "x.npz", **settings: object) -> OutputsResult:
    values: dict[str, object] = {"reference": folder / "m.onnx"} | settings
    result = run(EvaluateRequest(model=str(folder / model), data=folder / data, **values))  # type: ignore[arg-type]
    assert isinstance(result, OutputsResult)
    return result


def test_all_outputs_are_compared(folder: Path) -> None:
    result = _evaluated(folder)
    assert result.examples == 24
    assert [output.name for output in result.outputs] == ["y", "z"]
    for output in result.outputs:
        assert output.sqnr_db > 25
        assert output.cosine > 0.99
        assert 0 < output.max_difference < 0.2
    assert "worst of 2 outputs" in repr(result)
    itself = _evaluated(folder, "m.onnx")
    assert [(output.sqnr_db, output.max_difference) for output in itself.outputs] == [(np.inf, 0.0)] * 2


def test_a_metric_judges_the_model_and_the_reference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "metrics.py").write_text(
        "import numpy as np\n"
        "def first(batches):\n"
        "    seen = [\n"
        "        (b.outputs['z'][:, 0].mean(), len(b.names), b.labels.sum(), b.feed['a'].shape[1:]) for b in batches\n"
        "    ]\n"
        "    assert [row[1:] for row in seen] == [(8, 0, (3, 8, 16))] * 3\n"
        "    return np.mean([row[0] for row in seen])\n"
        "def nothing(batches):\n"
        "    return float('nan')\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("metrics", None)
    result = _evaluated(folder, metric="metrics:first", batch=8)
    assert result.metric is not None
    assert result.metric == pytest.approx(result.reference_metric, rel=0.05)
    assert result.to_json()["metric"]["function"] == "metrics:first"
    alone = _evaluated(folder, reference=None, metric="metrics:first", batch=8)
    assert (alone.metric, alone.outputs) == (result.metric, ())
    with pytest.raises(DataError, match="metrics:nothing gives nan"):
        _evaluated(folder, metric="metrics:nothing")
    with pytest.raises(UsageError, match="metrics:absent: the module has no function 'absent'"):
        _evaluated(folder, metric="metrics:absent")


@pytest.mark.parametrize(("room", "runs"), [(10**6, 3), (800, 4), (0, 6)])
def test_outputs_of_the_reference_are_kept_for_its_metric(
    room: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rexport.jobs.evaluate_outputs._KEPT_BYTES", room)
    batches: list[float] = []

    def run(feed: Feed) -> list[np.ndarray]:
        assert isinstance(feed, np.ndarray)
        batches.append(float(feed[0]))
        return [np.repeat(feed, 50)]  # 400 bytes

    first, again = _kept(run)
    feeds = [np.array([value]) for value in (1.0, 2.0, 3.0)]
    expected = [first(feed)[0][0] for feed in feeds]
    assert [again(feed)[0][0] for feed in feeds] == expected == [1, 2, 3]
    assert len(batches) == runs


def test_arrays_with_labels_have_an_accuracy(tmp_path: Path) -> None:
    model = graph("y = Relu(x)", inputs="float[N, 5] x", outputs="float[N, 5] y")
    save(model, tmp_path / "m.onnx")
    scores = np.eye(5, dtype=np.float32)
    np.savez(tmp_path / "x.npz", scores, labels=np.array([0, 1, 2, 0, 0]))
    result = _evaluated(tmp_path, "m.onnx", reference=None)
    assert (result.top1, result.outputs) == (0.6, ())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_class": True}, "--per-class is for classifiers of pictures"),
        ({"reference": None, "data": "a.npz"}, "pass --reference FILE to compare its outputs with, or --metric"),
        ({"find_divergence": True}, "--find-divergence is for models of one input"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, settings: dict[str, object], message: str) -> None:
    np.savez(folder / "a.npz", a=_A, b=_B)
    with pytest.raises(UsageError, match=message):
        _evaluated(folder, **settings)


def test_outputs_of_other_shapes_are_not_compared(folder: Path) -> None:
    other = graph(
        "y = Relu(a) z = Relu(b)",
        inputs="float[N, 3, 8, 16] a, float[N, 3, 8, 16] b",
        outputs="float[N, 3, 8, 16] y, float[N, 3, 8, 16] z",
    )
    save(other, folder / "other.onnx")
    with pytest.raises(ModelFileError, match="so they can't be compared"):
        _evaluated(folder, "other.onnx")
