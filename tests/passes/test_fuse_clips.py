from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rexport.passes import FuseClips, fuse
from rexport.passes._graph import clip_bounds
from tests.passes._models import assert_untouched, ops, parse, rewritten

INFINITY = float("inf")


WEIGHTS = """
    <float low = {-0.5}, float zero = {0}, float[1] half = {0.5}, float six = {6}, float[3] each = {1, 2, 3},
     float[1, 1, 1] more = {1}>"""


def model(nodes: str, *, opset: int = 18, y: str = "[A, B]") -> ir.Model:
    header = f'<ir_version: 9, opset_import: ["": {opset}]> graph (float[N, 3] x) => (float{y} y)'
    text = f"{header} {WEIGHTS if opset > 10 else ''} {{ {nodes} }}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(parse(text))))


@pytest.mark.parametrize(
    ("nodes", "bounds"),
    [
        ("y = Min(x, half)", (-INFINITY, 0.5)),
        ("y = Max(low, x)", (-0.5, INFINITY)),
        ("a = Relu(x)  y = Min(a, half)", (0, 0.5)),
        ("a = Min(six, x)  y = Max(a, zero)", (0, 6)),
        ("a = Clip(x, low, half)  y = Relu(a)", (0, 0.5)),
        ("a = Clip(x, low)  y = Clip(a, , half)", (-0.5, 0.5)),
        ("a = Clip(x, half, six)  y = Clip(a, low, zero)", (0, 0)),
        ("a = Relu(x)  y = Min(a, low)", (-0.5, -0.5)),
    ],
)
def test_bounds_in_a_row_are_one_clip(nodes: str, bounds: tuple[float, float]) -> None:
    original = model(nodes)
    changed = fuse(original, passes=[FuseClips]).model
    (clip,) = changed.graph
    assert clip_bounds(clip) == bounds
    last = next(report for report in fuse(changed, passes=[FuseClips]).reports)
    assert last.changed == 0


def test_bounds_are_attributes_in_old_opsets() -> None:
    rewritten(FuseClips, model("a = Relu(x)  y = Clip<max = 0.5, min = -3.0>(a)", opset=8), {"Clip": 1}, of_scale=0)


def test_results_are_the_same() -> None:
    rewritten(FuseClips, model("a = Relu(x)  y = Min(a, half)"), {"Clip": 1}, of_scale=0)


@pytest.mark.parametrize(
    "nodes", ["y = Min(x, each)", "a = Neg(x)  y = Min(x, a)", "y = Max(x)", "y = Min(x, zero, half)", "y = Relu(x)"]
)
def test_other_limits_stay(nodes: str) -> None:
    assert_untouched(FuseClips, model(nodes))


def test_a_number_that_adds_axes_stays() -> None:
    assert_untouched(FuseClips, model("y = Min(x, more)", y="[A, B, C]"))


def test_a_rectifier_that_others_read_stays() -> None:
    changed = rewritten(FuseClips, model("a = Relu(x)  b = Min(a, half)  y = Add(a, b)"), of_scale=0)
    assert ops(changed) == {"Relu": 1, "Clip": 1, "Add": 1}
    clip = next(node for node in changed.graph if node.op_type == "Clip")
    assert clip_bounds(clip) == (-np.inf, 0.5)
