from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from rexport.passes import ClipToRelu
from tests.passes._models import assert_untouched, changed_by, make, parse, rewritten, run


def model(node: str, *, opset: int, dtype: str = "float", inputs: str = "", shape: str = "N, 3") -> str:
    weights = f"""
        <{dtype} zero = {{0}}, {dtype} one = {{1}}, {dtype} six = {{6}}, {dtype} minus = {{-1}},
         {dtype}[1] zeros = {{0}}, {dtype}[1, 1] more = {{0}}, {dtype}[3] three = {{0, 0, 0}},
         {dtype} largest = {{{"2147483647" if dtype == "int32" else "3.4028234663852886e38"}}}>"""
    graph = f"graph ({dtype}[{shape}] x{inputs}) => ({dtype}[{shape}] y)"
    return f'<ir_version: 9, opset_import: ["": {opset}]> {graph} {weights} {{ a = {node}  y = Neg(a) }}'


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("Clip(x, zero)", 11),
        ("Clip(x, zero)", 18),
        ("Clip(x, zero, largest)", 18),
        ("Clip<min = 0.0>(x)", 10),
        ("Clip<min = 0.0, max = 3.4028234663852886e38>(x)", 7),
        ("Max(x, zero)", 8),
        ("Max(zero, x)", 18),
        ("Max(x, zeros)", 18),
        ("Max(more, x)", 18),
    ],
)
def test_what_cuts_off_below_zero_becomes_relu(node: str, opset: int) -> None:
    original = parse(model(node, opset=opset))
    rewritten(ClipToRelu, original, {"Relu": 1, "Neg": 1}, of_scale=0)


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("Clip(x, zero, six)", 18),
        ("Clip<min = 0.0, max = 6.0>(x)", 10),
        ("Clip(x, one)", 18),
        ("Clip(x, minus)", 18),
        ("Clip(x)", 18),
        ("Clip(x, , six)", 18),
        ("Clip(x, low)", 18),
        ("Max(x, one)", 18),
        ("Max(x, low)", 18),
        ("Max(x, three)", 18),
        ("Max(x, zero, one)", 18),
        ("Max(x, x)", 18),
        ("Min(x, zero)", 18),
    ],
)
def test_anything_else_stays(node: str, opset: int) -> None:
    original = parse(model(node, opset=opset, inputs=", float low"))
    assert_untouched(ClipToRelu, original)


def test_a_limit_that_a_caller_may_change_stays() -> None:
    assert_untouched(ClipToRelu, parse(model("Clip(x, zero)", opset=18, inputs=", float zero")))


def test_a_zero_with_more_axes_than_the_tensor_stays() -> None:
    original = parse(model("Max(x, zeros)", opset=18, shape="N"))
    original.graph.inputs[0].shape = None
    assert_untouched(ClipToRelu, original)


@pytest.mark.parametrize(("limits", "becomes"), [("zero", True), ("zero, largest", False)])
def test_the_largest_float32_is_a_limit_of_float64(limits: str, becomes: bool) -> None:
    original = parse(model(f"Clip(x, {limits})", opset=18, dtype="double"))
    changed, report = changed_by(ClipToRelu, original)
    assert report.changed == becomes
    np.testing.assert_array_equal(run(changed)[0], run(original)[0])


def test_the_largest_float16_is_no_limit_of_float16() -> None:
    limits = {"low": np.array(0, np.float16), "high": np.array(65504, np.float16)}
    original = make([helper.make_node("Clip", ["x", *limits], ["y"])], limits, x=["N", 3], y=["N", 3])
    rewritten(ClipToRelu, original, of_scale=0)


def test_integers_stay() -> None:
    original = parse(model("Clip(x, zero)", opset=18, dtype="int32"))
    assert_untouched(ClipToRelu, original)
