from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport.model_file import to_bytes
from rexport.passes import FoldConstants, Reference, fuse
from tests._graphs import convolution, graph, vector
from tests.passes._models import assert_close, changed_by, ops, parse, rewritten, run

if TYPE_CHECKING:
    import onnx_ir as ir

OLD = """
    <ir_version: {ir_version}, opset_import: ["": {opset}]>
    graph (float[N, 1, 4, 4] x, float[1, 1, 1, 1] w, float[1] s) => (float[N, 1, 4, 4] y)
    <float[1, 1, 1, 1] w = {{2}}, float[1] s = {{3}}>
    {{
        k = Mul(w, s)
        c = Conv(x, k)
        y = BatchNormalization(c, s, s, s, s)
    }}"""


def test_before_ir_version_4_initializers_are_no_choice_of_the_caller() -> None:
    original = parse(OLD.format(ir_version=3, opset=8))
    fused = fuse(original).model
    assert ops(fused) == {"Conv": 1}
    assert [value.name for value in fused.graph.inputs] == ["x"]
    assert_close(run(fused), run(original))


def test_since_ir_version_4_single_numbers_are() -> None:
    original = parse(OLD.format(ir_version=8, opset=13))
    fused = fuse(original, reference=Reference(original)).model
    assert ops(fused) == ops(original)
    assert [value.name for value in fused.graph.inputs] == ["x", "w", "s"]
    feeds = {"w": np.full((1, 1, 1, 1), 7, np.float32)}
    assert_close(run(fused, feeds), run(original, feeds))


def test_constants_become_initializers_and_expressions_values() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 4] x) => (float[N, 4] y)
        {
            a = Constant<value = float[4] {1, 2, 3, 4}>()
            b = Constant<value_float = 2.0>()
            c = Mul(a, b)
            unread = Add(x, a)
            y = Add(x, c)
        }""")
    folded = rewritten(FoldConstants, original, {"Add": 1}, changed=4, of_scale=0)
    (weight,) = folded.graph.initializers.values()
    assert weight.const_value.numpy().tolist() == [2, 4, 6, 8]


def test_integer_weights_stay_integers() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 2] x) => (float[N, 2] y)
        <float scale = {0.5}, int8 zero = {0}, int8[2, 2] w = {1, 2, 3, 4}, float[2, 2] v = {1, 2, 3, 4}>
        {
            wf = DequantizeLinear(w, scale, zero)
            vq = QuantizeLinear(v, scale, zero)
            vf = DequantizeLinear(vq, scale, zero)
            a = MatMul(x, wf)
            y = MatMul(a, vf)
        }""")
    folded, _ = changed_by(FoldConstants, original)
    assert ops(folded) == ops(original)
    assert folded.graph.initializers["w"].dtype.name == "INT8"


@pytest.mark.parametrize(
    "weight",
    [
        "DequantizeLinear(w, scale, zero)",
        "DequantizeLinear(w, scale)",
        "DequantizeLinear<axis = 2>(w, scales, zeros)",
        "DequantizeLinear<axis = -1>(w, scales)",
    ],
)
def test_weights_that_are_stored_as_integers_are_floats_in_a_model_of_floats(weight: str) -> None:
    original = parse(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 2, 3, 3] x) => (float[N, 2, 3, 3] y)
        <float scale = {{0.5}}, int8 zero = {{3}}, float[2] scales = {{0.5, 2}}, int8[2] zeros = {{1, -3}},
         int8[1, 1, 2, 2] w = {{1, -128, 127, 4}}>
        {{ wf = {weight}  wt = Transpose(wf)  y = Conv(x, wt) }}""")
    rewritten(FoldConstants, original, {"Conv": 1}, changed=2)


def test_a_product_with_a_weight_that_is_stored_as_integers_is_proven_exactly() -> None:
    """ONNX Runtime would compute the original with inputs of 8 bits."""
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 2] x) => (float[N, 2] y)
        <float scale = {0.5}, int8 zero = {3}, int8[2, 2] w = {1, -128, 127, 4}>
        { wf = DequantizeLinear(w, scale, zero)  wt = Transpose(wf)  y = MatMul(x, wt) }""")
    result = fuse(original, reference=Reference(original))
    assert ops(result.model) == {"Gemm": 1}
    assert not any(report.rolled_back for report in result.reports)


def test_functions_are_inlined() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18, "own": 1]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {2}, float[1] s = {3}> { y = own.normal_conv(x, w, s) }
        <domain: "own", opset_import: ["": 18]> normal_conv (a, k, p) => (c)
        { b = Conv(a, k)  c = BatchNormalization(b, p, p, p, p) }""")
    fused = fuse(original).model
    assert ops(fused) == {"Conv": 1}
    assert_close(run(fused), run(original))


def test_an_output_that_is_a_constant_stays() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[2] x) => (float[2] y, float[2] z, float[2] w)
        <float[2] w = {1, 2}> { y = Relu(x)  z = Add(w, w) }""")
    fused = fuse(original).model
    assert_close(run(fused), run(original), of_scale=0)


def test_what_the_libraries_could_not_do_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[2, 3] x) => (float[2, 3] y) { a = Relu(x)  y = Neg(a) }""")
    original.graph.node(0).outputs[0].shape = original.graph.inputs[0].shape.copy()
    original.graph.node(0).outputs[0].shape[0] = 7  # the file contradicts itself
    with caplog.at_level(logging.WARNING):
        folded, _ = changed_by(FoldConstants, original)
    assert ops(folded) == ops(original)
    assert caplog.records == []


def test_the_widths_of_a_pad_are_known_however_they_are_computed() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 13]>
        graph (float[N, 2, 4, 4] x) => (float[N, C, H, W] y)
        <int64[2] ends = {1, 2}, int64[1] six = {6}, int64[2] huge = {9999, 9999}>
        {
            zeros = ConstantOfShape<value = int64[1] {0}>(six)
            widths = Concat<axis = 0>(zeros, ends)
            p = Pad(x, widths)
            many = ConstantOfShape(huge)
            first = ReduceMax<keepdims = 0>(many)
            y = Add(p, first)
        }""")
    folded, _ = changed_by(FoldConstants, original)
    assert ops(folded) == {"Pad": 1, "ConstantOfShape": 1, "ReduceMax": 1, "Add": 1}  # what is large stays small
    assert folded.graph.node(0).inputs[1].const_value.numpy().tolist() == [0, 0, 0, 0, 0, 0, 1, 2]


def test_results_that_nobody_reads_go() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, H, W] y)
        { p, indices = MaxPool<kernel_shape = [2, 2]>(x)  y = Relu(p) }""")
    folded, _ = changed_by(FoldConstants, original)
    assert [[value.name for value in node.outputs] for node in folded.graph] == [["p"], ["y"]]
    np.testing.assert_array_equal(run(folded)[0], run(original)[0])


def test_weights_among_the_inputs_are_constants_and_a_note_says_so() -> None:
    original = parse("""
        <ir_version: 8, opset_import: ["": 13]>
        graph (float[N, 1, 4, 4] x, float[2, 1, 1, 1] w, float[2] s, float k) => (float[N, 2, 4, 4] y)
        <float[2, 1, 1, 1] w = {2, 3}, float[2] s = {3, 1}, float k = {4}>
        { c = Conv(x, w)  n = BatchNormalization(c, s, s, s, s)  y = Mul(n, k) }""")
    result = fuse(original, reference=Reference(original))
    assert ops(result.model) == {"Conv": 1}
    assert [value.name for value in result.model.graph.inputs] == ["x"]
    assert_close(run(result.model), run(original))
    (notes,) = {report.notes for report in result.reports if report.notes}
    assert notes == ("3 initializers were inputs too; they are constants now, with the values in the file.",)
    assert [value.name for value in original.graph.inputs] == ["x", "w", "s", "k"]


def test_inputs_that_went_are_a_change() -> None:
    original = graph("y = Conv(x, w)", {"w": convolution(4, 3)}, inputs="float[N, 3, 16, 16] x, float[4, 3, 3, 3] w")
    _, report = changed_by(FoldConstants, original)
    assert report.changed == 1


# weights that are computed

WEIGHT = convolution(64, 64)  # 36,864 numbers
COMPUTED = {
    "normalised": "n = ReduceL2 <axes = [1, 2, 3]> (w) d = Div (one, n) v = Mul (w, d)",
    "standardised": (
        "m = ReduceMean <axes = [1, 2, 3]> (w) c = Sub (w, m) q = Mul (c, c) "
        "s = ReduceMean <axes = [1, 2, 3]> (q) r = Sqrt (s) v = Div (c, r)"
    ),
    "of another shape": "f = Reshape (w, flat) t = Transpose (f) u = Transpose (t) v = Reshape (u, shape)",
    "joined": "p, q = Split <axis = 0> (w, sizes) v = Concat <axis = 0> (q, p)",
    "repeated": "f = ReduceMean <axes = [1]> (w) v = Tile (f, times)",
    "repeated and scaled": "f = ReduceMean <axes = [1]> (w) e = Expand (f, shape) v = Mul (e, scale)",
    "filled": "e = ConstantOfShape <value = float[1] {0.1}> (shape) v = Mul (e, scale)",
}
CONSTANTS = {
    "one": np.ones((), np.float32),
    "scale": np.full((), 2, np.float32),
    "flat": np.array([64, -1]),
    "shape": np.array([64, 64, 3, 3]),
    "times": np.array([1, 64, 1, 1]),
    "sizes": np.array([40, 24]),
}


def reading(computed: str, constants: dict[str, np.ndarray], last: str = "y = Conv (a, v)") -> ir.Model:
    """Return a model that ends so, and computes ``v`` of constants."""
    body = f"{computed} a = Conv <pads = [1, 1, 1, 1]> (x, first) {last}"
    return graph(body, CONSTANTS | constants | {"first": convolution(64, 3)})


@pytest.mark.parametrize("kind", COMPUTED)
def test_a_weight_that_is_computed_is_a_constant(kind: str) -> None:
    original = reading(COMPUTED[kind], {"w": WEIGHT})
    folded, _ = changed_by(FoldConstants, original)
    assert ops(folded) == {"Conv": 2}
    assert_close(run(folded), run(original))


def test_a_weight_stored_in_float16_is_a_constant_of_float32() -> None:
    original = reading("v = Cast <to = 1> (w)", {"w": WEIGHT.astype(np.float16)})
    folded, _ = changed_by(FoldConstants, original)
    assert ops(folded) == {"Conv": 2}
    assert {value.dtype.name for value in folded.graph.initializers.values()} == {"FLOAT"}
    assert_close(run(folded), run(original))


@pytest.mark.parametrize(
    ("computed", "kept"),
    [
        ("v = Expand (m, large)", "Expand"),
        ("v = Tile (m, many)", "Tile"),
        ("v = ConstantOfShape <value = float[1] {2.0}> (large)", "ConstantOfShape"),
        ("r = Range (zero, end, step) v = Reshape (r, large)", "Range"),
        ("z = ConstantOfShape (side) i = EyeLike <dtype = 1> (z) v = Reshape (i, large)", "EyeLike"),
        ("h = OneHot (indices, depth, values) v = Reshape (h, large)", "OneHot"),
    ],
)
def test_what_would_make_the_file_larger_stays(computed: str, kept: str) -> None:
    constants = {
        "m": np.ones((1, 64, 1, 1), np.float32),
        "large": np.array([1, 64, 14, 14]),
        "many": np.array([1, 1, 14, 14]),
        "zero": np.zeros((), np.float32),
        "end": np.full((), 12544, np.float32),
        "step": np.ones((), np.float32),
        "indices": np.arange(112),
        "depth": np.array([112]),
        "values": np.float32([0, 1]),
        "side": np.array([112, 112]),
    }
    original = reading(computed, constants | {"w": WEIGHT}, last="c = Conv (a, w) y = Add (c, v)")
    folded, _ = changed_by(FoldConstants, original)
    assert ops(folded)[kept] == 1
    assert len(to_bytes(folded)) < len(to_bytes(original)) + 4 * 4096


def test_a_number_for_each_channel_is_a_constant() -> None:
    original = reading("v = Expand (one, channels)", {"channels": np.array([1, 64, 1, 1])}, last="y = Mul (a, v)")
    folded, _ = changed_by(FoldConstants, original)
    assert ops(folded) == {"Conv": 1, "Mul": 1}


def test_a_split_that_gives_an_output_stays() -> None:
    original = graph(
        "y = Relu (x) a, b = Split <axis = 0> (w)", {"w": vector(6)}, outputs="float[N, 3, 16, 16] y, float[3] a"
    )
    folded, _ = changed_by(FoldConstants, original)
    assert_close(run(folded), run(original), of_scale=0)
