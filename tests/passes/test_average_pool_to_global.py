from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport.passes import AveragePoolToGlobal
from tests.passes._models import assert_untouched, make, parse, rewritten

ROUNDING = 1e-6  # the mean of at most 125 numbers, summed in another order


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    stride=st.integers(1, 6),
    opset=st.sampled_from([7, 10, 11, 18, 19, 22]),
    ceil=st.booleans(),
    include=st.booleans(),
)
@settings(max_examples=60)
def test_one_window_is_the_whole_picture(sizes: list[int], stride: int, opset: int, ceil: bool, include: bool) -> None:
    attributes: dict[str, object] = {"count_include_pad": int(include)}
    attributes |= {"ceil_mode": int(ceil)} if opset >= 10 else {}
    attributes |= {"dilations": [1] * len(sizes)} if opset >= 19 else {}
    node = helper.make_node(
        "AveragePool", ["x"], ["y"], name="pool", kernel_shape=sizes, strides=[stride] * len(sizes), **attributes
    )
    original = make([node], {}, x=["N", 3, *sizes], y=["N", 3, *[1] * len(sizes)], opset=opset)
    changed = rewritten(AveragePoolToGlobal, original, {"GlobalAveragePool": 1}, of_scale=ROUNDING)
    assert changed.graph.node(0).name == "pool"


@pytest.mark.parametrize(
    ("x", "attributes"),
    [
        ("float[N, 3, 5, 7]", "kernel_shape = [5, 5]"),
        ("float[N, 3, 5, 7]", "kernel_shape = [7, 5], pads = [1, 0, 1, 0]"),
        ("float[N, 3, 5, 7]", "kernel_shape = [5, 7], pads = [0, 0, 1, 0]"),
        ("float[N, 3, 5, 7]", 'kernel_shape = [5, 7], auto_pad = "SAME_UPPER"'),
        ("float[N, 3, H, W]", "kernel_shape = [5, 7]"),
        ("float[N, 3, 5, W]", "kernel_shape = [5, 7]"),
    ],
)
def test_other_windows_stay(x: str, attributes: str) -> None:
    original = parse(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph ({x} x) => (float[N, 3, A, B] y) {{ y = AveragePool<{attributes}>(x) }}""")
    assert_untouched(AveragePoolToGlobal, original)


def test_an_unknown_rank_stays() -> None:
    original = parse("""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 3, 2, 2] x) => (float[N, 3, 1, 1] y) { y = AveragePool<kernel_shape = [2, 2]>(x) }""")
    original.graph.inputs[0].shape = None
    assert_untouched(AveragePoolToGlobal, original)
