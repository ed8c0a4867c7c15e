"""What ``bench`` prints of limits and layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rexport.benchmarks.profiling.layers import profile_layers
from rexport.cli import _limits
from rexport.model_file import save
from tests.jobs.test_bench import PEAK
from tests.quantization._tables import exported

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_layers_are_a_table_and_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(exported("cifar_resnet8"), tmp_path / "m.onnx")
    profile = profile_layers(tmp_path / "m.onnx", runtime="cpu", batch=4, threads=1)
    capsys.readouterr()
    _limits.print_layers([profile])
    out, err = capsys.readouterr()
    assert "layer1.0.conv1" in out
    assert "layout change" in out
    assert "rexport quantize" in err


def test_peaks_say_what_they_are_worth(capsys: pytest.CaptureFixture[str]) -> None:
    low = replace(PEAK, at_least=True, gmacs_per_second=120.0, load="a model that was measured")
    _limits.print_peaks([replace(PEAK, remembered=True), replace(PEAK, steady=False), low])
    out, err = capsys.readouterr()
    assert out == ""
    assert "100 GMAC/s (6 of 3×3; remembered)" in err
    assert "measured while other programs ran" in err
    assert "at least 120 GMAC/s" in err
    assert "--remeasure-peak" in err
