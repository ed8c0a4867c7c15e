from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rexport._errors import UsageError
from rexport.cli._gate import Gate, gate_json, print_gate
from rexport.quantization import QuantizedModel
from rexport.tuning import Comparison, GatePoint, GateResult, LayerSensitivity
from tests._graphs import convolution, graph


@pytest.mark.parametrize(
    ("eval_data", "max_drop", "min_speedup", "match"),
    [
        (None, 0.5, None, "pass --eval-data DIR too"),
        (Path("d"), -1.0, None, "--max-drop -1"),
        (Path("d"), math.nan, None, "--max-drop nan"),
        (None, None, 0.0, "--min-speedup 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    eval_data: Path | None, max_drop: float | None, min_speedup: float | None, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        Gate.parse(eval_data, max_drop, min_speedup)


def test_without_a_largest_drop_accuracy_is_only_measured() -> None:
    assert Gate.parse(Path("d"), None, None).max_drop == math.inf
    gate = Gate.parse(None, None, None)
    model = graph("a = Conv (x, w) y = Relu (a)", {"w": convolution(3, 3)})
    assert gate.require_speed(model, model) is None


def _result() -> GateResult:
    model = graph("a = Conv (x, w) y = Relu (a)", {"w": convolution(3, 3)})
    first = GatePoint(float_layers=(), float_share=0.0, top1=0.7, sqnr_db=12.0)
    chosen = GatePoint(
        float_layers=("conv1",),
        float_share=0.25,
        top1=0.795,
        sqnr_db=math.inf,
        comparison=Comparison(speedup=1.5, interval=(1.4, 1.6)),
    )
    return GateResult(
        quantized=QuantizedModel(model=model, layers=()),
        chosen=chosen,
        points=(first, chosen),
        float_top1=0.8,
        images=1000,
        max_drop=0.5,
        sensitivities=(LayerSensitivity(name="conv1", op_type="Conv", sqnr_db=12.5, cost=0.3),),
    )


def test_the_report_says_what_was_lost_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    print_gate(_result())
    printed = capsys.readouterr().out
    assert "top-1 79.50 % on 1000 images, FP32 80.00 %: loses 0.50 points, 0.5 allowed" in printed
    assert "left in float for it: conv1" in printed
    assert "1.50 × as fast (1.40 to 1.60)" in printed
    assert "12.5 dB" in printed


def test_the_document_has_the_curve_and_no_infinite_numbers() -> None:
    document = json.loads(json.dumps(gate_json(_result()), allow_nan=False))["gate"]
    assert document["holds"] is True
    assert [point["top1"] for point in document["curve"]] == [0.7, 0.795]
    assert document["curve"][1]["sqnr_db"] is None
    assert document["curve"][1]["speedup_interval"] == [1.4, 1.6]
    assert document["sensitivities"] == [{"layer": "conv1", "op_type": "Conv", "sqnr_db": 12.5, "cost": 0.3}]
    assert gate_json(None) == {"gate": None}
