from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport.passes import FusePadConv
from tests.passes._models import (
    MAY_CHANGE,
    Convolution,
    assert_close,
    assert_untouched,
    changed_by,
    convolutions,
    make,
    ops,
    parse,
    refusal,
    rewritten,
    run,
)

OPSETS = st.sampled_from([7, 9, 11, 13, 18, 21])


@given(
    conv=convolutions(padding=st.integers(0, 2)),
    before=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    after=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    opset=OPSETS,
    by_axes=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_the_convolution_pads_itself(
    conv: Convolution, before: list[int], after: list[int], opset: int, by_axes: bool, seed: int
) -> None:
    weights = conv.weights(np.random.default_rng(seed))
    before, after = before[: conv.dimensions], after[: conv.dimensions]
    widths = [0, 0, *before, 0, 0, *after]
    if opset < 11:
        pad = helper.make_node("Pad", ["x"], ["p"], pads=widths)
    elif opset >= 18 and by_axes:
        axes = [*range(2, conv.dimensions + 1), -1]
        weights |= {"widths": np.array([*before, *after]), "axes": np.array(axes)}
        pad = helper.make_node("Pad", ["x", "widths", "", "axes"], ["p"])
    else:
        weights |= {"widths": np.array(widths), "zero": np.array(0, np.float32)}
        pad = helper.make_node("Pad", ["x", "widths", "zero"], ["p"])
    original = make([pad, conv.node("p", "y")], weights, x=conv.picture, y=conv.result, opset=opset)
    rewritten(FusePadConv, original, {"Conv": 1})


MODEL = """
    <ir_version: 9, opset_import: ["": 18]>
    graph ({inputs}) => (float[N, C, H, W] y{outputs})
    <float[1, 1, 2, 2] w = {{1, 2, 3, 4}}, int64[8] widths = {{{widths}}}, float value = {{{value}}}>
    {{ p = Pad{mode}(x, widths, value)  y = Conv{attributes}(p, w){nodes} }}"""
DEFAULTS = {
    "inputs": "float[N, 1, 5, 5] x",
    "outputs": "",
    "widths": "0, 0, 1, 1, 0, 0, 1, 0",
    "value": "0",
    "mode": "",
    "attributes": "",
    "nodes": "",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"attributes": '<auto_pad = "VALID">'},
        {"attributes": '<auto_pad = "NOTSET", pads = [0, 1, 0, 1]>'},
        {"nodes": "  z = Conv<strides = [2, 2]>(p, w)", "outputs": ", float[N, D, J, K] z"},
        {"widths": "0, 0, 0, 0, 0, 0, 0, 0"},
    ],
    ids=["valid", "pads already", "two convolutions", "nothing to pad"],
)
def test_other_convolutions_pad_themselves_too(changes: dict[str, str]) -> None:
    original = parse(MODEL.format(**DEFAULTS | changes))
    changed = rewritten(FusePadConv, original)
    assert ops(changed)["Pad"] == 0


def test_a_side_that_is_not_padded_would_be_seen() -> None:
    original = parse(MODEL.format(**DEFAULTS))
    changed, _ = changed_by(FusePadConv, original)
    conv = changed.graph.node(0)
    assert list(conv.attributes.get_ints("pads")) == [1, 1, 1, 0]
    conv.attributes.add(ir.AttrInt64s("pads", [1, 1, 0, 1]))
    with pytest.raises(AssertionError):
        assert_close(run(changed), run(original))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": "2.5"}, "it pads with 2.5, and a convolution pads with zeros"),
        (
            {"widths": "1, 0, 1, 1, 0, 0, 1, 1"},
            "it pads the batch or the channels, and not the picture alone",
        ),
        ({"widths": "0, 0, -1, 0, 0, 0, 1, 1"}, "it cuts the picture (its widths are negative)"),
        ({"mode": '<mode = "reflect">'}, "it pads in reflect mode and not with a constant"),
        ({"outputs": ", float[N, 1, 7, 6] p"}, "its result 'p' is an output of the model"),
        (
            {"nodes": "  z = Relu(p)", "outputs": ", float[N, 1, 7, 6] z"},
            "its result 'p' is read by other operators than convolutions too",
        ),
        (
            {"attributes": '<auto_pad = "SAME_UPPER">'},
            "the convolution after it works out its own padding from the picture's size (auto_pad)",
        ),
        (
            {"inputs": "float[N, 1, 5, 5] x, int64[8] widths"},
            f"its widths 'widths' {MAY_CHANGE}",
        ),
        (
            {"inputs": "float[N, 1, 5, 5] x, float value"},
            f"its value 'value' {MAY_CHANGE}",
        ),
    ],
)
def test_refusals_say_why(changes: dict[str, str], reason: str) -> None:
    assert refusal(FusePadConv, parse(MODEL.format(**DEFAULTS | changes))) == reason


@pytest.mark.parametrize("reader", ["Relu(p)", "MaxPool<kernel_shape = [2, 2]>(p)", "Conv(u, p)"])
def test_a_pad_that_no_convolution_reads_as_its_picture_is_no_match(reader: str) -> None:
    original = parse(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[1, 1, 2, 2] x, float[1, 1, 6, 6] u) => (float[A, B, C, D] y)
        <int64[8] widths = {{0, 0, 1, 1, 0, 0, 1, 1}}> {{ p = Pad(x, widths)  y = {reader} }}""")
    assert_untouched(FusePadConv, original)
