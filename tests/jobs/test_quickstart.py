"""The quickstart: what it takes for good, and what it says where a model can't be measured."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rexport._errors import GateError, InputError, UnavailableError
from rexport.benchmarks import Row, Status
from rexport.benchmarks.results import timed
from rexport.evaluation import Comparison, Evaluation
from rexport.jobs import quickstart
from rexport.jobs.quickstart import QuickstartRequest, QuickstartResult, QuickstartRow, _make, _row, _Step, run

_ROW = timed(Row(model="m.onnx", runtime="cpu", batch=1, threads=1), ((0.002, 0.002),))


def _evaluation(top1: float) -> Evaluation:
    comparison = Comparison(agreement=0.99, sqnr_db=40.0, scores="logits", reference_top1=top1)
    return Evaluation(images=360, top1=top1, top5=None, top1_interval=None, comparison=comparison, skipped=())


def _result(*top1: float) -> QuickstartResult:
    rows = tuple(_row("fp32", Path(__file__), _evaluation(accuracy), _ROW, _ROW) for accuracy in top1)
    return QuickstartResult(request=QuickstartRequest(), rows=rows, seconds=1.0, report=Path("report.md"))


def test_a_row() -> None:
    (row,) = _result(0.98).rows
    assert row == QuickstartRow(
        model="fp32",
        file=__file__,
        bytes=Path(__file__).stat().st_size,
        top1=0.98,
        agreement=0.99,
        latency_ms_batch1=2.0,
        images_per_second_batch32=500.0,
        speedup_batch32=None,
    )


def test_half_a_point_may_be_lost() -> None:
    _result(0.98, 0.98, 0.976).require()
    with pytest.raises(GateError, match=r"98.00 % in float and 97.40 % in INT8; expected at least 97 %"):
        _result(0.98, 0.98, 0.974).require()
    with pytest.raises(GateError, match=r"96.00 % in float"):
        _result(0.96, 0.96, 0.96).require()


def test_a_model_that_can_not_be_measured() -> None:
    hanging = Row(model="m.onnx", runtime="cpu", batch=32, threads=1, status=Status.FAILED, reason="No answer.")
    with pytest.raises(UnavailableError, match=r"m.onnx could not be measured: No answer."):
        _row("fp32", Path(__file__), _evaluation(0.98), _ROW, hanging)


def _read(path: Path) -> None:
    if not path.exists() or not path.read_text():
        raise InputError(f"{path} is not whole.")


@pytest.mark.parametrize(
    ("whole", "restart", "made"),
    [("", False, "abc"), ("a", False, "bc"), ("ac", False, "bc"), ("abc", False, ""), ("abc", True, "abc")],
)
def test_a_stopped_run_goes_on_at_the_first_file_that_is_not_whole(
    whole: str, restart: bool, made: str, tmp_path: Path
) -> None:
    calls: list[str] = []
    steps = [_Step(tmp_path / name, _read, partial(calls.append, name)) for name in "abc"]
    for step in steps:
        step.path.write_text("whole" if step.path.name in whole else "")
    said: list[str] = []
    _make(steps, restart=restart, say=said.append)
    assert "".join(calls) == made
    assert len(said) == 3 - len(made)


class _StoppedError(Exception):
    """What ends a run after its training."""


def _stop(*_: object) -> None:
    raise _StoppedError


def test_a_stopped_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(60) % 10
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    monkeypatch.setattr(quickstart, "_load_digits", lambda _: (pixels, labels))
    monkeypatch.setattr(quickstart, "_HELD_OUT", 20)
    monkeypatch.setattr(quickstart, "_EPOCHS", 3)
    monkeypatch.setattr(quickstart, "_export", _stop)

    def interrupt(message: str) -> None:
        if message.startswith("epoch   2"):
            raise KeyboardInterrupt

    request, notes, said = QuickstartRequest(folder=tmp_path / "stopped"), list[str](), list[str]()
    with pytest.raises(KeyboardInterrupt):
        run(request, note=notes.append, say=interrupt)
    assert notes[0].startswith("run the same command again to resume")
    with pytest.raises(_StoppedError):
        run(request, say=said.append)
    assert "after epoch 2 (--restart starts over)" in said[1]
    assert [line[:14] for line in said[3:]] == ["epoch   3 of 3"]
    with pytest.raises(_StoppedError):
        run(QuickstartRequest(folder=tmp_path / "whole"))
    stopped, whole = (tmp_path / name / "cifar_resnet8.safetensors" for name in ("stopped", "whole"))
    assert stopped.read_bytes() == whole.read_bytes()
