from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from rexport.passes import FoldConstants, fuse
from tests.passes._models import assert_close, changed_by, ops, parse, run

if TYPE_CHECKING:
    import pytest

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


def test_since_ir_version_4_they_are() -> None:
    original = parse(OLD.format(ir_version=8, opset=13))
    fused = fuse(original).model
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
    folded, report = changed_by(FoldConstants, original)
    assert ops(folded) == {"Add": 1}
    assert report.changed == 4
    (weight,) = folded.graph.initializers.values()
    assert weight.const_value.numpy().tolist() == [2, 4, 6, 8]
    np.testing.assert_array_equal(run(folded)[0], run(original)[0])


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
    for actual, expected in zip(run(fused), run(original), strict=True):
        np.testing.assert_array_equal(actual, expected)


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
