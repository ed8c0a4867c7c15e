from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport.passes import FusePadMaxPool
from tests.passes._models import assert_untouched, changed_by, make, ops, parse, refusal, run

WINDOW = "a window of the MaxPool after it may lie in the padding alone"


@given(data=st.data(), opset=st.sampled_from([7, 10, 11, 13, 18, 21]), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_the_pool_pads_itself(data: st.DataObject, opset: int, seed: int) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    widths = st.lists(st.integers(0, 2), min_size=len(sizes), max_size=len(sizes))
    before, after, more = data.draw(widths), data.draw(widths), data.draw(st.integers(0, 1))
    kernel = [max(low, high) + data.draw(st.integers(1, 2)) + more for low, high in zip(before, after, strict=True)]
    kernel = [
        min(k, size + low + high + 2 * more) for k, size, low, high in zip(kernel, sizes, before, after, strict=True)
    ]
    pads, weights = [0, 0, *before, 0, 0, *after], {}
    if opset < 11:
        pad = helper.make_node("Pad", ["r"], ["p"], pads=pads)
    else:
        weights = {"pads": np.array(pads)}
        pad = helper.make_node("Pad", ["r", "pads"], ["p"])
    pool = helper.make_node(
        "MaxPool",
        ["p"],
        ["y"],
        kernel_shape=kernel,
        strides=[data.draw(st.integers(1, 3))] * len(sizes),
        pads=[more] * 2 * len(sizes),
    )
    nodes = [helper.make_node("Relu", ["x"], ["r"]), pad, pool]
    original = make(nodes, weights, x=["N", 2, *sizes], y=["N", 2, *[None] * len(sizes)], opset=opset)
    changed, report = changed_by(FusePadMaxPool, original)
    if any(max(low, high) + more >= k for low, high, k in zip(before, after, kernel, strict=True)):
        assert [refused.why for refused in report.refusals] == [WINDOW]
        return
    assert (report.changed, report.refusals) == (1, ())
    assert ops(changed) == {"Relu": 1, "MaxPool": 1}
    np.testing.assert_array_equal(run(changed, seed=seed)[0], run(original, seed=seed)[0])


TEXT = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (float[N, 1, 5, 5] x) => (float[N, 1, H, W] y{outputs})
    <int64[8] widths = {{{widths}}}, float value = {{{value}}}>
    {{
        r = {before}(x)
        p = Pad{mode}(r, widths, value)
        y{indices} = MaxPool<kernel_shape = [2, 2]{attributes}>(p)
    }}"""
DEFAULTS = {
    "outputs": "",
    "widths": "0, 0, 1, 1, 0, 0, 1, 0",
    "value": "0",
    "before": "Relu",
    "mode": "",
    "indices": "",
    "attributes": "",
}


@pytest.mark.parametrize("value", ["-1", "-inf", "-3.4028234663852886e38"])
@pytest.mark.parametrize("before", ["Relu", "Neg"])
def test_what_is_smaller_than_all_pixels(value: str, before: str) -> None:
    original = parse(TEXT.format(**DEFAULTS | {"value": value, "before": before}))
    changed, report = changed_by(FusePadMaxPool, original)
    assert report.changed == (before == "Relu" or value != "-1")
    np.testing.assert_array_equal(run(changed)[0], run(original)[0])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"before": "Neg"}, "it pads with 0, which may be larger than what is in the picture"),
        ({"value": "0.5"}, "it pads with 0.5, which may be larger than what is in the picture"),
        ({"mode": '<mode = "edge">'}, "it pads in edge mode and not with a constant"),
        ({"widths": "1, 0, 1, 1, 0, 0, 1, 1"}, "it pads the batch or the channels, and not the picture alone"),
        ({"widths": "0, 0, -1, 0, 0, 0, 1, 1"}, "it cuts the picture (its widths are negative)"),
        ({"widths": "0, 0, 1, 2, 0, 0, 1, 1"}, WINDOW),
        ({"attributes": ", pads = [0, 1, 0, 0]"}, WINDOW),
        (
            {"indices": ", indices", "outputs": ", int64[N, 1, H, W] indices"},
            "the indices that the MaxPool after it gives are used",
        ),
        (
            {"attributes": ', auto_pad = "SAME_LOWER"'},
            "the MaxPool after it works out its own padding from the picture's size (auto_pad)",
        ),
        (
            {"attributes": ", ceil_mode = 1"},
            "the MaxPool after it has windows with gaps, or beyond the picture (dilations, ceil_mode)",
        ),
        (
            {"attributes": ", dilations = [2, 1]"},
            "the MaxPool after it has windows with gaps, or beyond the picture (dilations, ceil_mode)",
        ),
    ],
)
def test_refusals_say_why(changes: dict[str, str], reason: str) -> None:
    assert refusal(FusePadMaxPool, parse(TEXT.format(**DEFAULTS | changes))) == reason


@pytest.mark.parametrize("output", [", float[N, 1, 7, 6] p", ""])
def test_a_pad_that_others_read_or_that_is_no_pool_s_is_no_match(output: str) -> None:
    text = TEXT.format(**DEFAULTS | {"outputs": output})
    original = parse(text if output else text.replace("MaxPool<", "AveragePool<"))
    assert_untouched(FusePadMaxPool, original)
