from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rexport.cli._gate import print_gate
from rexport.quantization import QuantizedModel
from rexport.tuning import Comparison, GatePoint, GateResult, LayerSensitivity
from tests._graphs import convolution, graph

if TYPE_CHECKING:
    import pytest


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
