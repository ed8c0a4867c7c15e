from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from rexport.passes import RemoveNoOps
from tests.passes._models import assert_untouched, changed_by, parse, refusal, rewritten, run

WEIGHTS = """
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] four = {4},
     int64[1] last = {-1}, int64[1] end = {9223372036854775807}, int64[8] widths = {0, 0, 0, 0, 0, 0, 0, 0},
     int64[8] wider = {0, 0, 0, 0, 0, 0, 0, 1}, int64[4] shape = {0, 3, 4, -1}, int64[4] other = {0, 4, 3, 5}>"""


def model(node: str, *, x: str = "float[N, 3, 4, 5]", y: str = "float[N, 3, 4, 5]", opset: int = 18) -> str:
    weights = WEIGHTS if opset >= 11 else ""
    return (
        f'<ir_version: 9, opset_import: ["": {opset}]> graph ({x} x) => ({y} y) {weights} {{ a = {node}  y = Neg(a) }}'
    )


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("Slice(x, zero, end, zero)", 18),
        ("Slice(x, zero, end, two, one)", 11),
        ("Slice(x, zero, three, one)", 18),
        ("Slice(x, zero, four, one)", 18),
        ("Slice(x, zero, end)", 18),
        ("Slice<starts = [0, 0], ends = [2147483647, 4], axes = [0, 2]>(x)", 9),
        ("Pad(x, widths)", 18),
        ('Pad<mode = "constant">(x, widths)', 11),
        ('Pad<pads = [0, 0, 0, 0, 0, 0, 0, 0], mode = "constant">(x)', 10),
        ("Reshape(x, shape)", 18),
        ("Transpose<perm = [0, 1, 2, 3]>(x)", 18),
        ("Cast<to = 1>(x)", 18),
        ("Concat<axis = 1>(x)", 18),
        ("Sum(x)", 18),
        ("Max(x)", 8),
        ("Min(x)", 18),
        ("Mean(x)", 18),
    ],
)
def test_what_does_nothing_goes(node: str, opset: int) -> None:
    original = parse(model(node, opset=opset))
    original.graph.node(0).outputs[0].shape = original.graph.inputs[0].shape
    rewritten(RemoveNoOps, original, {"Neg": 1}, of_scale=0)


@pytest.mark.parametrize(
    ("x", "goes"), [("float[N, 6]", True), ("float[4, 6]", True), ("float[N, F]", False), ("float[N, 3, 2]", False)]
)
def test_flatten_of_what_is_flat_goes(x: str, goes: bool) -> None:
    original = parse(model("Flatten(x)", x=x, y="float[N, M]"))
    flat = original.graph.inputs[0].shape
    if len(flat) == 2:
        original.graph.node(0).outputs[0].shape = flat
    changed, report = changed_by(RemoveNoOps, original)
    assert report.changed == goes
    feeds = {"x": np.ones([4, 3, 2] if x == "float[N, 3, 2]" else [4, 6], np.float32)}
    np.testing.assert_array_equal(run(changed, feeds)[0], run(original, feeds)[0])


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("Slice(x, one, end, zero)", 18),
        ("Slice(x, zero, two, one)", 18),
        ("Slice(x, zero, four, zero)", 18),  # there may be five pictures
        ("Slice(x, zero, end, two, two)", 18),
        ("Slice(x, last, end, two)", 18),
        ("Pad(x, wider)", 18),
        ("Transpose<perm = [0, 1, 3, 2]>(x)", 18),
        ("Transpose(x)", 18),
        ("Cast<to = 10>(x)", 18),
        ("Concat<axis = 1>(x, x)", 18),
        ("Sum(x, x)", 18),
    ],
)
def test_what_does_something_stays(node: str, opset: int) -> None:
    y = "float16[A, B, C, D]" if "to = 10" in node else "float[A, B, C, D]"
    original = parse(model(node, opset=opset, y=y))
    assert_untouched(RemoveNoOps, original)


@pytest.mark.parametrize(
    "shapes",
    [([None, 3, 4, 5], [None, 4, 3, 5]), ([None, 3, None, 5], [None, 3, None, 5]), ([None, 3, 4], [None, 3, 4, 1])],
)
def test_a_reshape_stays_unless_all_sizes_but_one_are_known_to_stay(
    shapes: tuple[list[int | None], list[int | None]],
) -> None:
    original = parse(model("Reshape(x, other)", y="float[A, B, C, D]"))
    node = original.graph.node(0)
    for value, shape in zip((node.inputs[0], node.outputs[0]), shapes, strict=True):
        value.shape = ir.Shape(shape)
    assert_untouched(RemoveNoOps, original)


def test_the_name_of_an_output_stays() -> None:
    text = '<ir_version: 9, opset_import: ["": 18]> graph (float[4] x) => (float[4] y) { '
    assert refusal(RemoveNoOps, parse(text + "y = Sum(x) }")) == "it gives an output of the model its name"
    changed, report = changed_by(RemoveNoOps, parse(text + "a = Neg(x)  y = Sum(a) }"))
    assert report.changed == 1
    assert [value.name for value in changed.graph.outputs] == ["y"]


@pytest.mark.parametrize(
    "node",
    [
        *("Mul(x, k)", "Mul(k, x)", "Div(x, k)", "Pow(x, k)", "Mul(x, each)", "Mul(batched, x)"),
        *("Add(x, z)", "Add(z, x)", "Sub(x, z)"),
    ],
)
def test_arithmetic_that_changes_nothing_goes(node: str) -> None:
    rewritten(RemoveNoOps, parse(arithmetic(node)), {"Neg": 1}, of_scale=0)


@pytest.mark.parametrize(
    "node",
    ["Mul(x, z)", "Add(x, k)", "Sub(z, x)", "Div(k, x)", "Pow(k, x)", "Mul(x, more)", "Mul(x, twice)", "Mul(k, k)"],
)
def test_arithmetic_that_changes_something_stays(node: str) -> None:
    assert_untouched(RemoveNoOps, parse(arithmetic(node)))


def arithmetic(node: str) -> str:
    weights = """<float k = {1}, float z = {0}, float[3, 1, 1] each = {1, 1, 1}, float[1, 3, 1, 1] batched = {1, 1, 1},
        float[1, 1, 1, 1, 1] more = {1}, float[2, 1, 1, 1] twice = {1, 1}>"""
    header = '<ir_version: 9, opset_import: ["": 18]> graph (float[N, 3, 4, 5] x) => (float[A] y)'
    if "more" in node:
        header = header.replace("[A]", "[A, B, C, D, E]")
    elif "x" in node:
        header = header.replace("[A]", "[A, B, C, D]")
    else:
        header = header.replace("[A]", "")
    return f"{header} {weights} {{ a = {node}  y = Neg(a) }}"


def test_an_operator_of_another_domain_stays() -> None:
    original = parse(model("Sum(x)"))
    original.graph.node(0).domain = "own"
    assert_untouched(RemoveNoOps, original)
