from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport.passes import FuseConvBatchNorm
from tests.passes._models import (
    MAY_CHANGE,
    Convolution,
    assert_close,
    assert_untouched,
    batch_norm,
    batch_norm_node,
    changed_by,
    convolutions,
    make,
    ops,
    parse,
    refusal,
    rewritten,
    run,
)

if TYPE_CHECKING:
    import onnx_ir as ir

PLAIN = Convolution(dimensions=2, groups=1, inputs=3, outputs=4, kernel=3, stride=1, padding=1, dilation=1, bias=False)


def model(conv: Convolution = PLAIN, norms: int = 1, seed: int = 0) -> ir.Model:
    rng = np.random.default_rng(seed)
    names = ["conv_result", *(f"norm{i}_result" for i in range(norms - 1)), "y"]
    nodes, weights = [conv.node("x", "conv_result")], conv.weights(rng)
    for i in range(norms):
        nodes.append(batch_norm_node(names[i], names[i + 1], f"norm{i}", epsilon=1e-3))
        weights |= batch_norm(rng, conv.groups * conv.outputs, f"norm{i}")
    return make(nodes, weights, x=conv.picture, y=conv.result)


@pytest.mark.slow
@given(conv=convolutions(padding=st.integers(0, 2)), norms=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_one_convolution_computes_the_same(conv: Convolution, norms: int, seed: int) -> None:
    original = model(conv, norms, seed)
    rewritten(FuseConvBatchNorm, original, {"Conv": 1}, changed=norms)


@given(
    conv=convolutions(padding=st.integers(0, 1)),
    output_padding=st.integers(0, 1),
    norms=st.integers(1, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=50)
def test_a_transposed_convolution_computes_the_same(
    conv: Convolution, output_padding: int, norms: int, seed: int
) -> None:
    conv = replace(conv, dimensions=min(conv.dimensions, 2), kernel=max(conv.kernel, 2), stride=2, dilation=1)
    rng = np.random.default_rng(seed)
    outputs = conv.groups * conv.outputs
    shape = (conv.groups * conv.inputs, conv.outputs, *[conv.kernel] * conv.dimensions)
    weights = {"w": rng.standard_normal(shape).astype(np.float32)}
    weights |= {"b": rng.standard_normal(outputs).astype(np.float32)} if conv.bias else {}
    node = conv.node("x", "r0")
    node.op_type = "ConvTranspose"
    node.attribute.append(helper.make_attribute("output_padding", [output_padding] * conv.dimensions))
    nodes = [node]
    for i in range(norms):
        nodes.append(batch_norm_node(f"r{i}", "y" if i == norms - 1 else f"r{i + 1}", f"norm{i}"))
        weights |= batch_norm(rng, outputs, f"norm{i}")
    original = make(nodes, weights, x=conv.picture, y=conv.result)
    rewritten(FuseConvBatchNorm, original, {"ConvTranspose": 1}, changed=norms)


@given(
    transposed=st.booleans(),
    alpha=st.sampled_from([None, 1.0, 0.5, -2.0]),
    beta=st.sampled_from([None, 1.0, 0.0, -0.7]),
    bias=st.sampled_from([None, (), (1,), (1, 1), (5,), (1, 5)]),
    opset=st.sampled_from([11, 13, 18]),
    seed=st.integers(0, 99),
)
@settings(max_examples=50)
def test_a_linear_layer_computes_the_same(
    transposed: bool, alpha: float | None, beta: float | None, bias: tuple[int, ...] | None, opset: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = {"w": rng.standard_normal((5, 3) if transposed else (3, 5)).astype(np.float32)}
    weights |= {} if bias is None else {"b": rng.standard_normal(bias).astype(np.float32)}
    factors = {name: value for name, value in (("alpha", alpha), ("beta", beta)) if value is not None}
    gemm = helper.make_node("Gemm", ["x", *weights], ["g"], transB=int(transposed), **factors)
    original = make(
        [gemm, batch_norm_node("g", "y", "norm")],
        weights | batch_norm(rng, 5, "norm"),
        x=["N", 3],
        y=["N", 5],
        opset=opset,
    )
    rewritten(FuseConvBatchNorm, original, {"Gemm": 1})


@pytest.mark.parametrize("op_type", ["Mul", "Div", "Add", "Sub"])
@pytest.mark.parametrize("first", [False, True], ids=["conv op k", "k op conv"])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1), (1, 1, 1, 1)])
def test_arithmetic_per_channel(op_type: str, first: bool, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    nodes = [PLAIN.node("x", "c"), helper.make_node(op_type, ["k", "c"] if first else ["c", "k"], ["y"])]
    weights = PLAIN.weights(rng) | {"k": rng.uniform(0.5, 2, shape).astype(np.float32)}
    original = make(nodes, weights, x=PLAIN.picture, y=PLAIN.result)
    fused, report = changed_by(FuseConvBatchNorm, original)
    if op_type == "Div" and first:
        assert (report.changed, report.refusals) == (0, ())
        return
    assert report.changed == 1
    assert ops(fused) == {"Conv": 1}
    assert_close(run(fused), run(original))


def test_a_batch_normalization_in_parts() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 2, 4, 4] y)
        <float[2, 1, 1, 1] w = {2, 3}, float[2, 1, 1] mean = {1, 2}, float[1, 2, 1, 1] deviation = {0.5, 4},
         float[2, 1, 1] scale = {3, -1}, float bias = {7}>
        {
            c = Conv(x, w)
            centred = Sub(c, mean)
            normal = Div(centred, deviation)
            scaled = Mul(scale, normal)
            y = Add(scaled, bias)
        }""")
    rewritten(FuseConvBatchNorm, original, {"Conv": 1}, changed=4)


@pytest.mark.parametrize(
    ("weights", "nodes", "reason"),
    [
        pytest.param(
            "float[4] k = {1, 2, 3, 4}",
            "y = Mul(c, k)",
            "its factor has the shape 4, which is not one number per channel",
            id="per column",
        ),
        pytest.param(
            "float[1, 2, 4, 1] k = {1, 2, 3, 4, 5, 6, 7, 8}",
            "y = Add(c, k)",
            "its summand has the shape 1×2×4×1, which is not one number per channel",
            id="per row and channel",
        ),
        pytest.param(
            "float[1, 1, 1, 1, 1] k = {2}, int64[1] first = {0}",
            "v = Sub(c, k)  y = Squeeze(v, first)",
            "its summand has the shape 1×1×1×1×1, which is not one number per channel",
            id="one more axis",
        ),
        pytest.param(
            "float k = {0}", "y = Div(c, k)", "its divisor gives values that are not finite", id="division by zero"
        ),
        pytest.param(
            "float k = {1e38}",
            "y = Mul(c, k)",
            "folded into the convolution, its parameters give weights that float32 can't hold",
            id="overflow",
        ),
    ],
)
def test_arithmetic_that_is_no_map_per_channel_is_refused(weights: str, nodes: str, reason: str) -> None:
    original = parse(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 2, 4, 4] y)
        <float[2, 1, 1, 1] w = {{20, 30}}, {weights}> {{ c = Conv(x, w)  {nodes} }}""")
    assert refusal(FuseConvBatchNorm, original) == reason


@pytest.mark.parametrize(
    "nodes", ["y = Add(c, c)", "y = Add(c, x)", "d = Add(c, three)  y = Mul(c, d)", "y = Mul(c, k)"]
)
def test_arithmetic_that_is_no_constant_s_is_no_match(nodes: str) -> None:
    original = parse(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x, float k) => (float[N, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {{2}}, float three = {{3}}, float k = {{4}}> {{ c = Conv(x, w)  {nodes} }}""")
    assert_untouched(FuseConvBatchNorm, original)


@pytest.mark.parametrize(
    ("bias", "reason"),
    [
        (
            "float[4, 1] b = {1, 2, 3, 4}",
            "its linear layer's bias 'b' has the shape 4×1, which is not one number per output",
        ),
        (
            "float[4, 2] b = {1, 2, 3, 4, 5, 6, 7, 8}",
            "its linear layer's bias 'b' has the shape 4×2, which is not one number per output",
        ),
    ],
)
def test_a_linear_layer_with_a_bias_per_row_is_refused(bias: str, reason: str) -> None:
    original = parse(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[4, 3] x) => (float[4, 2] y)
        <float[3, 2] w = {{1, 2, 3, 4, 5, 6}}, {bias}, float[2] s = {{1, 2}}>
        {{ g = Gemm(x, w, b)  y = BatchNormalization(g, s, s, s, s) }}""")
    assert refusal(FuseConvBatchNorm, original) == reason


def test_the_weight_is_the_formula_s() -> None:
    original = model()
    fused, _ = changed_by(FuseConvBatchNorm, original)
    old = {name: value.const_value.numpy().astype(np.float64) for name, value in original.graph.initializers.items()}
    scale = old["norm0.scale"] / np.sqrt(old["norm0.var"] + 1e-3)
    new = fused.graph.node(0).inputs
    # each is rounded to float32 once
    np.testing.assert_allclose(new[1].const_value.numpy(), old["w"] * scale[:, None, None, None], rtol=2**-24, atol=0)
    np.testing.assert_allclose(
        new[2].const_value.numpy(), old["norm0.bias"] - old["norm0.mean"] * scale, rtol=2**-23, atol=0
    )


def test_a_wrong_scale_would_be_seen() -> None:
    original = model()
    fused, _ = changed_by(FuseConvBatchNorm, original)
    weight = fused.graph.node(0).inputs[1]
    weight.const_value.numpy()[1] *= 1.0001
    with pytest.raises(AssertionError):
        assert_close(run(fused), run(original))


def test_the_output_and_the_weight_keep_their_names() -> None:
    fused, _ = changed_by(FuseConvBatchNorm, model())
    assert [value.name for value in fused.graph.outputs] == ["y"]
    conv = fused.graph.node("conv")
    assert [value.name for value in conv.inputs] == ["x", "w", "y.bias"]
    assert [value.name for value in conv.outputs] == ["y"]


def test_the_new_bias_takes_no_name_that_is_taken() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y, float[N, 1, 4, 4] z)
        <float[1, 1, 1, 1] w = {2}, float[1] one = {1}>
        { conv = Conv(x, w)  y = BatchNormalization(conv, one, one, one, one)  other = Relu(x)  z = Relu(other) }"""
    original = parse(text)
    original.graph.node(2).outputs[0].name = "y.bias"
    rewritten(FuseConvBatchNorm, original)


def test_a_shared_bias_stays_as_it_is_for_its_other_reader() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y, float[N, 2, 4, 4] z)
        <float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2, 2, 1, 1] v = {1, 2, 3, 4},
         float[2] b = {5, 6}, float[2] s = {2, 3}>
        { conv = Conv(x, w, b)  y = BatchNormalization(conv, s, s, s, s)  z = Conv(x, v, b) }"""
    original = parse(text)
    rewritten(FuseConvBatchNorm, original)


def test_the_default_epsilon_is_the_operator_s() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {1}, float[1] one = {1}, float[1] zero = {0}>
        { conv = Conv(x, w)  y = BatchNormalization(conv, one, zero, zero, zero) }"""
    fused, _ = changed_by(FuseConvBatchNorm, parse(text))  # the variance is nothing but epsilon
    assert fused.graph.node(0).inputs[1].const_value.numpy().item() == pytest.approx(1e-5**-0.5, rel=1e-6)


def test_float16_stays_float16() -> None:
    weights = {"w": np.full((2, 3, 1, 1), 0.5, np.float16)} | batch_norm(np.random.default_rng(0), 2, "norm", "float16")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm_node("c", "y", "norm")]
    original = make(nodes, weights, x=["N", 3, 4, 4], y=["N", 2, 4, 4])
    fused = rewritten(FuseConvBatchNorm, original, of_scale=5e-3)  # float16 rounds by 5e-4, a few times here
    assert {value.dtype.name for value in fused.graph.node(0).inputs} == {"FLOAT16"}


TEXT = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (float[N, 1, 4, 4] x{more_inputs}) => (float[N, 1, 4, 4] y{more_outputs})
    <float[1, 1, 1, 1] w = {{2}},
     float[1] s = {{1}}, float[1] b = {{3}}, float[1] m = {{1}}, float[1] v = {{{variance}}}>
    {{
        c = Conv(x, {weight}{bias})
        {results} = BatchNormalization<{attributes}>(c, {scale}, b, m, v)
        {more_nodes}
    }}"""
DEFAULTS = {
    "more_inputs": "",
    "more_outputs": "",
    "variance": "1",
    "weight": "w",
    "bias": "",
    "results": "y",
    "attributes": "epsilon = 0.001",
    "scale": "s",
    "more_nodes": "",
}


def test_nothing_is_refused_without_a_reason() -> None:
    assert changed_by(FuseConvBatchNorm, parse(TEXT.format(**DEFAULTS)))[1].refusals == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"more_outputs": ", float[N, 1, 4, 4] z", "more_nodes": "z = Conv(x, w)"},
            "its convolution's weight 'w' is shared with 1 other place",
        ),
        ({"more_inputs": ", float[1, 1, 1, 1] w"}, f"its convolution's weight 'w' {MAY_CHANGE}"),
        ({"more_inputs": ", float[1, 1, 1, 1] u", "weight": "u"}, f"its convolution's weight 'u' {MAY_CHANGE}"),
        ({"more_outputs": ", float[1, 1, 1, 1] w"}, "its convolution's weight 'w' is an output of the model"),
        ({"more_inputs": ", float[1] a", "bias": ", a"}, f"its convolution's bias 'a' {MAY_CHANGE}"),
        ({"more_outputs": ", float[N, 1, 4, 4] c"}, "its convolution's result 'c' is an output of the model"),
        (
            {"more_outputs": ", float[N, 1, 4, 4] z", "more_nodes": "z = Relu(c)"},
            "its convolution's result 'c' is shared with 1 other place",
        ),
        (
            {"attributes": "training_mode = 1", "results": "y, new_mean, new_var"},
            "it is in training mode: its statistics change while the model runs",
        ),
        ({"more_inputs": ", float[1] t", "scale": "t"}, f"its scale 't' {MAY_CHANGE}"),
        ({"variance": "-0.5"}, "its parameters give values that are not finite"),
        ({"variance": "0", "attributes": "epsilon = 0.0"}, "its parameters give values that are not finite"),
        (
            {"variance": "1e-38", "attributes": "epsilon = 1e-44", "scale": "huge"},
            "folded into the convolution, its parameters give weights that float32 can't hold",
        ),
    ],
)
def test_refusals_say_why(changes: dict[str, str], reason: str) -> None:
    text = TEXT.format(**DEFAULTS | changes).replace("float[1] s =", "float[1] huge = {1e30}, float[1] s =")
    assert refusal(FuseConvBatchNorm, parse(text)) == reason


def test_a_scale_that_is_computed_is_refused() -> None:
    text = TEXT.format(**DEFAULTS | {"scale": "t", "more_inputs": ", float[1] u"}).replace("c = C", "t = Relu(u) c = C")
    assert refusal(FuseConvBatchNorm, parse(text)) == "its scale 't' is computed while the model runs"


def test_before_opset_14_more_outputs_mean_training() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 9]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {2}, float[1] s = {1}>
        { c = Conv(x, w)  y, mean, var, saved_mean, saved_var = BatchNormalization(c, s, s, s, s) }"""
    assert refusal(FuseConvBatchNorm, parse(text)) == (
        "it is in training mode: its statistics change while the model runs"
    )


def test_a_result_that_a_branch_reads_is_refused() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x, bool flag) => (float[N, 1, 4, 4] y, float[N, 1, 4, 4] z)
        <float[1, 1, 1, 1] w = {2}, float[1] s = {1}>
        {
            c = Conv(x, w)
            y = BatchNormalization(c, s, s, s, s)
            z = If(flag) <then_branch = yes () => (float[N, 1, 4, 4] a) { a = Relu(c) },
                          else_branch = no () => (float[N, 1, 4, 4] b) { b = Neg(x) }>
        }"""
    assert refusal(FuseConvBatchNorm, parse(text)) == "its convolution's result 'c' is shared with 1 other place"


def test_a_refusal_is_under_the_node_s_name() -> None:
    original = model()
    original.graph.outputs.append(original.graph.node("conv").outputs[0])
    _, report = changed_by(FuseConvBatchNorm, original)
    assert [where.where for where in report.refusals] == ["norm0"]


def test_batch_normalization_behind_anything_else_stays() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {2}, float[1] s = {1}>
        { c = Conv(x, w)  r = Relu(c)  y = BatchNormalization(r, s, s, s, s) }"""
    assert_untouched(FuseConvBatchNorm, parse(text))
