"""Files that are for another runtime than ONNX Runtime compute there what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport.calibration import calibrate
from rexport.evaluation.result import sqnr_db
from rexport.model_file import Metadata, save, to_bytes
from rexport.quantization import TENSORRT, quantize
from rexport.runtimes import open_runtime
from rexport.runtimes.onnxruntime import open_session
from rexport.runtimes.source import Source
from tests._graphs import convolution, graph, images

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir


def test_a_float_layer_of_a_file_for_another_runtime_stays_one() -> None:
    """Its weights' channels differ so much that one scale for all of them would leave little of most."""
    weights = {"w": convolution(8, 3), "d": convolution(8, 1), "p": convolution(8, 8, 1)}
    weights["d"] *= np.geomspace(1e-3, 1, 8, dtype=np.float32)[:, None, None, None]
    weights["p"] /= np.geomspace(1e-3, 1, 8, dtype=np.float32)[None, :, None, None]
    model = graph(
        "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (a) b = Conv <group = 8, pads = [1, 1, 1, 1]> (r, d) "
        "c = Conv (b, p) e = Add (c, r) f = Relu (e) g = Conv (f, p) y = Relu (g)",
        weights,
    )
    shown = images(4)
    table = calibrate(model, iter([shown]))
    quantized = quantize(model, table, target=TENSORRT).model
    expected = open_session(to_bytes(quantized), optimize=False).run(None, {"x": shown})[0]

    def sqnr(file: ir.Model) -> float:
        given = open_session(to_bytes(file)).run(None, {"x": shown})[0]
        return sqnr_db(float(np.square(expected).sum()), float(np.square(expected - given).sum()))

    assert sqnr(quantized) > 60
    nobodys = quantized.clone()
    Metadata().write_to(nobodys)  # a file that does not say what it is for
    assert sqnr(nobodys) < 40


def test_node_by_node_is_what_the_file_says(tmp_path: Path) -> None:
    model = graph("a = Conv (x, w) y = Relu (a)", {"w": convolution(4, 3)})
    path = tmp_path / "m.onnx"
    save(model, path)
    shown = images(2)
    with open_runtime("cpu-node-by-node", Source(path=path)) as plain, open_runtime("cpu", Source(path=path)) as fast:
        np.testing.assert_allclose(plain.run(shown), fast.run(shown), rtol=1e-5, atol=1e-6)
