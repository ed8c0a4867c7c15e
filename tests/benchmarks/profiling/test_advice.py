"""Each rule speaks where it should, and is silent where nothing is to gain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rexport.benchmarks.profiling.advice import (
    Conditions,
    advise,
    conversion,
    depthwise,
    float_island,
    grouped,
    layout_change,
    memory_bound,
    remarks,
    stem,
)
from rexport.benchmarks.profiling.profiled import Convolution, ProfiledLayer

_PLAIN = Convolution(inputs=64, outputs=64, groups=1, kernel=(3, 3), strides=(1, 1))
# 10 GMAC in 0.1 s: 100 GMAC/s, at 20 % of the time
_SLOW = ProfiledLayer(
    name="conv",
    op_type="Conv",
    kernel="QLinearConv",
    precision="int8",
    nodes=("conv",),
    macs=10_000_000_000,
    seconds=0.1,
    share=0.2,
    gmacs_per_second=100.0,
    weights=64 * 64 * 9,
    convolution=_PLAIN,
)
_HERE = Conditions(runtime="cpu", batch=1, is_int8=True, fastest=400.0)


def test_a_float_layer_in_an_int8_model() -> None:
    island = replace(_SLOW, precision="float32", share=0.001)
    assert "inspect FILE" in (float_island(island, _HERE) or "")
    assert float_island(_SLOW, _HERE) is None
    assert float_island(island, replace(_HERE, is_int8=False)) is None
    assert float_island(replace(island, macs=None, op_type="Softmax"), _HERE) is None


@pytest.mark.parametrize("op_type", ["QuantizeLinear", "DequantizeLinear", "Cast"])
def test_conversions_that_cost(op_type: str) -> None:
    layer = replace(_SLOW, op_type=op_type, macs=None, convolution=None, weights=0, share=0.03)
    assert conversion(layer, _HERE)
    assert conversion(replace(layer, share=0.029), _HERE) is None
    assert conversion(_SLOW, _HERE) is None
    assert ("--raw-image" in (conversion(layer, _HERE) or "")) == (op_type == "QuantizeLinear")


def test_layout_changes_that_cost() -> None:
    layer = replace(_SLOW, op_type="layout change", macs=None, convolution=None, weights=0, share=0.05)
    assert layout_change(layer, _HERE)
    assert layout_change(replace(layer, share=0.01), _HERE) is None
    assert layout_change(replace(layer, op_type="Transpose"), _HERE) is None


def test_groups_worth_merging() -> None:
    layer = replace(_SLOW, convolution=replace(_PLAIN, groups=32))
    assert "--regroup measure" in (grouped(layer, _HERE) or "")
    for conditions, other in (
        (_HERE, _SLOW),  # not grouped
        (_HERE, replace(layer, precision="float32")),  # where merging loses
        (_HERE, replace(layer, share=0.01)),
        (replace(_HERE, runtime="openvino"), layer),
        (replace(_HERE, fastest=150.0), layer),  # fast enough
        (_HERE, replace(layer, convolution=replace(_PLAIN, groups=64))),  # depthwise
    ):
        assert grouped(other, conditions) is None


def test_depthwise_layers() -> None:
    layer = replace(_SLOW, convolution=replace(_PLAIN, groups=64))
    assert "memory" in (depthwise(layer, _HERE) or "")
    assert depthwise(replace(layer, convolution=replace(_PLAIN, groups=32)), _HERE) is None
    assert depthwise(_SLOW, _HERE) is None
    assert depthwise(replace(_SLOW, convolution=replace(_PLAIN, inputs=1, groups=1)), _HERE) is None


def test_a_stem_of_three_channels() -> None:
    first = replace(_SLOW, convolution=Convolution(inputs=3, outputs=64, groups=1, kernel=(7, 7), strides=(2, 2)))
    assert "--stem measure" in (stem(first, _HERE) or "")
    assert stem(first, replace(_HERE, fastest=110.0)) is None
    assert stem(_SLOW, _HERE) is None
    in_blocks = Convolution(inputs=12, outputs=64, groups=1, kernel=(4, 4), strides=(1, 1))
    assert stem(replace(first, convolution=in_blocks), _HERE) is None


def test_few_pictures_for_many_weights() -> None:
    layer = replace(_SLOW, macs=25_000_000, weights=25_000_000, seconds=0.001, op_type="Gemm", convolution=None)
    assert "each weight 1 × per call" in (memory_bound(layer, _HERE) or "")
    assert memory_bound(layer, replace(_HERE, batch=64, fastest=4000.0)) is None
    assert memory_bound(_SLOW, _HERE) is None  # it uses its weights often: something else is slow
    assert memory_bound(layer, replace(_HERE, fastest=40.0)) is None


def test_the_first_rule_that_applies_speaks() -> None:
    island = replace(_SLOW, precision="float32", convolution=replace(_PLAIN, groups=64))
    assert advise(island, _HERE) == float_island(island, _HERE)
    assert advise(_SLOW, _HERE) is None


def test_conditions_are_those_of_most_of_the_work() -> None:
    other = replace(_SLOW, precision="float32", macs=1_000_000_000, seconds=0.1)
    assert Conditions.of([_SLOW, other], runtime="cpu", batch=1).is_int8
    assert not Conditions.of([other], runtime="cpu", batch=1).is_int8
    conditions = Conditions.of([_SLOW, replace(_SLOW, gmacs_per_second=1e10, share=0.001)], runtime="cpu", batch=2)
    assert conditions.fastest == pytest.approx(100)  # what takes no time is no measure of speed


def test_remarks_are_of_the_whole_model() -> None:
    changes = [replace(_SLOW, op_type="layout change", macs=None, share=0.02)] * 2
    (said,) = remarks([_SLOW, *changes], _HERE)
    assert said == "Changing the layout of tensors takes 4 % of the time, in 2 places."
    (said,) = remarks([_SLOW], replace(_HERE, is_int8=False))
    assert "rexport quantize" in said
    assert remarks([_SLOW], _HERE) == ()
