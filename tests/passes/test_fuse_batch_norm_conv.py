from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport.passes import FuseBatchNormConv
from rexport.passes._batch_norm import Affine
from rexport.passes._border import border_value
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

GROUPS = "the convolution after it has groups and pads with zeros, which do not commute with its shift"
PLAIN = Convolution(dimensions=2, groups=1, inputs=3, outputs=4, kernel=3, stride=1, padding=0, dilation=1, bias=False)


def model(conv: Convolution, norms: int = 1, seed: int = 0, *, shift: bool = True) -> ir.Model:
    rng = np.random.default_rng(seed)
    names = ["x", *(f"norm{i}_result" for i in range(norms))]
    nodes, weights = [], conv.weights(rng)
    for i in range(norms):
        nodes.append(batch_norm_node(names[i], names[i + 1], f"norm{i}"))
        weights |= batch_norm(rng, conv.groups * conv.inputs, f"norm{i}")
        if not shift:
            weights |= {f"norm{i}.{name}": 0 * weights[f"norm{i}.{name}"] for name in ("bias", "mean")}
    return make([*nodes, conv.node(names[-1], "y")], weights, x=conv.picture, y=conv.result)


@pytest.mark.slow
@given(conv=convolutions(padding=st.just(0)), norms=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_one_convolution_computes_the_same(conv: Convolution, norms: int, seed: int) -> None:
    original = model(conv, norms, seed)
    rewritten(FuseBatchNormConv, original, {"Conv": 1})  # all in a row at once


@given(conv=convolutions(padding=st.integers(1, 2)), seed=st.integers(0, 99))
@settings(max_examples=50)
def test_under_padding_a_scale_goes_in(conv: Convolution, seed: int) -> None:
    original = model(conv, seed=seed, shift=False)
    rewritten(FuseBatchNormConv, original, {"Conv": 1})


@pytest.mark.slow
@given(conv=convolutions(padding=st.integers(1, 2)), norms=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=50)
def test_under_padding_a_shift_becomes_a_channel_of_ones(conv: Convolution, norms: int, seed: int) -> None:
    original = model(replace(conv, groups=1), norms, seed)
    rewritten(FuseBatchNormConv, original, {"Pad": 1, "Conv": 1})


@given(conv=convolutions(padding=st.integers(1, 2)), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_under_padding_in_groups_a_shift_does_not_go_in(conv: Convolution, seed: int) -> None:
    grouped = replace(conv, groups=max(2, conv.groups), inputs=max(2, conv.inputs))
    assert refusal(FuseBatchNormConv, model(grouped, seed=seed)) == GROUPS


@given(
    conv=convolutions(padding=st.integers(1, 2)),
    opset=st.sampled_from([9, 11, 13, 18, 21]),
    seed=st.integers(0, 99),
)
@settings(max_examples=50)
def test_a_border_of_one_number_is_padded_with_it(conv: Convolution, opset: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    divisor, mean = rng.uniform(0.2, 1, 2).astype(np.float32)
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "divisor"], ["scaled"]),
        conv.node("scaled", "y"),
    ]
    weights = conv.weights(rng) | {"mean": np.array(mean), "divisor": np.array([divisor])}
    original = make(nodes, weights, x=conv.picture, y=conv.result, opset=opset)
    fused = rewritten(FuseBatchNormConv, original, {"Pad": 1, "Conv": 1})
    pad = fused.graph.node(0)
    value = pad.attributes.get_float("value") if opset < 11 else pad.inputs[2].const_value.numpy().item()
    assert value == pytest.approx(float(mean), rel=1e-7)
    assert fused.graph.node(1).inputs[1].shape == original.graph.initializers["w"].shape


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21])
def test_the_channel_of_ones_in_any_opset(opset: int) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32)} | batch_norm(rng, 3, "norm")
    nodes = [batch_norm_node("x", "n", "norm"), helper.make_node("Conv", ["n", "w"], ["y"], pads=[1, 0, 2, 1])]
    original = make(nodes, weights, x=["N", 3, 5, 5], y=["N", 4, 6, 4], opset=opset)
    fused, _ = changed_by(FuseBatchNormConv, original)
    assert ops(fused) == {"Pad": 1, "Conv": 1}
    assert_close(run(fused), run(original))


def test_the_channel_of_ones_in_float16() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float16)} | batch_norm(rng, 3, "norm", "float16")
    nodes = [batch_norm_node("x", "n", "norm"), helper.make_node("Conv", ["n", "w"], ["y"], pads=[1, 1, 1, 1])]
    original = make(nodes, weights, x=["N", 3, 5, 5], y=["N", 4, 5, 5])
    fused, _ = changed_by(FuseBatchNormConv, original)
    assert {value.dtype.name for value in (*fused.graph.initializers.values(),)} == {"FLOAT16", "INT64"}
    assert_close(run(fused), run(original), of_scale=5e-3)  # float16 rounds by 5e-4, a few times here


# What of a picture of numbers up to ``largest`` a network takes: (x / largest − mean) / std, as exporters write it.
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
NORMALISATIONS = {
    "Div, Sub, Div": [("Div", "largest"), ("Sub", "mean"), ("Div", "std")],
    "Sub, Mul": [("Sub", "mean_of_pixels"), ("Mul", "factor")],
    "Mul, Add": [("Mul", "factor"), ("Add", "summand")],
}


def normalised(largest: float, steps: list[tuple[str, str]]) -> ir.Model:
    constants = {
        "largest": np.array(largest),
        "mean": MEAN.reshape(1, 3, 1, 1),
        "std": STD.reshape(1, 3, 1, 1),
        "mean_of_pixels": (largest * MEAN).reshape(1, 3, 1, 1),
        "factor": (1 / (largest * STD)).reshape(1, 3, 1, 1),
        "summand": (-MEAN / STD).reshape(1, 3, 1, 1),
    }
    names = ["x", *(f"step{i}" for i in range(len(steps)))]
    nodes = [
        helper.make_node(op_type, [names[i], operand], [names[i + 1]]) for i, (op_type, operand) in enumerate(steps)
    ]
    conv = replace(PLAIN, padding=1)
    weights = conv.weights(np.random.default_rng(0)) | {operand: constants[operand] for _, operand in steps}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    model = make([*nodes, conv.node(names[-1], "y")], weights, x=conv.picture, y=conv.result)
    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))


@pytest.mark.parametrize("largest", [1e-3, 1, 255, 1e4, -255])
@pytest.mark.parametrize("steps", NORMALISATIONS)
def test_the_channel_of_ones_is_about_as_large_as_the_picture(largest: float, steps: str) -> None:
    original = normalised(largest, NORMALISATIONS[steps])
    fused, _ = changed_by(FuseBatchNormConv, original)
    assert ops(fused) == {"Pad": 1, "Conv": 1}
    pad, conv = fused.graph
    assert 0.25 < pad.inputs[2].const_value.numpy() / largest < 1  # among the numbers of the picture
    weight = conv.inputs[1].const_value.numpy()
    # its weights are sums of three channels, and take the scale of the others no further
    assert (np.abs(weight[:, 3]).max((1, 2)) < 3 * np.abs(weight[:, :3]).max((1, 2, 3))).all()
    pixels = largest * np.random.default_rng(0).uniform(0, 1, (2, 3, 7, 7)).astype(np.float32)
    assert_close(run(fused, {"x": pixels}), run(original, {"x": pixels}))


def test_the_channel_of_ones_is_a_number_that_float16_has() -> None:
    affine = Affine(np.full(3, 1e-5), np.array([1, 2, 3]))  # which is 0 at 3e5, and float16 ends at 65,504
    assert border_value(affine, np.dtype(np.float32)) == -(2**18)
    assert border_value(affine, np.dtype(np.float16)) == -(2**15)


@pytest.mark.parametrize("op_type", ["Mul", "Div", "Add", "Sub"])
@pytest.mark.parametrize("first", [False, True], ids=["x op k", "k op x"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (1, 3, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("padding", [0, 1])
def test_arithmetic_per_channel(op_type: str, first: bool, shape: tuple[int, ...], padding: int) -> None:
    rng = np.random.default_rng(0)
    conv = replace(PLAIN, padding=padding)
    inputs = ["k", "x"] if first else ["x", "k"]
    nodes = [helper.make_node(op_type, inputs, ["n"]), conv.node("n", "y")]
    weights = conv.weights(rng) | {"k": rng.uniform(0.5, 2, shape).astype(np.float32)}
    original = make(nodes, weights, x=conv.picture, y=conv.result)
    fused, report = changed_by(FuseBatchNormConv, original)
    if op_type == "Div" and first:
        assert (report.changed, report.refusals) == (0, ())
        return
    assert report.changed == 1
    assert ops(fused) == ({"Pad": 1, "Conv": 1} if padding and op_type in ("Add", "Sub") else {"Conv": 1})
    assert_close(run(fused), run(original))


def test_a_map_that_is_not_constant_ends_the_row() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {2}, float[4] k = {1, 2, 3, 4}, float s = {3}>
        { a = Mul(x, s)  b = Mul(a, k)  c = Add(b, s)  y = Conv(c, w) }""")
    fused = rewritten(FuseBatchNormConv, original)
    assert [node.op_type for node in fused.graph] == ["Mul", "Mul", "Conv"]


def test_the_pad_takes_no_name_that_is_taken() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y, float[N, 1, 4, 4] n_padded)
        <float[1, 1, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float[1] s = {3}>
        { n_padded = Relu(x)  n = BatchNormalization(x, s, s, s, s)  y = Conv<pads = [1, 1, 1, 1]>(n, w) }""")
    rewritten(FuseBatchNormConv, original)


def test_a_swapped_channel_would_be_seen() -> None:
    original = model(replace(PLAIN, groups=2))
    fused, _ = changed_by(FuseBatchNormConv, original)
    weight = fused.graph.node(0).inputs[1].const_value.numpy()
    weight[:, [0, 1]] = weight[:, [1, 0]]
    with pytest.raises(AssertionError):
        assert_close(run(fused), run(original))


@pytest.mark.parametrize(
    ("attributes", "pads"),
    [
        ('auto_pad = "VALID", kernel_shape = [3, 3]', False),
        ('auto_pad = "NOTSET", kernel_shape = [3, 3]', False),
        ('auto_pad = "SAME_UPPER", kernel_shape = [3, 3]', True),
        ('auto_pad = "SAME_LOWER", kernel_shape = [3, 3], strides = [2, 2]', True),
        ("pads = [0, 0, 0, 1]", True),
        ("pads = [0, 0, 0, 0]", False),
    ],
)
def test_every_way_to_pad_is_seen(attributes: str, pads: bool) -> None:
    original = parse(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 6, 6] x) => (float[N, 1, H, W] y)
        <float[1, 1, 3, 3] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, float[1] s = {{2}}, float[1] b = {{3}}>
        {{ n = BatchNormalization(x, s, b, b, s)  y = Conv<{attributes}>(n, w) }}""")
    rewritten(FuseBatchNormConv, original, {"Pad": 1, "Conv": 1} if pads else {"Conv": 1})


TEXT = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (float[N, 1, 4, 4] x{more_inputs}) => (float[N, 1, 4, 4] y{more_outputs})
    <float[1, 1, 1, 1] w = {{2}}, float[1] s = {{1}}, float[1] v = {{{variance}}}>
    {{
        {results} = BatchNormalization<{attributes}>(x, s, s, s, v)
        y = Conv(n, w{bias})
        {more_nodes}
    }}"""
DEFAULTS = {
    "more_inputs": "",
    "more_outputs": "",
    "variance": "1",
    "bias": "",
    "results": "n",
    "attributes": "epsilon = 0.001",
    "more_nodes": "",
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"more_outputs": ", float[N, 1, 4, 4] z", "more_nodes": "z = Conv(x, w)"},
            "its convolution's weight 'w' is shared with 1 other place",
        ),
        ({"more_inputs": ", float[1, 1, 1, 1] w"}, f"its convolution's weight 'w' {MAY_CHANGE}"),
        ({"more_inputs": ", float[1] a", "bias": ", a"}, f"its convolution's bias 'a' {MAY_CHANGE}"),
        (
            {"attributes": "training_mode = 1", "results": "n, new_mean, new_var"},
            "it is in training mode: its statistics change while the model runs",
        ),
        ({"more_inputs": ", float[1] s"}, f"its scale 's' {MAY_CHANGE}"),
        ({"variance": "-2"}, "its parameters give values that are not finite"),
    ],
)
def test_refusals_say_why(changes: dict[str, str], reason: str) -> None:
    assert refusal(FuseBatchNormConv, parse(TEXT.format(**DEFAULTS | changes))) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"more_outputs": ", float[N, 1, 4, 4] z", "more_nodes": "z = Conv(n, u)"},
        {"more_outputs": ", float[N, 1, 4, 4] n"},
    ],
    ids=["two convolutions read it", "it is an output"],
)
def test_a_result_that_others_need_too_is_no_match(changes: dict[str, str]) -> None:
    text = TEXT.format(**DEFAULTS | changes).replace("float[1] v", "float[1, 1, 1, 1] u = {3}, float[1] v")
    assert_untouched(FuseBatchNormConv, parse(text))


def test_a_batch_normalization_that_makes_the_weight_is_no_match() -> None:
    same, report = changed_by(
        FuseBatchNormConv,
        parse("""
            <ir_version: 9, opset_import: ["": 18]>
            graph (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y)
            <float[1, 1, 1, 1] w = {2}, float[1] s = {1}>
            { n = BatchNormalization(w, s, s, s, s)  y = Conv(x, n) }"""),
    )
    assert report.changed == 0
    assert ops(same) == {"BatchNormalization": 1, "Conv": 1}


@pytest.mark.parametrize(
    ("arithmetic", "reason"),
    [
        ("Mul(x, wide)", "its factor has the shape 4, which is not one number per channel"),
        ("Add(x, wide)", "its summand has the shape 4, which is not one number per channel"),
        ("Div(x, zero)", "its divisor gives values that are not finite"),
    ],
)
def test_arithmetic_that_is_no_map_per_channel_is_refused(arithmetic: str, reason: str) -> None:
    original = parse(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {{2}}, float[4] wide = {{1, 2, 3, 4}}, float zero = {{0}}>
        {{ n = {arithmetic}  y = Conv(n, w) }}""")
    assert refusal(FuseBatchNormConv, original) == reason


def test_arithmetic_with_what_a_caller_may_change_is_no_match() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 4, 4] x, float k) => (float[N, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {2}, float k = {3}> { n = Mul(x, k)  y = Conv(n, w) }""")
    assert_untouched(FuseBatchNormConv, original)


@pytest.mark.parametrize("constant", ["float[3, 1, 1] k = {1, 2, 3}", "float[1, 3, 1, 1] k = {1, 2, 3}"])
def test_a_constant_that_makes_channels_of_one_stays(constant: str) -> None:
    model = parse(f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 1, 5, 5] x) => (float[N, 1, 5, 5] y) <{constant}, float[1, 3, 1, 1] w = {{1, 2, 3}}> {{
            m = Mul(x, k)
            y = Conv(m, w)
        }}
    """)
    assert refusal(FuseBatchNormConv, model) == "what it maps is not known to have the 3 channels of its result"
