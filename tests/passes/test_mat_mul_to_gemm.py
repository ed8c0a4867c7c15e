from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport.passes import DEFAULT_PASSES, MatMulToGemm, fuse
from tests.passes._models import (
    MAY_CHANGE,
    assert_close,
    assert_untouched,
    changed_by,
    make,
    parse,
    refusal,
    rewritten,
    run,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def is_linear_layer(model: ir.Model) -> bool:
    """Say whether the only node is ``x Wᵀ + b``, the form that has an integer kernel."""
    (node,) = model.graph
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return (node.op_type, attributes, len(node.inputs)) == ("Gemm", {"transB": 1}, 3)


@given(
    bias=st.sampled_from([None, (), (1,), (5,), (1, 5), (1, 1)]),
    first=st.booleans(),
    opset=st.sampled_from([7, 9, 11, 13, 18, 21]),
    seed=st.integers(0, 99),
)
@settings(max_examples=50)
def test_a_product_and_its_bias(bias: tuple[int, ...] | None, first: bool, opset: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = {"w": rng.standard_normal((3, 5)).astype(np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y" if bias is None else "p"], name="product")]
    if bias is not None:
        weights["b"] = rng.standard_normal(bias).astype(np.float32)
        nodes.append(helper.make_node("Add", ["b", "p"] if first else ["p", "b"], ["y"], name="sum"))
    original = make(nodes, weights, x=["N", 3], y=["N", 5], opset=opset)
    changed = rewritten(MatMulToGemm, original)
    assert is_linear_layer(changed)
    assert [value.name for value in changed.graph.node(0).inputs][:2] == ["x", "w"]


@given(
    transposed=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.0, -0.7]),
    bias=st.sampled_from([None, (), (1,), (1, 1), (5,), (1, 5)]),
    opset=st.sampled_from([7, 9, 11, 13, 18, 21]),
    seed=st.integers(0, 99),
)
@settings(max_examples=50)
def test_any_gemm(
    transposed: bool, alpha: float, beta: float, bias: tuple[int, ...] | None, opset: int, seed: int
) -> None:
    bias = (5,) if bias is None and opset < 11 else bias  # mandatory there
    rng = np.random.default_rng(seed)
    weights = {"w": rng.standard_normal((5, 3) if transposed else (3, 5)).astype(np.float32)}
    weights |= {} if bias is None else {"b": rng.standard_normal(bias).astype(np.float32)}
    gemm = helper.make_node("Gemm", ["x", *weights], ["y"], transB=int(transposed), alpha=alpha, beta=beta)
    original = make([gemm], weights, x=["N", 3], y=["N", 5], opset=opset)
    changed, report = changed_by(MatMulToGemm, original)
    if transposed and alpha == beta == 1.0 and bias in (None, (5,)):
        assert report.changed == 0
    else:
        assert (report.changed, report.refusals) == (1, ())
        assert is_linear_layer(changed)
    assert_close(run(changed), run(original))


def test_without_factors_the_numbers_stay_the_same() -> None:
    weight, bias = np.random.default_rng(0).standard_normal((2, 4, 4)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    changed, _ = changed_by(MatMulToGemm, make(nodes, {"w": weight, "b": bias[0]}, x=["N", 4], y=["N", 4]))
    given_weight, given_bias = (value.const_value.numpy() for value in changed.graph.node(0).inputs[1:])
    np.testing.assert_array_equal(given_weight, weight.T)
    np.testing.assert_array_equal(given_bias, bias[0])


def test_float16_stays_float16() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((3, 5)).astype(np.float16), "b": rng.standard_normal(5).astype(np.float16)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    original = make(nodes, weights, x=["N", 3], y=["N", 5])
    changed = rewritten(MatMulToGemm, original, of_scale=2e-3)  # float16 rounds by 5e-4, a few times here
    assert {value.dtype.name for value in changed.graph.node(0).inputs} == {"FLOAT16"}


def test_float64_stays_float64() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (double[N, 2] x) => (double[N, 2] y)
        <double[2, 2] w = {1, 2, 3, 4}, double[2] b = {5, 6}> { p = MatMul(x, w)  y = Add(p, b) }""")
    changed = rewritten(MatMulToGemm, original, of_scale=1e-14)  # a few roundings of 1e-16
    assert {value.dtype.name for value in changed.graph.node(0).inputs} == {"DOUBLE"}


def test_a_classifier_whose_features_are_reshaped_by_arithmetic() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 13]>
        graph (float[N, 2, 2, 2] x) => (float[N, 1] y)
        <int64 first = {0}, int64[1] axis = {0}, int64[1] rest = {-1}, float[8, 1] w = {1, 2, 3, 4, 5, 6, 7, 8},
         float[1] b = {9}>
        {
            shape = Shape(x)  size = Gather(shape, first)  sizes = Unsqueeze(size, axis)
            target = Concat<axis = 0>(sizes, rest)
            f = Reshape(x, target)  p = MatMul(f, w)  y = Add(p, b)
        }""")
    fused = fuse(original, passes=DEFAULT_PASSES).model
    assert [node.op_type for node in fused.graph] == ["Flatten", "Gemm"]
    assert_close(run(fused), run(original))


TEXT = """
    <ir_version: 9, opset_import: ["": 18]>
    graph ({dtype}[2, 2] x{inputs}) => ({dtype}[2, 2] y{outputs})
    <{dtype}[2, 2] w = {{1, 2, 3, {last}}}, {dtype}[2, 2] matrix = {{5, 6, 7, 8}}, {dtype}[2] b = {{5, 6}}>
    {{ {nodes} }}"""
DEFAULTS = {"dtype": "float", "inputs": "", "outputs": "", "last": "4", "nodes": "y = MatMul(x, w)"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"nodes": "y = MatMul(x, w)  z = Add(x, w)", "outputs": ", float[2, 2] z"},
            "its linear layer's weight 'w' is shared with 1 other place",
        ),
        ({"outputs": ", float[2, 2] w"}, "its linear layer's weight 'w' is an output of the model"),
        (
            {"nodes": "y = Gemm(x, w, k)", "inputs": ", float[2] k"},
            f"its linear layer's bias 'k' {MAY_CHANGE}",
        ),
        (
            {"nodes": "y = Gemm(x, w, matrix)"},
            "its linear layer's bias 'matrix' has the shape 2×2, which is not one number per output",
        ),
        ({"nodes": "y = Gemm<transA = 1>(x, w)"}, "it transposes its input"),
        ({"dtype": "int32"}, "it multiplies int32, which Gemm has no kernels for"),
        (
            {"nodes": "y = Gemm<alpha = 1e38>(x, w)", "last": "400"},
            "folded into the linear layer, its parameters give weights that float32 can't hold",
        ),
    ],
)
def test_refusals_say_why(changes: dict[str, str], reason: str) -> None:
    assert refusal(MatMulToGemm, parse(TEXT.format(**DEFAULTS | changes))) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": "y = MatMul(x, k)", "inputs": ", float[2, 2] k"},
        {"nodes": "y = MatMul(w, x)"},
        {"nodes": "y = Gemm(x, k)", "inputs": ", float[2, 2] k"},
        {"nodes": "y = Gemm<transB = 1>(x, w)"},
    ],
    ids=["two inputs", "the constant first", "a Gemm of two inputs", "what it already is"],
)
def test_no_match(changes: dict[str, str]) -> None:
    original = parse(TEXT.format(**DEFAULTS | changes))
    assert_untouched(MatMulToGemm, original)


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": "p = MatMul(x, w)  y = Add(p, matrix)"},
        {"nodes": "p = MatMul(x, w)  y = Add(p, x)"},
        {"nodes": "p = MatMul(x, w)  y = Add(p, b)", "outputs": ", float[2, 2] p"},
    ],
    ids=["a number for each element", "not constant", "the product is an output"],
)
def test_an_addition_that_is_no_bias_stays(changes: dict[str, str]) -> None:
    original = parse(TEXT.format(**DEFAULTS | changes))
    rewritten(MatMulToGemm, original, {"Gemm": 1, "Add": 1})


def test_a_batch_of_matrices_is_no_match() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 3, 2] x) => (float[N, 3, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }""")
    assert_untouched(MatMulToGemm, original)
    original.graph.inputs[0].shape = None
    assert_untouched(MatMulToGemm, original)
