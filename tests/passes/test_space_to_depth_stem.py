from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport.calibration import calibrate
from rexport.model_file import to_bytes
from rexport.passes.space_to_depth_stem import SpaceToDepthStem
from rexport.quantization import X86, quantize
from rexport.runtimes.onnxruntime import executed_ops
from tests._graphs import convolution, graph, images, vector
from tests._graphs import run as run_images
from tests.passes._models import assert_close, changed_by, make, ops, refusal, run

if TYPE_CHECKING:
    import onnx_ir as ir


def stem(
    *,
    channels: int = 3,
    kernel: tuple[int, int] = (7, 7),
    pads: tuple[int, ...] = (3, 3, 3, 3),
    side: int = 16,
    seed: int = 0,
) -> ir.Model:
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.standard_normal((5, channels, *kernel)).astype(np.float32),
        "b": rng.standard_normal(5).astype(np.float32),
    }
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", strides=[2, 2], pads=pads)
    return make([node], weights, x=["N", channels, side, side + 2], y=["N", 5, None, None])


@pytest.mark.slow
@given(
    channels=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    pads=st.tuples(*[st.integers(0, 4)] * 4),
    side=st.sampled_from([8, 10, 16]),
    seed=st.integers(0, 99),
)
@settings(max_examples=100)
def test_blocks_give_the_same(
    channels: int, kernel: tuple[int, int], pads: tuple[int, ...], side: int, seed: int
) -> None:
    original = stem(channels=channels, kernel=kernel, pads=pads, side=side, seed=seed)
    changed, report = changed_by(SpaceToDepthStem, original)
    if report.refusals:
        assert report.refusals[0].why == "it does not read the picture to its end"
        return
    assert ops(changed) == {"SpaceToDepth": 1, "Conv": 1}
    assert_close(run(changed), run(original))


def test_the_stem_of_resnet_becomes_a_kernel_of_four() -> None:
    changed, _ = changed_by(SpaceToDepthStem, stem())
    conv = changed.graph.node(1)
    assert conv.inputs[1].shape == (5, 12, 4, 4)
    assert list(conv.attributes.get_ints("pads")) == [2, 2, 1, 1]


def test_integers_stay_the_same_to_the_last_bit() -> None:
    body = """
        s = Conv<strides=[2,2], pads=[3,3,3,3]>(x, w, b)
        r = Relu(s)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        y = Gemm<transB=1>(f, fc)
    """
    weights = {"w": convolution(16, 3, 7), "b": vector(16), "fc": convolution(5, 16, 1)[..., 0, 0]}
    original = graph(body, weights, outputs="float[N, 5] y")
    target = X86.with_reduced_range()  # without VNNI, larger sums saturate, each order its own way
    int8 = quantize(original, calibrate(original, [images(32)]), target=target).model
    changed, report = changed_by(SpaceToDepthStem, int8)
    assert report.changed == 1
    assert executed_ops(to_bytes(changed)) == executed_ops(to_bytes(int8)) + Counter(["SpaceToDepth"])
    assert np.array_equal(run_images(changed, images(8, seed=1))[0], run_images(int8, images(8, seed=1))[0])


def test_a_shifted_kernel_would_be_seen() -> None:
    original = stem()
    changed, _ = changed_by(SpaceToDepthStem, original)
    weight = changed.graph.node(1).inputs[1].const_value.numpy()
    weight[:] = np.roll(weight, 1, axis=2)
    with pytest.raises(AssertionError):
        assert_close(run(changed), run(original))


@pytest.mark.parametrize(
    ("attributes", "size", "why"),
    [
        ({"group": 3}, 16, "it has groups"),
        ({"dilations": [2, 2]}, 16, "it is dilated"),
        ({"auto_pad": "SAME_UPPER"}, 16, "its padding is not stated (auto_pad)"),
        ({}, 15, "its pictures are not known to have an even height and width"),
        ({}, "S", "its pictures are not known to have an even height and width"),
    ],
)
def test_refusals(attributes: dict[str, object], size: int | str, why: str) -> None:
    inputs = 3 // int(str(attributes.get("group", 1)))
    weights = {"w": np.ones((6, inputs, 3, 3), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", strides=[2, 2], **attributes)
    assert refusal(SpaceToDepthStem, make([node], weights, x=["N", 3, size, size], y=["N", 6, None, None])) == why


@pytest.mark.parametrize(("channels", "strides"), [(5, [2, 2]), (3, [1, 1]), (3, [2, 1])])
def test_other_convolutions_are_no_stems(channels: int, strides: list[int]) -> None:
    weights = {"w": np.ones((6, channels, 3, 3), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", strides=strides)
    _, report = changed_by(SpaceToDepthStem, make([node], weights, x=["N", channels, 16, 16], y=["N", 6, None, None]))
    assert (report.changed, report.refusals) == (0, ())
