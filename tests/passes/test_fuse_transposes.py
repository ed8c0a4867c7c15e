from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from rexport.passes import FuseTransposes
from tests.passes._models import assert_untouched, changed_by, parse, rewritten

SIZES = "<int64[4] first = {-1, 3, 1, 1}, int64[4] last = {-1, 1, 1, 3}, int64[4] other = {-1, 1, 3, 1}>"


def model(nodes: str, *, x: str = "float[N, 3, 4, 5]") -> ir.Model:
    text = f'<ir_version: 9, opset_import: ["": 18]> graph ({x} x) => (float[A, B, C, D] y) {SIZES} {{ {nodes} }}'
    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(parse(text))))


@pytest.mark.parametrize("second", ["<perm = [0, 3, 1, 2]>", "<perm = [3, 0, 2, 1]>", ""])
def test_two_transposes_are_one_or_none(second: str) -> None:
    original = model(f"a = Neg(x)  b = Transpose<perm = [0, 2, 3, 1]>(a)  y = Transpose{second}(b)")
    is_undone = second == "<perm = [0, 3, 1, 2]>"
    rewritten(FuseTransposes, original, {"Neg": 1} | ({} if is_undone else {"Transpose": 1}), of_scale=0)


def test_three_are_one() -> None:
    turn = "Transpose<perm = [0, 2, 3, 1]>"
    original = model(f"a = {turn}(x)  b = {turn}(a)  c = {turn}(b)  y = Neg(c)")
    rewritten(FuseTransposes, original, {"Neg": 1}, changed=2, of_scale=0)


def test_a_first_one_that_others_read_stays() -> None:
    original = model("a = Transpose<perm = [0, 2, 3, 1]>(x)  b = Transpose<perm = [0, 3, 1, 2]>(a)  c = Neg(a)"
                     "  d = Transpose<perm = [0, 3, 1, 2]>(c)  y = Add(b, d)")  # fmt: skip
    rewritten(FuseTransposes, original, {"Transpose": 2, "Neg": 1, "Add": 1}, of_scale=0)


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Reshape(x, last)  b = Transpose<perm = [0, 3, 1, 2]>(a)  y = Neg(b)",
        "a = Transpose<perm = [0, 2, 3, 1]>(x)  b = Reshape(a, first)  y = Neg(b)",
        "a = Reshape(x, last)  b = Reshape(a, first)  y = Neg(b)",
    ],
)
def test_a_reshape_that_moves_axes_of_one_element_is_a_transpose(nodes: str) -> None:
    rewritten(FuseTransposes, model(nodes, x="float[N, 3, 1, 1]"), {"Neg": 1}, of_scale=0)


@pytest.mark.parametrize(
    ("nodes", "x"),
    [
        ("a = Reshape(x, last)  y = Reshape(a, other)", "float[N, 3, 1, 1]"),  # two cost nothing
        ("a = Reshape(x, last)  y = Transpose<perm = [0, 3, 1, 2]>(a)", "float[N, 3, 1, 2]"),  # it moves numbers
        ("a = Reshape(x, last)  y = Transpose<perm = [0, 3, 1, 2]>(a)", "float[N, M, 1, 1]"),
        ("a = Neg(x)  y = Transpose<perm = [0, 3, 1, 2]>(a)", "float[N, 3, 1, 2]"),
    ],
)
def test_what_is_no_pair_stays(nodes: str, x: str) -> None:
    assert_untouched(FuseTransposes, model(nodes, x=x))


def test_an_input_does_not_become_an_output() -> None:
    original = model("a = Transpose<perm = [0, 2, 3, 1]>(x)  y = Transpose<perm = [0, 3, 1, 2]>(a)")
    changed, _ = changed_by(FuseTransposes, original)
    assert [value.name for value in changed.graph.outputs] == ["y"]
    assert changed.graph.outputs[0].producer() is not None
