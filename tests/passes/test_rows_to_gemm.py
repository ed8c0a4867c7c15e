"""Products of sequences with a constant matrix become products of rows."""

from __future__ import annotations

import numpy as np
import pytest

from rexport.passes import QUANTIZATION_PASSES, fuse, verify_equal
from tests._graphs import graph

_W = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


@pytest.mark.parametrize("shape", ["N, 5, 6", "2, 5, 6", "N, T, 6", "N, 2, T, 6"])
@pytest.mark.parametrize("bias", [np.float32(2), np.ones((1, 1, 4), np.float32), np.arange(4, dtype=np.float32), None])
def test_a_linear_layer_of_a_sequence_is_a_gemm(shape: str, bias: np.ndarray | None) -> None:
    body, weights = "p = MatMul(x, w) y = Add(k, p)", {"w": _W, "k": bias}
    if bias is None:
        body, weights = "y = MatMul(x, w)", {"w": _W}
    elif bias.ndim > len(shape.split(",")):
        pytest.skip("it would add an axis")
    result = shape.rpartition(",")[0] + ", 4"
    model = graph(body, weights, inputs=f"float[{shape}] x", outputs=f"float[{result}] y")
    fused = fuse(model, passes=QUANTIZATION_PASSES).model
    operators = [node.op_type for node in fused.graph]
    assert operators.count("Gemm") == 1
    assert not {"MatMul", "Add"} & set(operators)
    assert verify_equal(model, fused) < 1e-5


def test_what_is_no_row_bias_stays_behind_it() -> None:
    model = graph(
        "p = MatMul(x, w) y = Add(p, k)",
        {"w": _W, "k": np.ones((5, 1), np.float32)},
        inputs="float[N, 5, 6] x",
        outputs="float[N, 5, 4] y",
    )
    fused = fuse(model, passes=QUANTIZATION_PASSES).model
    assert [node.op_type for node in fused.graph] == ["Reshape", "Gemm", "Reshape", "Add"]
    assert verify_equal(model, fused) < 1e-5


def test_float_files_stay_as_they_are() -> None:
    model = graph("y = MatMul(x, w)", {"w": _W}, inputs="float[N, 5, 6] x", outputs="float[N, 5, 4] y")
    assert [node.op_type for node in fuse(model).model.graph] == ["MatMul"]
