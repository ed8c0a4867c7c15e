from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from rexport.passes import FoldConstants, GemmToConv, Reference, fuse
from tests.passes._models import make, ops, parse

if TYPE_CHECKING:
    import onnx_ir as ir

_SIDES = (4, 6)


def network(
    *, perm: tuple[int, ...] = (0, 2, 3, 1), sizes: tuple[int, ...] = (-1, *_SIDES, 5), bias: bool = True
) -> ir.Model:
    """Return a convolution, a dense layer of its pixels, and a convolution, in a network with channels last."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((3, 3, 1, 1)).astype(np.float32),
        "dense": random.standard_normal((3, 5)).astype(np.float32),
        "b": random.standard_normal(5).astype(np.float32),
        "v": random.standard_normal((2, 5, 1, 1)).astype(np.float32),
        "flat": np.array([-1, 3]),
        "back": np.array(sizes),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["a.last"], perm=perm),
        helper.make_node("Reshape", ["a.last", "flat"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "turned", *(["b"] if bias else [])], ["products"], transB=1),
        helper.make_node("Reshape", ["products", "back"], ["c.last"]),
        helper.make_node("Relu", ["c.last"], ["d.last"]),
        helper.make_node("Transpose", ["d.last"], ["d"], perm=(0, 3, 1, 2)),
        helper.make_node("Conv", ["d", "v"], ["y"]),
    ]
    weights["turned"] = np.ascontiguousarray(weights.pop("dense").T)
    return make(nodes, weights, x=["N", 3, *_SIDES], y=["N", 2, None, None])


@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_layer_of_pixels_is_a_convolution(bias: bool) -> None:
    original = network(bias=bias)
    reference = Reference(original)
    result = fuse(original, reference=reference)
    assert ops(result.model) == {"Conv": 3, "Relu": 1}
    assert not any(report.rolled_back for report in result.reports)
    reference.difference(result.model)


def test_the_results_of_the_pass_alone_are_equal() -> None:
    original = network()
    changed = fuse(original, passes=[FoldConstants, GemmToConv])
    assert changed.reports[1].changed == 1
    Reference(original).difference(changed.model)
    assert ops(changed.model) == {"Conv": 3, "Relu": 1, "Transpose": 4}


def test_a_dense_layer_before_a_convolution_is_one_too() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]> graph (float[N, 2, 2, 1] x) => (float[A, B, C, D] y)
        <float[2, 1] w = {1, 2}, int64[2] flat = {-1, 1}, int64[4] back = {-1, 2, 2, 2}, float[1, 2, 1, 1] v = {1, 2}>
        {
            a = Reshape(x, flat)  b = Gemm<transB = 1>(a, w)  c = Reshape(b, back)
            d = Relu(c)  e = Transpose<perm = [0, 3, 1, 2]>(d)  y = Conv(e, v)
        }""")
    assert ops(fuse(original).model) == {"Transpose": 1, "Conv": 2, "Relu": 1}


@pytest.mark.parametrize("options", [{"sizes": (-1, 6, 4, 5)}, {"perm": (0, 3, 2, 1), "sizes": (-1, 6, 4, 5)}])
def test_pixels_in_another_order_stay(options: dict[str, tuple[int, ...]]) -> None:
    original = network(**options)
    assert ops(fuse(original, passes=[FoldConstants, GemmToConv]).model)["Gemm"] == 1
