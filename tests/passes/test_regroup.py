from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport.calibration import calibrate
from rexport.model_file import to_bytes
from rexport.passes.regroup import Regroup, groups_of
from rexport.quantization import X86, quantize
from rexport.runtimes.onnxruntime import executed_ops
from tests._graphs import convolution, graph, images, vector
from tests._graphs import run as run_images
from tests.passes._models import MAY_CHANGE, Convolution, assert_close, convolutions, make, ops, parse, run

if TYPE_CHECKING:
    import onnx_ir as ir

PLAIN = Convolution(dimensions=2, groups=6, inputs=2, outputs=1, kernel=3, stride=1, padding=1, dilation=1, bias=True)
DIVISORS = {1: [1], 2: [2], 3: [3], 4: [2, 4], 6: [2, 3, 6], 8: [2, 4, 8]}


def model(conv: Convolution, seed: int = 0) -> ir.Model:
    weights = conv.weights(np.random.default_rng(seed))
    return make([conv.node("x", "y")], weights, x=conv.picture, y=conv.result)


def regrouped(original: ir.Model, merged: int) -> ir.Model:
    clone = original.clone()
    report = Regroup(lambda _: merged)(clone).report
    assert not report.refusals
    return clone


@pytest.mark.slow
@given(
    conv=convolutions(padding=st.integers(0, 2)),
    groups=st.sampled_from([2, 3, 4, 6, 8]),
    choice=st.integers(0, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=80)
def test_fewer_groups_compute_the_same(conv: Convolution, groups: int, choice: int, seed: int) -> None:
    original = model(replace(conv, groups=groups), seed)
    merged = DIVISORS[groups][choice % len(DIVISORS[groups])]
    fewer = regrouped(original, merged)
    assert groups_of(fewer.graph.node(0)) == groups // merged
    assert ops(fewer) == {"Conv": 1}
    assert_close(run(fewer), run(original))


def test_integers_stay_the_same_to_the_last_bit() -> None:
    body = """
        s = Conv(x, stem)
        sr = Relu(s)
        a = Conv<group=4, pads=[1,1,1,1]>(sr, w, b)
        r = Relu(a)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        y = Gemm<transB=1>(f, fc)
    """
    weights = {
        "stem": convolution(16, 3),
        "w": convolution(8, 4),
        "b": vector(8),
        "fc": convolution(5, 8, 1)[..., 0, 0],
    }
    original = graph(body, weights, outputs="float[N, 5] y")
    target = X86.with_reduced_range()  # without VNNI, larger sums saturate, each order its own way
    int8 = quantize(original, calibrate(original, [images(32)]), target=target).model
    for merged in (2, 4):
        fewer = regrouped(int8, merged)
        assert [groups_of(node) for node in fewer.graph if groups_of(node) > 1] == ([2] if merged == 2 else [])
        assert executed_ops(to_bytes(fewer)) == executed_ops(to_bytes(int8))
        assert np.array_equal(run_images(fewer, images(8, seed=1))[0], run_images(int8, images(8, seed=1))[0])


def test_between_the_blocks_stands_the_weights_zero_point() -> None:
    original = parse("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 4, 5, 5] x) => (float[N, 4, 5, 5] y)
        <uint8[4, 2, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[4] s = {1, 1, 1, 1}, uint8[4] z = {9, 10, 11, 12}> {
            d = DequantizeLinear<axis=0>(w, s, z)
            y = Conv<group=2>(x, d)
        }
    """)
    fewer = regrouped(original, 2)
    stored = fewer.graph.initializers["w"].const_value.numpy()[..., 0, 0]
    assert stored.tolist() == [[1, 2, 9, 9], [3, 4, 10, 10], [11, 11, 5, 6], [12, 12, 7, 8]]
    assert_close(run(fewer), run(original))


def test_a_block_in_the_wrong_place_would_be_seen() -> None:
    original = model(PLAIN)
    fewer = regrouped(original, 2)
    weight = fewer.graph.node(0).inputs[1].const_value.numpy()
    weight[0] = np.roll(weight[0], 1, axis=0)
    with pytest.raises(AssertionError):
        assert_close(run(fewer), run(original))


SHARED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 4, 5, 5] x, float[4, 2, 1, 1] v) => (float[N, 4, 5, 5] y)
    <float[4, 2, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8}> { BODY }
"""


@pytest.mark.parametrize(
    ("body", "merged", "why"),
    [
        ("y = Conv<group=2>(x, w)", 3, "its 2 groups can't merge by 3; choose a divisor"),
        ("y = Conv<group=2>(x, v)", 2, f"its convolution's weight 'v' {MAY_CHANGE}"),
        (
            "a = Conv<group=2>(x, w) y = Conv<group=2>(a, w)",
            2,
            "its convolution's weight 'w' is shared with 1 other place",
        ),
        (
            "n = Neg(w) y = Conv<group=2>(x, n)",
            2,
            "its convolution's weight 'n' is computed while the model runs",
        ),
    ],
)
def test_refusals(body: str, merged: int, why: str) -> None:
    original = parse(SHARED.replace("BODY", body))
    before = to_bytes(original)
    report = Regroup(lambda _: merged)(original).report
    assert to_bytes(original) == before
    assert {refusal.why for refusal in report.refusals} == {why}


def test_what_is_not_chosen_stays() -> None:
    original = model(PLAIN)
    report = Regroup(lambda _: 1)(original).report
    assert (report.changed, report.refusals) == (0, ())
