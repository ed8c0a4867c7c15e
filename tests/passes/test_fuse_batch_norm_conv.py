from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport.passes import FuseBatchNormConv
from tests.passes._models import (
    Convolution,
    assert_close,
    batch_norm,
    batch_norm_node,
    changed_by,
    convolutions,
    make,
    ops,
    parse,
    refusal,
    run,
)

if TYPE_CHECKING:
    import onnx_ir as ir

PADS = "the convolution after it pads with zeros, which do not commute with its shift"
PLAIN = Convolution(dimensions=2, groups=1, inputs=3, outputs=4, kernel=3, stride=1, padding=0, dilation=1, bias=False)


def model(conv: Convolution, norms: int = 1, seed: int = 0, *, shift: bool = True) -> ir.Model:
    rng = np.random.default_rng(seed)
    names = ["x", *(f"norm{i}_result" for i in range(norms))]
    nodes, weights = [], conv.weights(rng)
    for i in range(norms):
        nodes.append(batch_norm_node(names[i], names[i + 1], f"norm{i}"))
        weights |= batch_norm(rng, conv.groups * conv.inputs, f"norm{i}")
        if not shift:
            weights |= {f"norm{i}.{name}": 0 * weights[f"norm{i}.{name}"] for name in ("bias", "mean")}
    return make([*nodes, conv.node(names[-1], "y")], weights, x=conv.picture, y=conv.result)


@given(conv=convolutions(padding=st.just(0)), norms=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_one_convolution_computes_the_same(conv: Convolution, norms: int, seed: int) -> None:
    original = model(conv, norms, seed)
    fused, report = changed_by(FuseBatchNormConv, original)
    assert (report.changed, report.refusals) == (norms, ())
    assert ops(fused) == {"Conv": 1}
    assert_close(run(fused), run(original))


@given(conv=convolutions(padding=st.integers(1, 2)), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_under_padding_a_scale_goes_in_and_a_shift_does_not(conv: Convolution, seed: int) -> None:
    original = model(conv, seed=seed, shift=False)
    fused, report = changed_by(FuseBatchNormConv, original)
    assert report.changed == 1
    assert ops(fused) == {"Conv": 1}
    assert_close(run(fused), run(original))
    assert refusal(FuseBatchNormConv, model(conv, seed=seed)) == PADS


def test_a_swapped_channel_would_be_seen() -> None:
    original = model(replace(PLAIN, groups=2))
    fused, _ = changed_by(FuseBatchNormConv, original)
    weight = fused.graph.node(0).inputs[1].const_value.numpy()
    weight[:, [0, 1]] = weight[:, [1, 0]]
    with pytest.raises(AssertionError):
        assert_close(run(fused), run(original))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ('auto_pad = "VALID", kernel_shape = [3, 3]', None),
        ('auto_pad = "NOTSET", kernel_shape = [3, 3]', None),
        ('auto_pad = "SAME_UPPER", kernel_shape = [3, 3]', PADS),
        ('auto_pad = "SAME_LOWER", kernel_shape = [3, 3]', PADS),
        ("pads = [0, 0, 0, 1]", PADS),
        ("pads = [0, 0, 0, 0]", None),
    ],
)
def test_every_way_to_pad_is_seen(attributes: str, reason: str | None) -> None:
    original = parse(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 1, 5, 5] x) => (float[N, 1, H, W] y)
        <float[1, 1, 3, 3] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, float[1] s = {{2}}, float[1] b = {{3}}>
        {{ n = BatchNormalization(x, s, b, b, s)  y = Conv<{attributes}>(n, w) }}""")
    if reason:
        assert refusal(FuseBatchNormConv, original) == reason
        return
    fused, report = changed_by(FuseBatchNormConv, original)
    assert report.changed == 1
    assert_close(run(fused), run(original))


TEXT = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (float[N, 1, 4, 4] x{more_inputs}) => (float[N, 1, 4, 4] y{more_outputs})
    <float[1, 1, 1, 1] w = {{2}}, float[1] s = {{1}}, float[1] v = {{{variance}}}>
    {{
        {results} = BatchNormalization<{attributes}>(x, s, s, s, v)
        y = Conv(n, w{bias})
        {more_nodes}
    }}"""
DEFAULTS = {
    "more_inputs": "",
    "more_outputs": "",
    "variance": "1",
    "bias": "",
    "results": "n",
    "attributes": "epsilon = 0.001",
    "more_nodes": "",
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param(
            {"more_outputs": ", float[N, 1, 4, 4] z", "more_nodes": "z = Conv(x, w)"},
            "its convolution's weight 'w' is shared with 1 other place",
            id="shared weight",
        ),
        pytest.param(
            {"more_inputs": ", float[1, 1, 1, 1] w"},
            "its convolution's weight 'w' is a graph input, so a caller may change it",
            id="weight is an input",
        ),
        pytest.param(
            {"more_inputs": ", float[1] a", "bias": ", a"},
            "its convolution's bias 'a' is a graph input, so a caller may change it",
            id="bias is an input",
        ),
        pytest.param(
            {"attributes": "training_mode = 1", "results": "n, new_mean, new_var"},
            "it is in training mode: its statistics change while the model runs",
            id="training mode",
        ),
        pytest.param(
            {"more_inputs": ", float[1] s"}, "its scale 's' is a graph input, so a caller may change it", id="scale"
        ),
        pytest.param({"variance": "-2"}, "its parameters give values that are not finite", id="negative variance"),
    ],
)
def test_refusals_say_why(changes: dict[str, str], reason: str) -> None:
    assert refusal(FuseBatchNormConv, parse(TEXT.format(**DEFAULTS | changes))) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"more_outputs": ", float[N, 1, 4, 4] z", "more_nodes": "z = Conv(n, u)"},
        {"more_outputs": ", float[N, 1, 4, 4] n"},
    ],
    ids=["two convolutions read it", "it is an output"],
)
def test_a_result_that_others_need_too_is_no_match(changes: dict[str, str]) -> None:
    text = TEXT.format(**DEFAULTS | changes).replace("float[1] v", "float[1, 1, 1, 1] u = {3}, float[1] v")
    same, report = changed_by(FuseBatchNormConv, parse(text))
    assert (report.changed, report.refusals) == (0, ())
    assert ops(same)["BatchNormalization"] == 1


def test_a_batch_normalization_that_makes_the_weight_is_no_match() -> None:
    same, report = changed_by(
        FuseBatchNormConv,
        parse("""
            <ir_version: 9, opset_import: ["": 18]>
            graph (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y)
            <float[1, 1, 1, 1] w = {2}, float[1] s = {1}>
            { n = BatchNormalization(w, s, s, s, s)  y = Conv(x, n) }"""),
    )
    assert report.changed == 0
    assert ops(same) == {"BatchNormalization": 1, "Conv": 1}
