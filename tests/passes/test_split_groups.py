from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport.calibration import calibrate
from rexport.model_file import to_bytes
from rexport.passes import FoldConstants, MergeBranches
from rexport.passes.regroup import groups_of
from rexport.passes.split_groups import SplitGroups, why_not_split
from rexport.quantization import X86, quantize
from rexport.runtimes.onnxruntime import executed_ops
from tests._graphs import convolution, graph, images, vector
from tests._graphs import run as run_images
from tests.passes._models import assert_close, changed_by, make, ops, parse, run

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.passes import PassReport


def split(original: ir.Model) -> tuple[ir.Model, PassReport]:
    clone = original.clone()
    FoldConstants()(clone)  # infers shapes
    return clone, SplitGroups(lambda _: True)(clone).report


def model(groups: int, *, relus: tuple[bool, bool], biases: tuple[bool, bool], stride: int, seed: int = 0) -> ir.Model:
    rng = np.random.default_rng(seed)
    channels, outputs = 2 * groups, 3 * groups
    weights = {
        "u": rng.standard_normal((channels, 3, 1, 1)).astype(np.float32),
        "w": rng.standard_normal((outputs, 2, 3, 3)).astype(np.float32),
        "c": rng.standard_normal(channels).astype(np.float32),
        "b": rng.standard_normal(outputs).astype(np.float32),
    }
    weights = {name: array for name, array in weights.items() if {"c": biases[0], "b": biases[1]}.get(name, True)}
    nodes = [
        helper.make_node("Conv", ["x", "u", *(["c"] if biases[0] else [])], ["a"], name="first"),
        helper.make_node("Relu" if relus[0] else "Identity", ["a"], ["r"]),
        helper.make_node(
            "Conv",
            ["r", "w", *(["b"] if biases[1] else [])],
            ["s"],
            name="second",
            group=groups,
            strides=[stride] * 2,
            pads=[1] * 4,
        ),
        helper.make_node("Relu" if relus[1] else "Identity", ["s"], ["y"]),
    ]
    return make(nodes, weights, x=["N", 3, 7, 7], y=["N", outputs, None, None])


@pytest.mark.slow
@given(
    groups=st.integers(2, 5),
    relus=st.tuples(st.booleans(), st.booleans()),
    biases=st.tuples(st.booleans(), st.booleans()),
    stride=st.integers(1, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_branches_compute_the_same(
    groups: int, relus: tuple[bool, bool], biases: tuple[bool, bool], stride: int, seed: int
) -> None:
    original = model(groups, relus=relus, biases=biases, stride=stride, seed=seed)
    for node in [node for node in original.graph if node.op_type == "Identity"]:
        node.op_type = "Relu"  # an Identity is gone by the time that this pass runs
    branches, report = split(original)
    assert (report.changed, report.refusals) == (1, ())
    assert ops(branches) == {"Conv": 2 * groups, "Relu": 2 * groups, "Concat": 1}
    assert_close(run(branches), run(original))


def test_merging_them_gives_what_was_split() -> None:
    original = model(4, relus=(True, True), biases=(True, True), stride=1)
    branches, _ = split(original)
    merged, report = changed_by(MergeBranches, branches)
    assert report.changed
    assert ops(merged) == ops(original)
    assert_close(run(merged), run(original))


def bottleneck() -> ir.Model:
    body = """
        s = Conv(x, u, c)
        sr = Relu(s)
        a = Conv<group=4, pads=[1,1,1,1]>(sr, w, b)
        r = Relu(a)
        e = Conv(r, v)
        p = GlobalAveragePool(e)
        f = Flatten(p)
        y = Gemm<transB=1>(f, fc)
    """
    weights = {"u": convolution(16, 3, 1), "c": vector(16), "w": convolution(8, 4), "b": vector(8)}
    weights |= {"v": convolution(8, 8, 1), "fc": convolution(5, 8, 1)[..., 0, 0]}
    return graph(body, weights, outputs="float[N, 5] y")


def test_integers_stay_the_same_to_the_last_bit() -> None:
    original = bottleneck()
    target = X86.with_reduced_range()  # without VNNI, larger sums saturate, each order its own way
    int8 = quantize(original, calibrate(original, [images(32)]), target=target).model
    branches, report = split(int8)
    assert (report.changed, report.refusals) == (1, ())
    assert all(groups_of(node) == 1 for node in branches.graph)
    executed = executed_ops(to_bytes(branches))
    assert (executed["QLinearConv"], executed["QLinearConcat"]) == (9, 1)
    assert not executed["Conv"]
    assert np.array_equal(run_images(branches, images(8, seed=1))[0], run_images(int8, images(8, seed=1))[0])


def test_two_branches_in_each_others_place_would_be_seen() -> None:
    original = model(2, relus=(True, True), biases=(True, True), stride=1)
    branches, _ = split(original)
    concat = next(node for node in branches.graph if node.op_type == "Concat")
    first, second = concat.inputs
    concat.replace_input_with(0, second)
    concat.replace_input_with(1, first)
    with pytest.raises(AssertionError):
        assert_close(run(branches), run(original))


PRETEXT = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 4, 5, 5] x, float[4, 2, 1, 1] v) => (float[N, 4, 5, 5] y, float[N, 4, 5, 5] z)
    <float[4, 4, 1, 1] u = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8},
     float[4, 2, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8}> { BODY }
"""
NONE = "no convolution of its own, without groups, stands before it"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("z = Relu(x) y = Conv<group=2>(x, w)", NONE),
        ("z = Conv(x, u) y = Conv<group=2>(z, w)", NONE),
        ("a = Conv<group=2>(x, v) z = Relu(x) y = Conv<group=2>(a, w)", NONE),
        ("a = Conv(x, u) z = Relu(a) y = Conv<group=2>(a, w)", NONE),
        ("a = Conv(x, u) z = Relu(x) y = Conv<group=2>(a, v)", "a weight or a bias is not constant"),
    ],
)
def test_refusals(body: str, why: str) -> None:
    original = parse(PRETEXT.replace("BODY", body))
    FoldConstants()(original)
    before = to_bytes(original)
    conv = next(node for node in reversed(original.graph) if groups_of(node) > 1)
    assert why_not_split(conv) == why
    report = SplitGroups(lambda node: node is conv)(original).report
    assert [refusal.why for refusal in report.refusals] == [why]
    assert to_bytes(original) == before


def test_what_is_not_chosen_stays() -> None:
    original = bottleneck()
    report = SplitGroups(lambda _: False)(original).report
    assert (report.changed, report.refusals) == (0, ())
