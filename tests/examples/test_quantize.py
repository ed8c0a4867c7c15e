"""The example of quantizing from Python does what it says."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from rexport.model_file import save
from tests._graphs import convolution, graph

_EXAMPLE = Path(__file__).parents[2] / "examples" / "quantize.py"


@pytest.mark.slow
def test_it_writes_a_proven_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "a = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v)"
    weights = {"w": convolution(8, 3), "v": convolution(8, 5, 1)[:, :, 0, 0]}
    save(graph(body, weights, outputs="float[N, 5] y"), tmp_path / "m.onnx")
    random = np.random.default_rng(0)
    pictures = random.uniform(-2, 2, (40, 3, 1, 1)) + 0.3 * random.uniform(-1, 1, (40, 3, 16, 16))
    np.save(tmp_path / "pictures.npy", pictures.astype(np.float32))
    example = runpy.run_path(str(_EXAMPLE))
    assert example["quantized"](str(tmp_path / "m.onnx"), tmp_path / "pictures.npy", str(tmp_path / "q.onnx")) > 20
    assert f"{(tmp_path / 'q.onnx').stat().st_size} bytes" in capsys.readouterr().out
