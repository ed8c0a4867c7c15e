from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rexport.calibration import calibrate
from rexport.quantization import X86, quantize
from rexport.runtimes.onnxruntime import executed_ops, open_session
from rexport.tuning import AS_IT_IS, GroupForm, grouped_layers
from tests._graphs import convolution, graph, images
from tests.tuning.test_timings import LAYER

BODY = """
    s = Conv<strides=[2,2], pads=[1,1,1,1]>(x, stem)
    r = Relu(s)
    a = Conv<group=4, pads=[1,1,1,1]>(r, wa)
    ar = Relu(a)
    b = Conv<group=4, pads=[1,1,1,1]>(ar, wb)
    br = Relu(b)
    d = Conv<group=4, pads=[1,1,1,1]>(br, wd)
    dr = Relu(d)
    c = Conv<group=2, strides=[2,2]>(dr, wc)
    cr = Relu(c)
    p = GlobalAveragePool(cr)
    f = Flatten(p)
    y = Gemm<transB=1>(f, fc)
"""
WEIGHTS = {
    "stem": convolution(16, 3),
    "wa": convolution(16, 4),
    "wb": convolution(16, 4, seed=1),
    "wd": convolution(16, 4, seed=2),
    "wc": convolution(8, 8),
    "fc": convolution(5, 8, 1)[..., 0, 0],
}


def test_equal_layers_are_one_and_sizes_are_inferred() -> None:
    model = graph(BODY, WEIGHTS, inputs="float[N, 3, H, W] x", outputs="float[N, 5] y")
    layers = grouped_layers(model, size=16)
    assert list(layers.values()) == [("a",), ("b", "d"), ("c",)]
    first, again, second = layers
    # the convolution before the first has no groups, and before the others is one that has
    assert (first.can_split, again.can_split, second.can_split) == (True, False, False)
    assert replace(first, can_split=False) == again
    assert (first.height, first.groups, first.weights, first.activations) == (8, 4, "float32", "float32")
    assert (second.inputs, second.outputs, second.strides) == (16, 8, (2, 2))
    assert str(second) == "3×3, 16 → 8 of 8×8, stride 2"


def test_quantized_layers_are_found_as_such() -> None:
    model = graph(BODY, WEIGHTS, outputs="float[N, 5] y")
    int8 = quantize(model, calibrate(model, [images(16)]), target=X86).model
    layers = grouped_layers(int8, size=16)
    assert {(layer.weights, layer.activations, layer.is_quantized) for layer in layers} == {("int8", "uint8", True)}
    assert sum(map(len, layers.values())) == 4


@pytest.mark.parametrize("dtypes", [("int8", "uint8", "QLinearConv"), ("float32", "float32", "Conv")])
@pytest.mark.parametrize("merged", [1, 2, 4])
def test_a_layer_alone_runs_as_in_its_network(dtypes: tuple[str, str, str], merged: int) -> None:
    weights, activations, op_type = dtypes
    layer = replace(LAYER, weights=weights, activations=activations)
    results = []
    for branches in (False, True):
        alone = layer.to_model(GroupForm(merged=merged, branches=branches))
        executed = executed_ops(alone)
        count = 2 * 4 // merged + 1 if branches and merged < 4 else 3
        assert executed[op_type] + executed["FusedConv"] == count
        results += open_session(alone).run(None, {"images": np.ones((2, 16, 8, 8), np.float32)})
    assert results[0].shape == (2, 16, 8, 8)
    np.testing.assert_allclose(*results, atol=1e-6 * np.abs(results[0]).max())  # sums in another order


def test_forms_divide_the_groups_and_stay_narrow_and_few() -> None:
    one, two, four = AS_IT_IS, GroupForm(merged=2), GroupForm(merged=4)
    four_branches, two_branches = GroupForm(branches=True), GroupForm(merged=2, branches=True)
    assert LAYER.forms(widest=128, most_branches=8) == (one, two, four, four_branches, two_branches)
    assert LAYER.forms(widest=128, most_branches=2) == (one, two, four, two_branches)
    assert LAYER.forms(widest=8, most_branches=1) == (one, two)
    assert replace(LAYER, can_split=False).forms(widest=1, most_branches=8) == (one,)


def test_layers_of_unknown_shape_are_left_out() -> None:
    body = 'a = Conv<group=3, auto_pad="SAME_UPPER">(x, w) p = GlobalAveragePool(a) y = Flatten(p)'
    assert grouped_layers(graph(body, {"w": convolution(3, 1)}, outputs="float[N, 3] y"), size=16) == {}
