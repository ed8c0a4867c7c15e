from __future__ import annotations

import numpy as np
import pytest

from rexport.passes import FoldConstants, ReshapeToFlatten, fuse
from tests.passes._models import assert_untouched, changed_by, ops, parse, rewritten, run

# as exporters write x.view(x.size(0), -1); ONNX's shape inference can't say what comes out
DYNAMIC = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (float[N, 3, H, W] x, float[N, 3, H, W] other) => (float[A, B] y)
    <int64 first = {0}, int64[1] axis = {0}, int64[1] rest = {-1}>
    {
        shape = Shape(x)
        size = Gather(shape, first)
        sizes = Unsqueeze(size, axis)
        target = Concat<axis = 0>(sizes, rest)
        y = Reshape(x, target)
    }"""
VECTOR = (
    DYNAMIC.replace("int64 first", "int64[1] first")
    .replace("sizes = Unsqueeze(size, axis)", "")
    .replace("sizes, ", "size, ")
)


def simple(x: str, y: str, target: str) -> str:
    size = len(target.split(","))
    return f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph ({x} x) => ({y} y) <int64[{size}] target = {{{target}}}> {{ y = Reshape(x, target) }}"""


@pytest.mark.parametrize("text", [DYNAMIC, VECTOR], ids=["a number", "a vector"])
def test_the_arithmetic_on_shapes_goes_too(text: str) -> None:
    original = parse(text)
    fused = fuse(original).model
    assert ops(fused) == {"Flatten": 1}
    feeds = {name: np.random.default_rng(0).random((5, 3, 2, 4), dtype=np.float32) for name in ("x", "other")}
    np.testing.assert_array_equal(run(fused, feeds)[0], run(original, feeds)[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Shape(x)", "Shape(other)"),
        ("Shape(x)", "Shape<start = 1>(x)"),
        ("first = {0}", "first = {1}"),
        ("rest = {-1}", "rest = {6}"),
        ("(sizes, rest)", "(rest, sizes)"),
        ("(sizes, rest)", "(sizes, rest, axis)"),
    ],
)
def test_other_arithmetic_stays(old: str, new: str) -> None:
    rank = "A, B, C" if new.count(",") == 2 else "A, B"
    text = DYNAMIC.replace(old, new).replace("A, B", rank)
    assert_untouched(ReshapeToFlatten, parse(text))


@pytest.mark.parametrize(
    ("x", "y", "target"),
    [
        ("float[N, 3, 2, 2]", "float[N, 12]", "0, -1"),
        ("float[5, 3, 2, 2]", "float[5, 12]", "5, 12"),
        ("float[5, 3, 2, 2]", "float[5, 12]", "-1, 12"),
        ("float[N, 7]", "float[N, 7]", "0, 7"),
        ("float[N, 3, H, W]", "float[N, F]", "0, -1"),
        ("float[N]", "float[N, 1]", "0, -1"),
        ("float[N, 3, 2, 2]", "float[M, 12]", "-1, 12"),
    ],
)
def test_batch_and_features_become_flatten(x: str, y: str, target: str) -> None:
    original = parse(simple(x, y, target))
    rewritten(ReshapeToFlatten, original, {"Flatten": 1}, of_scale=0)


@pytest.mark.parametrize(
    ("x", "y", "target"),
    [
        ("float[4, 3, 2, 2]", "float[2, 24]", "2, 24"),
        ("float[N, 3, 2, 2]", "float[A, 24]", "-1, 24"),
        ("float[N, 3, H, W]", "float[A, 12]", "-1, 12"),
        ("float[N, 3, 2, 2]", "float[N, 3, 4]", "0, 3, 4"),
        ("float[N, 3, 2, 2]", "float[1, F]", "1, -1"),
        ("float[12]", "float[3, 4]", "3, 4"),
    ],
    ids=["other rows", "unknown rows", "unknown features", "three axes", "one row", "a vector"],
)
def test_any_other_reshape_stays(x: str, y: str, target: str) -> None:
    original = parse(simple(x, y, target))
    FoldConstants()(original)  # infers what shapes can be known
    assert_untouched(ReshapeToFlatten, original)


def test_shapes_that_nobody_knows_stay() -> None:
    original = parse(simple("float[N, 3, 2, 2]", "float[N, 12]", "0, 12"))
    original.graph.outputs[0].shape = None
    assert_untouched(ReshapeToFlatten, original)


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize(
    ("x", "axes", "is_flatten"),
    [
        ("float[N, 3, 1, 1]", "2, 3", True),
        ("float[N, 3, 1, 1]", "-1, -2", True),
        ("float[N, 3, 1]", "2", True),
        ("float[N, 3, H, W]", "2, 3", True),  # or it would be an error
        ("float[N, 3, 1, 1]", "3", False),
        ("float[N, 1, 1, 3]", "1, 2", False),
    ],
)
def test_squeezing_the_pixels_is_flatten(opset: int, x: str, axes: str, is_flatten: bool) -> None:
    y = "float[N, 3, 1]" if axes == "3" else "float[N, 3]"
    weights, squeeze = f"<int64[{axes.count(',') + 1}] axes = {{{axes}}}>", "Squeeze(x, axes)"
    if opset < 13:
        weights, squeeze = "", f"Squeeze<axes = [{axes}]>(x)"
    original = parse(
        f'<ir_version: 9, opset_import: ["": {opset}]> graph ({x} x) => ({y} y) {weights} {{ y = {squeeze} }}'
    )
    changed, report = changed_by(ReshapeToFlatten, original)
    assert report.changed == is_flatten
    assert ops(changed) == {"Flatten" if is_flatten else "Squeeze": 1}
    feeds = {"x": np.random.default_rng(0).random([2, *(int(n) if n.isdigit() else 1 for n in x[9:-1].split(", "))])}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    np.testing.assert_array_equal(run(changed, feeds)[0], run(original, feeds)[0])


def test_a_zero_that_is_a_size_copies_nothing() -> None:
    original = parse(simple("float[0, 3]", "float[0, 1]", "0, 1").replace("Reshape(", "Reshape<allowzero = 1>("))
    original.graph.outputs[0].shape = None
    assert_untouched(ReshapeToFlatten, original)
