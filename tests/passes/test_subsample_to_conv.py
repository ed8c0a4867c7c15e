from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport import models
from rexport.passes import DEFAULT_PASSES, FoldConstants, SubsampleToConv, fuse, verify_equal
from tests._networks import torchscript_export, trained_like
from tests.passes._models import assert_untouched, changed_by, make, ops, parse, refusal, rewritten, run

if TYPE_CHECKING:
    import onnx_ir as ir

TO_THE_END = st.sampled_from([2**31 - 1, 2**63 - 1])


def model(
    *,
    steps: list[tuple[int, int]],  # axis and step, a Slice each
    channels: tuple[int, int],
    dimensions: int,
    end: int = 2**63 - 1,
    opset: int = 18,
    dtype: str = "float32",
) -> ir.Model:
    weights: dict[str, np.ndarray] = {}
    if dtype != "float32":
        weights["unread"] = np.zeros(1, dtype)
    nodes, value = [], "x"
    for i, (axis, step) in enumerate(steps):
        ranges = {"starts": [0], "ends": [end], "axes": [axis], "steps": [step]}
        if opset < 10:
            ranges.pop("steps")
            nodes.append(helper.make_node("Slice", [value], [f"s{i}"], **ranges))
        else:
            weights |= {f"{name}{i}": np.array(numbers) for name, numbers in ranges.items()}
            nodes.append(helper.make_node("Slice", [value, *(f"{name}{i}" for name in ranges)], [f"s{i}"]))
        value = f"s{i}"
    widths = [0, channels[0], *[0] * dimensions, 0, channels[1], *[0] * dimensions]
    if opset < 11:
        nodes.append(helper.make_node("Pad", [value], ["y"], name="pad", pads=widths))
    else:
        weights["widths"] = np.array(widths)
        nodes.append(helper.make_node("Pad", [value, "widths"], ["y"], name="pad"))
    picture = ["N", 3, *[7] * dimensions]
    return make(nodes, weights, x=picture, y=["N", None, *[None] * dimensions], opset=opset)


@pytest.mark.slow
@given(data=st.data(), dimensions=st.integers(1, 3), opset=st.sampled_from([10, 11, 13, 18, 21]), end=TO_THE_END)
@settings(max_examples=50)
def test_the_convolution_gives_the_very_same(data: st.DataObject, dimensions: int, opset: int, end: int) -> None:
    rank = dimensions + 2
    spatial = st.tuples(st.integers(2, rank - 1) | st.integers(-dimensions, -1), st.integers(2, 3))
    slices = st.lists(spatial | st.tuples(st.integers(0, rank - 1), st.just(1)), max_size=3)
    steps = [*data.draw(slices), data.draw(spatial), *data.draw(slices)]
    channels = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(any))
    original = model(steps=steps, channels=channels, dimensions=dimensions, end=end, opset=opset)
    rewritten(SubsampleToConv, original, {"Conv": 1}, of_scale=0)


def test_a_misplaced_channel_would_be_seen() -> None:
    original = model(steps=[(2, 2)], channels=(1, 2), dimensions=2)
    changed, _ = changed_by(SubsampleToConv, original)
    weight = changed.graph.node(0).inputs[1].const_value.numpy()
    assert np.argwhere(weight).tolist() == [[1, 0, 0, 0], [2, 1, 0, 0], [3, 2, 0, 0]]
    weight[[0, 1]] = weight[[1, 0]]
    assert not np.array_equal(run(changed)[0], run(original)[0])


def test_float16_stays_float16() -> None:
    original = model(steps=[(2, 2), (3, 2)], channels=(2, 1), dimensions=2, dtype="float16")
    changed = rewritten(SubsampleToConv, original, of_scale=0)
    assert changed.graph.node(0).inputs[1].dtype.name == "FLOAT16"


def test_the_name_stays() -> None:
    changed, _ = changed_by(SubsampleToConv, model(steps=[(2, 2)], channels=(1, 2), dimensions=2))
    (conv,) = changed.graph
    assert (conv.name, conv.outputs[0].name) == ("pad", "y")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("opset", [11, 17])
def test_the_shortcuts_of_a_network_of_option_a(opset: int) -> None:
    network = trained_like(models.build("cifar_resnet8"))
    original = torchscript_export(network, size=32, opset=opset)
    before = fuse(original, passes=DEFAULT_PASSES[: DEFAULT_PASSES.index(SubsampleToConv)]).model
    changed, report = changed_by(SubsampleToConv, before)
    assert (report.changed, report.refusals) == (2, ())
    assert {"Slice", "Pad"} & ops(changed).keys() == set()
    verify_equal(original, changed)


TEXT = """
    <ir_version: 9, opset_import: ["": 18]>
    graph ({dtype}[N, {channels}, 8, 8] x) => ({dtype}[N, D, H, W] y{outputs})
    <int64[1] start = {{{start}}}, int64[1] end = {{{end}}}, int64[1] axis = {{2}}, int64[1] step = {{2}},
     int64[8] widths = {{{widths}}}, {dtype} value = {{{value}}}>
    {{ s = Slice(x, start, end, axis, step)  y = Pad(s, widths, value){nodes} }}"""
DEFAULTS = {
    "dtype": "float",
    "channels": "3",
    "outputs": "",
    "start": "0",
    "end": "8",
    "widths": "0, 1, 0, 0, 0, 2, 0, 0",
    "value": "0",
    "nodes": "",
}


def test_an_end_at_the_last_pixel_is_to_the_end() -> None:
    assert changed_by(SubsampleToConv, parse(TEXT.format(**DEFAULTS)))[1].changed == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": "2"}, "its new channels are 2 and not 0"),
        ({"widths": "0, -1, 0, 0, 0, 2, 0, 0"}, "it takes channels away (its widths are negative)"),
        ({"channels": "C"}, "the number of channels of 'x' is not known"),
        ({"dtype": "int32"}, "it moves int32, and ONNX Runtime's Conv takes float32 and float16 only"),
    ],
)
def test_refusals_say_why(changes: dict[str, str], reason: str) -> None:
    original = parse(TEXT.format(**DEFAULTS | changes))
    assert refusal(SubsampleToConv, original) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"start": "1"},
        {"end": "6"},
        {"end": "-1"},
        {"widths": "0, 1, 1, 0, 0, 2, 0, 0"},
        {"widths": "0, 0, 0, 0, 0, 0, 0, 0"},
        {"outputs": ", float[N, 3, J, 8] s"},
        {"outputs": ", float[N, 3, J, 8] z", "nodes": "  z = Relu(s)"},
    ],
    ids=["from the second", "not all", "but the last", "pixels too", "no channels", "an output", "read twice"],
)
def test_anything_else_is_no_match(changes: dict[str, str]) -> None:
    original = parse(TEXT.format(**DEFAULTS | changes))
    assert_untouched(SubsampleToConv, original)


def test_every_second_channel_is_left_to_its_slice() -> None:
    original = model(steps=[(1, 2), (2, 2)], channels=(1, 2), dimensions=2)
    FoldConstants()(original)  # infers how many channels are left
    rewritten(SubsampleToConv, original, {"Slice": 1, "Conv": 1}, of_scale=0)
