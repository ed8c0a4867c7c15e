"""Files that compute with integers already, in any of ONNX's forms, and those that only store their weights so."""

from __future__ import annotations

import numpy as np
import pytest

from rexport._errors import QuantizedModelError
from rexport.quantization.quantize import require_float
from tests._graphs import graph

WEIGHTS = {
    "u": np.ones((3, 3, 1, 1), np.uint8),
    "m": np.ones((16, 8), np.uint8),
    "scale": np.float32(0.1),
    "zero": np.uint8(3),
}


@pytest.mark.parametrize(
    "nodes",
    [
        "q, s, z = DynamicQuantizeLinear (x) i = ConvInteger (q, u, z) y = Cast <to = 1> (i)",
        "q = QuantizeLinear (x, scale, zero) y = DequantizeLinear (q, scale, zero)",
        "q, s, z = DynamicQuantizeLinear (x) i = MatMulInteger (q, m, z) y = Cast <to = 1> (i)",
    ],
)
def test_other_forms_of_integers_are_refused_with_their_names(nodes: str) -> None:
    with pytest.raises(QuantizedModelError, match=r"is quantized already \(1 .*Linear.*the float model") as caught:
        require_float(graph(nodes, WEIGHTS), "model.onnx")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "nodes",
    ["w = DequantizeLinear (u, scale, zero) y = Conv (x, w)", "y = Relu (x)"],
)
def test_weights_that_are_stored_as_integers_are_no_integers_to_compute_with(nodes: str) -> None:
    require_float(graph(nodes, WEIGHTS))
