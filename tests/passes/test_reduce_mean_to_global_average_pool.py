from __future__ import annotations

import numpy as np
import pytest

from rexport.passes import ReduceMeanToGlobalAveragePool
from tests.passes._models import assert_untouched, changed_by, parse, refusal, rewritten, run


def model(axes: str, *, opset: int, keepdims: int | None, x: str = "float[N, 3, 5, 7]", y: str | None = None) -> str:
    if y is None:
        y = "float[N, 3]" if keepdims == 0 else "float[N, 3, 1, 1]"
    keep = "" if keepdims is None else f"keepdims = {keepdims}"
    if opset < 18:
        node = f"y = ReduceMean<axes = [{axes}]{', ' * bool(keep)}{keep}>(x)"
    else:
        node = f"y = ReduceMean{f'<{keep}>' if keep else ''}(x, axes)"
    weights = f"<int64[{len(axes.split(','))}] axes = {{{axes}}}>" if opset >= 18 else ""
    return f'<ir_version: 9, opset_import: ["": {opset}]> graph ({x} x) => ({y} y) {weights} {{ {node} }}'


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
@pytest.mark.parametrize("axes", ["2, 3", "3, 2", "-1, -2", "-2, 3"])
@pytest.mark.parametrize("keepdims", [None, 1, 0])
def test_the_mean_over_the_pixels_becomes_a_pool(opset: int, axes: str, keepdims: int | None) -> None:
    original = parse(model(axes, opset=opset, keepdims=keepdims))
    operators = {"GlobalAveragePool": 1, "Flatten": 1} if keepdims == 0 else {"GlobalAveragePool": 1}
    # the mean of 35 numbers, summed in another order
    changed = rewritten(ReduceMeanToGlobalAveragePool, original, operators, of_scale=1e-6)
    assert [value.name for value in changed.graph.outputs] == ["y"]


@pytest.mark.parametrize(
    ("axes", "y"), [("1, 2", "float[N, 1, 1, 7]"), ("3", "float[N, 3, 5, 1]"), ("1, 2, 3", "float[N, 1, 1, 1]")]
)
@pytest.mark.parametrize("opset", [13, 18])
def test_other_axes_stay(axes: str, y: str, opset: int) -> None:
    assert_untouched(ReduceMeanToGlobalAveragePool, parse(model(axes, opset=opset, keepdims=1, y=y)))


@pytest.mark.parametrize("x", ["float[N, 3, 5, 7, 9]", "float[N, 3, 5]"], ids=["volumes", "signals"])
def test_other_ranks_stay(x: str) -> None:
    axes = "1, 2" if x.endswith("5]") else "2, 3"
    y = x.replace("3, 5", "1, 1") if x.endswith("5]") else x.replace("5, 7", "1, 1")
    assert_untouched(ReduceMeanToGlobalAveragePool, parse(model(axes, opset=18, keepdims=1, x=x, y=y)))


def test_an_unknown_rank_stays() -> None:
    original = parse(model("2, 3", opset=18, keepdims=1))
    original.graph.inputs[0].shape = None
    assert_untouched(ReduceMeanToGlobalAveragePool, original)


def test_axes_that_the_caller_gives_stay() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 3, 5, 7] x, int64[2] axes) => (float[A, B, C, D] y) { y = ReduceMean(x, axes) }"""
    assert_untouched(ReduceMeanToGlobalAveragePool, parse(text))


@pytest.mark.parametrize("dtype", ["int32", "double"])
def test_a_type_that_the_pool_does_not_take_is_refused(dtype: str) -> None:
    x, y = f"{dtype}[N, 3, 5, 7]", f"{dtype}[N, 3, 1, 1]"
    original = parse(model("2, 3", opset=18, keepdims=1, x=x, y=y))
    assert refusal(ReduceMeanToGlobalAveragePool, original) == (
        f"it averages {dtype}, and ONNX Runtime's GlobalAveragePool takes float32 and float16 only"
    )
    run(original)  # it does run as it is


def test_float16_is_pooled() -> None:
    original = parse(model("2, 3", opset=18, keepdims=1, x="float16[N, 3, 5, 7]", y="float16[N, 3, 1, 1]"))
    rewritten(ReduceMeanToGlobalAveragePool, original, of_scale=2e-3)  # float16 rounds by 5e-4


def test_the_mean_between_two_layers_keeps_its_readers_and_takes_no_name_that_is_taken() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 3, 5, 7] x) => (float[N, 3] y, float[N, 3] m_pooled) <int64[2] axes = {2, 3}>
        { m = ReduceMean<keepdims = 0>(x, axes)  y = Relu(m)  m_pooled = Neg(m) }"""
    original = parse(text)
    changed, _ = changed_by(ReduceMeanToGlobalAveragePool, original)
    for actual, expected in zip(run(changed), run(original), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
