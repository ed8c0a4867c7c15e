from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.cli._gate import print_gate
from tests.tuning.test_mixed_precision import gate_result

if TYPE_CHECKING:
    import pytest


def test_the_report_says_what_was_lost_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    print_gate(gate_result(max_drop=0.5))
    printed = capsys.readouterr().out
    assert "top-1 79.50 % on 1000 images, FP32 80.00 %: loss 0.50 points (limit 0.5)" in printed
    assert "kept in float for accuracy: conv1" in printed
    assert "1.50 × as fast (1.40 to 1.60)" in printed
    assert "12.5 dB" in printed
