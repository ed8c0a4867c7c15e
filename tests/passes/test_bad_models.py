"""Graphs that no exporter of residual networks writes: the passes work around what they do not know.

What ONNX Runtime can run is run before and after; what it can't must come out with the nodes it went in with. Files
that are not even graphs are in ``tests/cli/test_bad_fuse.py``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from rexport._errors import ModelFileError
from rexport.model_file import load, to_bytes
from rexport.passes import fuse
from rexport.runtimes.onnxruntime import open_session
from tests.passes._models import ROUNDING, batch_norm, batch_norm_node, make, ops

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# Conv → BatchNormalization, and what its constants are; a body goes on from n.
_HEAD = "c = Conv <pads = [1, 1, 1, 1]> (x, w)  n = BatchNormalization (c, s, b, m, v)"
_WEIGHTS = """float[2, 2, 3, 3] w = {0.3, -0.1, 0.2, 0.5, -0.4, 0.1, 0.2, 0.3, -0.2, 0.1, 0.6, -0.5, 0.2, 0.1, 0.4,
    -0.3, 0.2, 0.1, 0.5, 0.2, -0.1, 0.3, 0.3, -0.6, 0.1, 0.2, 0.3, -0.2, 0.4, 0.5, 0.1, -0.3, 0.2, 0.6, -0.1, 0.2},
    float[2] s = {1.5, -0.7}, float[2] b = {0.3, 0.2}, float[2] m = {0.1, -0.4}, float[2] v = {0.5, 0.8}"""


def model(
    body: str, *, inputs: str = "", outputs: str = "", weights: str = "", imports: str = "", more: str = ""
) -> ir.Model:
    """Return a model from ``x`` to ``y`` that begins with a convolution and a BatchNormalization."""
    text = f"""
        <ir_version: 10, opset_import: ["": 18{imports}]>
        graph (float[N, 2, 5, 5] x{inputs}) => (float[?, ?, ?, ?] y{outputs}) <{_WEIGHTS}{weights}>
        {{ {_HEAD} {body} }} {more}"""
    return ir.from_proto(onnx.parser.parse_model(text))


def run(one: ir.Model, feeds: Mapping[str, Any]) -> list[Any]:
    proto = to_bytes(one)
    onnx.checker.check_model(proto, full_check=True)
    results: list[Any] = open_session(proto, threads=1).run(None, dict(feeds))
    return results


def picture(shape: Sequence[int] = (2, 2, 5, 5)) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def assert_equal(actual: Sequence[Any], expected: Sequence[Any]) -> None:
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=ROUNDING * np.nanmax(np.abs(e), initial=0.0), equal_nan=True)


def branch(name: str, body: str) -> str:
    return f"{name} = {name} () => (float[?, ?, ?, ?] {name}_y) {{ {body.replace('result', f'{name}_y')} }}"


def choice(then: str, otherwise: str, *, result: str = "y") -> str:
    return f"{result} = If (flag) <{branch('then_branch', then)}, {branch('else_branch', otherwise)}>"


# Each reads something of the head inside of a graph of its own, where a fusion would change it.
CAPTURES = {
    "weight": choice("result = Conv <pads = [1, 1, 1, 1]> (n, w)", "result = Relu (n)"),
    "weight alone": "y = Relu (n)  " + choice("result = Identity (w)", "result = Neg (w)", result="z"),
    "convolution": choice("result = Relu (c)", "result = Neg (n)"),
    "norm": choice("result = Relu (n)", "t = Conv <pads = [1, 1, 1, 1]> (n, w)  result = Relu (t)"),
    "parameters": choice("result = BatchNormalization (x, s, b, m, v)", "result = Add (n, n)"),
    "fusible inside": choice(
        "t = Conv <pads = [1, 1, 1, 1]> (n, w)  result = BatchNormalization (t, s, b, m, v)", "result = Identity (n)"
    ),
}


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("captured", CAPTURES)
def test_what_a_branch_reads_stays_right(captured: str, flag: bool) -> None:
    more = ", float[?, ?, ?, ?] z" if captured == "weight alone" else ""
    original = model(CAPTURES[captured], inputs=", bool flag", outputs=more)
    feeds = {"x": picture(), "flag": np.array(flag)}
    assert_equal(run(fuse(original).model, feeds), run(original, feeds))


@pytest.mark.parametrize("flag", [True, False])
def test_branches_in_branches(flag: bool) -> None:
    inner = """t = If (flag) <then_branch = p () => (float[?, ?, ?, ?] p_y) { p_y = Conv <pads = [1, 1, 1, 1]> (x, w) },
                              else_branch = q () => (float[?, ?, ?, ?] q_y) { q_y = Neg (c) }>  result = Relu (t)"""
    original = model(choice(inner, "result = Add (n, c)"), inputs=", bool flag")
    feeds = {"x": picture(), "flag": np.array(flag)}
    assert_equal(run(fuse(original).model, feeds), run(original, feeds))


def test_a_branch_that_is_known_takes_the_place_of_the_choice() -> None:
    constant = ", bool flag = {1}"
    original = model(choice("result = Conv <pads = [1, 1, 1, 1]> (n, w)", "result = Relu (n)"), weights=constant)
    fused = fuse(original).model
    assert_equal(run(fused, {"x": picture()}), run(original, {"x": picture()}))


LOOPS = {
    "weight": "r = Conv <pads = [1, 1, 1, 1]> (a, w)",
    "convolution": "r = Add (a, c)",
    "norm": "r = Mul (a, n)",
    "fusible inside": "t = Conv <pads = [1, 1, 1, 1]> (a, w)  r = BatchNormalization (t, s, b, m, v)",
}


@pytest.mark.parametrize("captured", LOOPS)
def test_what_a_loop_reads_stays_right(captured: str) -> None:
    body = f"""y = Loop (count, go, n) <body = loop (int64 i, bool go_in, float[?, ?, ?, ?] a)
               => (bool go_out, float[?, ?, ?, ?] r) {{ go_out = Identity (go_in)  {LOOPS[captured]} }}>"""
    original = model(body, weights=", int64 count = {3}, bool go = {1}")
    assert_equal(run(fuse(original).model, {"x": picture()}), run(original, {"x": picture()}))


def test_what_a_scan_reads_stays_right() -> None:
    body = """first = Identity (x)
              last, steps = Scan <num_scan_inputs = 1, body = scan (float[?, ?, ?] a, float[?, ?, ?] p)
              => (float[?, ?, ?] a_out, float[?, ?, ?] r) {
                mean = ReduceMean (p)  a_out = Add (a, mean)
                axes = Constant <value_ints = [0]> ()  one = Unsqueeze (p, axes)
                t = Conv <pads = [1, 1, 1, 1]> (one, w)  r = Squeeze (t, axes) }> (begin, n)
              y = Add (steps, first)"""
    original = model(body, weights=", float[1, 1, 1] begin = {0}")
    assert_equal(run(fuse(original).model, {"x": picture()}), run(original, {"x": picture()}))


def test_names_inside_of_branches_are_taken_too() -> None:
    taken = "n.bias = Neg (n)  result = Relu (n.bias)".replace("n.bias", '"n.bias"')
    original = model(choice(taken, "result = Relu (n)"), inputs=", bool flag")
    fused = fuse(original).model
    assert ops(fused) == {"Conv": 1, "If": 1}
    feeds = {"x": picture(), "flag": np.array(True)}
    assert_equal(run(fused, feeds), run(original, feeds))


# functions and other domains


def test_a_function_is_written_out_and_fused() -> None:
    function = """<domain: "own", opset_import: ["": 18]>
        Block (a, w, s, b, m, v) => (r) {
            t = Conv <pads = [1, 1, 1, 1]> (a, w)  r = BatchNormalization (t, s, b, m, v) }"""
    original = model("y = own.Block (n, w, s, b, m, v)", imports=', "own": 1', more=function)
    fused = fuse(original).model
    assert_equal(run(fused, {"x": picture()}), run(original, {"x": picture()}))
    assert not fused.functions


def test_a_function_with_the_name_of_an_operator_is_what_it_says() -> None:
    function = """<domain: "own", opset_import: ["": 18]>
        BatchNormalization (a, s, b, m, v) => (r) { r = Neg (a) }"""
    original = model("d = Conv <pads = [1, 1, 1, 1]> (n, w)  y = own.BatchNormalization (d, s, b, m, v)",
                     imports=', "own": 1', more=function)  # fmt: skip
    fused = fuse(original).model
    assert_equal(run(fused, {"x": picture()}), run(original, {"x": picture()}))


UNKNOWN = {
    "a convolution of others": "d = com.example.Conv (x, w)  y = BatchNormalization (d, s, b, m, v)",
    "a norm of others": "d = Conv (n, w)  y = com.example.BatchNormalization (d, s, b, m, v)",
    "an identity of others": "y = com.example.Identity (n)",
    "a reader of others": "d = com.example.Foo (c)  y = Add (d, n)",
    "a constant of others": "d = com.example.Constant ()  y = Add (d, n)",
    "a rectifier of others": "d = Relu (n)  y = com.example.Relu (d)",
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_operators_of_others_are_no_operators_of_onnx(what: str) -> None:
    original = model(UNKNOWN[what], imports=', "com.example": 1')
    fused = fuse(original).model
    onnx.checker.check_model(to_bytes(fused))
    of_others = [(node.op_type, len(node.inputs)) for node in original.graph if node.domain == "com.example"]
    assert [(node.op_type, len(node.inputs)) for node in fused.graph if node.domain == "com.example"] == of_others
    if what == "a reader of others":  # of the convolution's result
        assert ops(fused)["BatchNormalization"] == 1
    if what == "a convolution of others":
        assert ops(fused)["BatchNormalization"] == 1
        weight = fused.graph.initializers["w"].const_value
        assert weight is not None
        np.testing.assert_array_equal(weight.numpy(), original.graph.initializers["w"].const_value.numpy())


def test_operators_of_onnx_runtime() -> None:
    body = """d = com.microsoft.FusedConv <pads = [1, 1, 1, 1], activation = "Relu"> (n, w)
              e = BatchNormalization (d, s, b, m, v)  y = com.microsoft.Gelu (e)"""
    original = model(body, imports=', "com.microsoft": 1')
    fused = fuse(original).model
    assert ops(fused)["BatchNormalization"] >= 1  # after the rectifier that FusedConv has inside
    assert_equal(run(fused, {"x": picture()}), run(original, {"x": picture()}))


# types


def test_sequences_and_optionals_pass() -> None:
    body = """at = Constant <value_int = 0> ()  q = SequenceConstruct (n, c)  d = SequenceAt (q, at)
              o = Optional (d)  y = OptionalGetElement (o)"""
    original = model(body)
    assert_equal(run(fuse(original).model, {"x": picture()}), run(original, {"x": picture()}))


def test_a_sequence_as_output() -> None:
    original = model("q = SequenceConstruct (n, c)  y = Relu (n)", outputs=", seq(float[N, 2, 5, 5]) q")
    before, after = run(original, {"x": picture()}), run(fuse(original).model, {"x": picture()})
    assert_equal(after[:1], before[:1])
    assert_equal(after[1], before[1])


def text_model() -> ir.Model:
    """Return a model with text among its weights, behind weights of more than 1 KB."""
    weights = {"w": np.random.default_rng(0).standard_normal((32, 3, 3, 3)).astype(np.float32) / 5}
    weights |= batch_norm(np.random.default_rng(0), 32, "norm")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm_node("c", "y", "norm")]
    proto = ir.to_proto(make(nodes, weights, x=["n", 3, 8, 8], y=["n", 32, 6, 6]))
    proto.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [2], [b"a", "ü".encode()]))
    proto.graph.node.append(helper.make_node("Identity", ["text"], ["names"]))
    proto.graph.output.append(helper.make_tensor_value_info("names", TensorProto.STRING, [2]))
    return ir.from_proto(proto)


def test_text_among_the_weights() -> None:
    original, x = text_model(), picture((2, 3, 8, 8))
    fused = fuse(original).model
    assert [value.name for value in fused.graph.inputs] == ["x"]
    (y, names), (expected, _) = run(fused, {"x": x}), run(original, {"x": x})
    assert_equal([y], [expected])
    assert list(names) == ["a", "ü"]


@pytest.mark.parametrize("kind", ["float16", "float64", "bfloat16"])
def test_other_kinds_of_floats_stay_what_they_are(kind: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, kind, None) or kind)
    weights = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)) / 5} | batch_norm(
        np.random.default_rng(0), 4, "norm"
    )
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm_node("c", "y", "norm", epsilon=2**-16)],
            "graph",
            [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(dtype), ["n", 3, 8, 8])],
            [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(dtype), ["n", 4, 6, 6])],
            [numpy_helper.from_array(array.astype(dtype), name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 22)],  # the first with bfloat16
        ir_version=10,
    )
    fused = fuse(ir.from_proto(proto)).model
    onnx.checker.check_model(to_bytes(fused), full_check=True)
    assert ops(fused) == {"Conv": 1}
    assert {value.const_value.dtype.numpy() for value in fused.graph.initializers.values()} == {dtype}
    # ONNX Runtime has no float64 and bfloat16 kernels; the reference of the package onnx has
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(dtype)
    before = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})[0].astype(np.float64)
    after = onnx.reference.ReferenceEvaluator(ir.to_proto(fused)).run(None, {"x": x})[0].astype(np.float64)
    # the weight is rounded once more, and every product and sum, 27 of them, is on both sides
    rounding = 27 * float(ml_dtypes.finfo(dtype).eps)
    assert np.abs(after - before).max() <= rounding * np.abs(before).max()


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-9, 9, shape, np.int8)


def test_integers_behind_a_dequantization_are_not_touched_in_a_model_of_integers() -> None:
    body = """q = QuantizeLinear (n, qs, qz)  e = DequantizeLinear (q, qs, qz)
              k = DequantizeLinear <axis = 0> (i, ks)  d = Conv (e, k)  y = BatchNormalization (d, s, b, m, v)"""
    original = model(body, weights=", float[2] ks = {0.1, 0.2}, float qs = {0.05}, int8 qz = {0}")
    original.graph.register_initializer(ir.Value(name="i", const_value=ir.tensor(integers(2, 2, 1, 1), name="i")))
    proto = ir.to_proto(original)
    original = ir.from_proto(proto)
    result = fuse(original)
    assert ops(result.model) == {"Conv": 2, "QuantizeLinear": 1, "DequantizeLinear": 2, "BatchNormalization": 1}
    refused = [refusal.why for report in result.reports for refusal in report.refusals]
    assert "its convolution's weight 'k' is computed while the model runs" in refused
    assert_equal(run(result.model, {"x": picture()}), run(original, {"x": picture()}))


def test_activations_between_integers_are_not_touched() -> None:
    body = """q = QuantizeLinear (n, qs, qz)  d = DequantizeLinear (q, qs, qz)  e = Relu (d)
              f = QuantizeLinear (e, qs, qz)  y = DequantizeLinear (f, qs, qz)"""
    original = model(body, weights=", float qs = {0.05}, int8 qz = {0}")
    fused = fuse(original).model
    assert ops(fused)["QuantizeLinear"] == ops(fused)["DequantizeLinear"] == 2
    # a number that lies between two integers may be rounded to either
    (y,), (expected,) = run(fused, {"x": picture()}), run(original, {"x": picture()})
    assert np.abs(y - expected).max() <= 0.05 * (1 + ROUNDING)
    assert (y != expected).mean() < 0.01


# shapes and numbers


def replaced(name: str, array: np.ndarray) -> ir.Model:
    proto = ir.to_proto(model("y = Relu (n)"))
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


@pytest.mark.parametrize(("name", "number"), [("w", np.nan), ("w", np.inf), ("s", np.inf), ("b", np.nan), ("v", -1.0)])
@pytest.mark.filterwarnings("error")
def test_numbers_that_are_none_stay_where_they_are(name: str, number: float) -> None:
    array = np.full((2, 2, 3, 3) if name == "w" else (2,), 0.5, np.float32)
    array[1] = number
    original = replaced(name, array)
    result = fuse(original)
    assert ops(result.model)["BatchNormalization"] == 1
    assert_equal(run(result.model, {"x": picture()}), run(original, {"x": picture()}))
    refused = {refusal.why for report in result.reports for refusal in report.refusals}
    assert any("not finite" in why or "can't hold" in why for why in refused)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("s", (3,)), ("s", (2, 1)), ("v", (1, 2)), ("m", ()), ("b", (1,)), ("v", (0,))],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)) or "scalar",
)
def test_parameters_of_shapes_that_do_not_belong_together_are_left_alone(name: str, shape: tuple[int, ...]) -> None:
    original = replaced(name, np.full(shape, 0.5, np.float32))
    result = fuse(original)
    assert ops(result.model) == ops(original)
    assert any(report.refusals for report in result.reports)


@pytest.mark.parametrize("shape", [(), (2,), (2, 18), (2, 2, 3, 3, 1), (3, 2, 3, 3), (2, 0, 3, 3)], ids=str)
def test_weights_of_any_shape_give_a_model_or_a_refusal(shape: tuple[int, ...]) -> None:
    fused = fuse(replaced("w", np.full(shape, 0.5, np.float32))).model
    onnx.checker.check_model(to_bytes(fused))


@pytest.mark.parametrize("group", [0, 2, 3, 2**40, -1])
def test_groups_that_do_not_divide_the_channels(group: int) -> None:
    original = model("d = BatchNormalization (n, s, b, m, v)  y = Relu (d)")
    original.graph[0].attributes.add(ir.AttrInt64("group", group))
    onnx.checker.check_model(to_bytes(fuse(original).model))


@pytest.mark.parametrize(
    "attributes",
    [{"pads": [2**40] * 4}, {"pads": [-1] * 4}, {"pads": [1] * 3}, {"strides": [2**62] * 2}, {"strides": [0, 0]},
     {"dilations": [2**62] * 2}, {"kernel_shape": [7, 7]}, {"auto_pad": "SOME"}],
    ids=str,
)  # fmt: skip
def test_attributes_beyond_all_measure(attributes: dict[str, Any]) -> None:
    original = model("d = Pad (n, p)  e = Conv (d, w)  f = MaxPool <kernel_shape = [1, 1]> (e)  y = Relu (f)",
                     weights=", int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}")  # fmt: skip
    for node in original.graph:
        if node.op_type in ("Conv", "MaxPool"):
            node.attributes.update(
                {key: ir.convenience.convert_attribute(key, value) for key, value in attributes.items()}
            )
    onnx.checker.check_model(to_bytes(fuse(original).model))


def test_nothing_at_all_goes_in_and_out() -> None:
    original, x = model("y = Relu (n)"), picture((0, 2, 5, 5))
    assert run(fuse(original).model, {"x": x})[0].shape == run(original, {"x": x})[0].shape == (0, 2, 5, 5)


def test_a_convolution_to_no_channels() -> None:
    weights = {"w": np.zeros((0, 3, 3, 3), np.float32)} | batch_norm(np.random.default_rng(0), 0, "norm")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm_node("c", "y", "norm")]
    fused = fuse(make(nodes, weights, x=["n", 3, 8, 8], y=["n", 0, 6, 6])).model
    onnx.checker.check_model(to_bytes(fused), full_check=True)


@pytest.mark.parametrize("sizes", ["N, C, H, W", "?, ?, ?, ?", "N, 2, H, W", "N, N, N, N"])
def test_open_sizes_everywhere(sizes: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["": 18]>
        graph (float[{sizes}] x) => (float[?, ?] y) <{_WEIGHTS}, int64[2] t = {{0, -1}}>
        {{ {_HEAD} r = Relu (n)  p = ReduceMean <keepdims = 1> (r, axes)  y = Reshape (p, t) }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    original, x = ir.from_proto(proto), picture((2, 2, 2, 2))
    fused = fuse(original).model
    assert ops(fused)["BatchNormalization"] == 0
    assert_equal(run(fused, {"x": x}), run(original, {"x": x}))


# names and ends


def test_ends_that_are_one_and_the_same() -> None:
    original = model("y = Identity (x)", outputs=", float[N, 2, 5, 5] x, float[N, 2, 5, 5] n, float[2, 2, 3, 3] w")
    fused = fuse(original).model
    assert [value.name for value in fused.graph.outputs] == ["y", "x", "n", "w"]
    assert_equal(run(fused, {"x": picture()}), run(original, {"x": picture()}))


def test_any_alphabet() -> None:
    proto = ir.to_proto(model("y = Relu (n)"))
    names = {"c": "畳み込み", "n": "Größe 🙂", "w": "вес/1:0", "s": "a.b.c", "y": "out\nput", "x": "图像"}
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.name = names.get(value.name, value.name)
    original = ir.from_proto(proto)
    fused = fuse(original).model
    assert ops(fused) == {"Conv": 1, "Relu": 1}
    assert_equal(run(fused, {"图像": picture()}), run(original, {"图像": picture()}))


def test_inputs_that_are_left_out() -> None:
    original = model("d = Conv <pads = [1, 1, 1, 1]> (n, w, )  e = Clip (d, , )  f = Clip (e, , s0)  y = Pad (f, p, )",
                     weights=", float s0 = {3}, int64[8] p = {0, 0, 0, 0, 0, 0, 0, 0}")  # fmt: skip
    assert_equal(run(fuse(original).model, {"x": picture()}), run(original, {"x": picture()}))


@pytest.mark.parametrize("kind", ["value", "initializer", "input", "node"])
def test_names_that_a_pass_would_give(kind: str) -> None:
    names = [
        f"{name}{suffix}" for name in ("n", "c", "y") for suffix in (".weight", ".bias", "_1", "_pooled", ".flatten")
    ]
    body, inputs, weights = "", "", ""
    if kind in ("value", "node"):
        body = "  ".join(f'"{name}" = Neg (x)' for name in names)
    elif kind == "input":
        inputs = "".join(f', float[1, 1, 1, 1] "{name}"' for name in names)
    else:
        weights = "".join(f', float[1, 1, 1, 1] "{name}" = {{2}}' for name in names)
    total = "x"
    for index, name in enumerate(names):
        body += f'  sum{index} = Add ({total}, "{name}")'
        total = f"sum{index}"
    original = model(f"{body}  y = Add (n, {total})", inputs=inputs, weights=weights)
    if kind == "node":
        for node in original.graph:
            node.name = node.outputs[0].name
    feeds = {"x": picture()}
    if kind == "input":
        feeds |= {name: np.full((1, 1, 1, 1), 2, np.float32) for name in names}
    fused = fuse(original).model
    assert ops(fused)["BatchNormalization"] == 0
    assert_equal(run(fused, feeds), run(original, feeds))


# through a file


def written(path: Path, change: Callable[[onnx.ModelProto], None]) -> ir.Model:
    proto = ir.to_proto(model("y = Relu (n)"))
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return load(path)


def test_sizes_below_zero_are_open(tmp_path: Path) -> None:
    def negative(proto: onnx.ModelProto) -> None:
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = -1

    loaded = written(tmp_path / "m.onnx", negative)
    assert not any(isinstance(value.shape[0], int) for value in (*loaded.graph.inputs, *loaded.graph.outputs))
    assert_equal(run(fuse(loaded).model, {"x": picture()}), run(model("y = Relu (n)"), {"x": picture()}))


def test_an_output_without_a_shape_gets_one(tmp_path: Path) -> None:
    loaded = written(tmp_path / "m.onnx", lambda proto: proto.graph.output[0].type.tensor_type.ClearField("shape"))
    assert re.fullmatch(r"\[N,2,5,5\]", str(loaded.graph.outputs[0].shape))
    assert ops(fuse(loaded).model) == {"Conv": 1, "Relu": 1}


def test_more_weights_than_a_file_holds_are_not_even_tried() -> None:
    changed = model("y = Relu (n)")
    endless = np.broadcast_to(np.float32(0), 3 * 2**28)  # one number, seen as many
    changed.graph.register_initializer(ir.Value(name="endless", const_value=ir.Tensor(endless, name="endless")))
    with pytest.raises(
        ModelFileError, match=r"The model has 3\.0 GiB of weights, and one ONNX file, .*, holds 2 at most"
    ):
        to_bytes(changed)
