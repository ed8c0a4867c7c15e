"""The study of builds, on one small file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rexport.calibration import calibrate
from rexport.model_file import save
from rexport.quantization import TENSORRT, quantize
from tests._graphs import convolution, graph, images

_ROOT = Path(__file__).parents[2]
_STUDY = [sys.executable, "-m", "benchmarks.studies.engine_builds"]


@pytest.mark.slow
def test_a_file_that_is_given(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to build engines without a GPU")
    weights = {"w": convolution(16, 3), "v": convolution(16, 16)}
    model = graph("a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Relu (a) y = Conv <pads = [1, 1, 1, 1]> (b, v)", weights)
    save(quantize(model, calibrate(model, [images(2)]), target=TENSORRT).model, tmp_path / "m.onnx")
    command = [*_STUDY, "--models", str(tmp_path / "m.onnx"), "--rounds", "2", "--json", str(tmp_path / "r.json")]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 layers in int8" in done.stdout
    document = json.loads((tmp_path / "r.json").read_text())
    (row,) = document["rows"]
    assert document["schema"] == "rexport.study.engine-builds/1"
    assert len(row["seconds"]) == len(row["command_seconds"]) == len(row["sha256"]) == 2
    assert row["command_seconds"] > row["seconds"]


def test_something_to_build_is_needed() -> None:
    done = subprocess.run(_STUDY, cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--models" in done.stderr
