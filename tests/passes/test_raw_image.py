from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rexport._errors import ModelFileError
from rexport.model_file import Metadata, default_opset, to_bytes
from rexport.model_inputs import image_input
from rexport.passes import Reference, fuse
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing, Takes
from rexport.runtimes.onnxruntime import open_session
from tests.passes._models import make, ops, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGENET = Preprocessing(size=9)


@dataclass(frozen=True, kw_only=True)
class Stem:
    """The choices of a convolution that reads pictures; ``pads`` are top, left, bottom, right."""

    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilations: tuple[int, int] = (1, 1)
    bias: bool = True
    batch: int | str = "N"
    sides: tuple[int | str, int | str] = (9, 9)


def weights(stem: Stem, seed: int, suffix: str = "") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {f"w{suffix}": rng.standard_normal((4, 3, *stem.kernel)).astype(np.float32)}
    return found | ({f"b{suffix}": rng.standard_normal(4).astype(np.float32)} if stem.bias else {})


def model(*stems: Stem, seed: int = 0, opset: int = 18) -> ir.Model:
    """Return a model of convolutions side by side, the squared results of which are its outputs' sum."""
    nodes, tensors, found = [], [], {}
    for index, stem in enumerate(stems):
        found |= weights(stem, seed + index, str(index))
        nodes.append(
            helper.make_node(
                "Conv",
                ["x", f"w{index}", *([f"b{index}"] if stem.bias else [])],
                [f"conv{index}"],
                name=f"conv{index}",
                strides=stem.strides,
                pads=stem.pads,
                dilations=stem.dilations,
            )
        )
        tensors.append(f"conv{index}")
    nodes.append(helper.make_node("Sum" if len(stems) > 1 else "Identity", tensors, ["y"]))
    picture = [stems[0].batch, 3, *stems[0].sides]
    return make(nodes, found, x=picture, y=[None, 4, None, None], opset=opset)


def expected(stems: Sequence[Stem], preprocessing: Preprocessing, pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the sum of the convolutions of normalised pixels in float64, borders of zeros included."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    normal = torch.from_numpy(np.moveaxis((pixels / 255 - mean) / std, -1, 1).copy())
    results = []
    for index, stem in enumerate(stems):
        found = {name: torch.from_numpy(array).double() for name, array in weights(stem, seed + index).items()}
        top, left, bottom, right = stem.pads
        padded = torch.nn.functional.pad(normal, (left, right, top, bottom))
        results.append(
            torch.nn.functional.conv2d(
                padded, found["w"], found.get("b"), stride=stem.strides, dilation=stem.dilations
            ).numpy()
        )
    return sum(results[1:], start=results[0])


def pixels_for(stem: Stem, seed: int = 0) -> np.ndarray:
    shape = [n if isinstance(n, int) else d for n, d in zip((stem.batch, *stem.sides), (2, 10, 8), strict=True)]
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def run(raw: ir.Model, pixels: np.ndarray) -> np.ndarray:
    (result,) = open_session(to_bytes(raw), threads=1).run(None, {"x": pixels})
    return result


def assert_exact(actual: np.ndarray, wanted: np.ndarray, preprocessing: Preprocessing) -> None:
    """Allow the rounding of float32 in sums of up to 64 products of weights and normalised pixels."""
    assert actual.shape == wanted.shape
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    # the size of what is added up: c and a r cancel where the mean is far from the picture's
    size = (1 + np.abs(mean).max()) / std.min()
    assert np.abs(actual - wanted).max() <= 1e-5 * size


stems = st.builds(
    Stem,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
    batch=st.sampled_from(["N", 1, 3]),
    sides=st.sampled_from([("H", "W"), (7, 7), (12, 12), (9, "W")]),
)
means = st.tuples(*[st.floats(-0.2, 1.2)] * 3)
deviations = st.tuples(*[st.floats(0.05, 2)] * 3)


@pytest.mark.slow
@given(stem=stems, mean=means, std=deviations, seed=st.integers(0, 99))
@settings(max_examples=60)
def test_pixels_are_normalised_exactly_borders_included(
    stem: Stem, mean: tuple[float, float, float], std: tuple[float, float, float], seed: int
) -> None:
    preprocessing = Preprocessing(size=9, mean=mean, std=std)
    raw = with_raw_images(model(stem, seed=seed), preprocessing)
    pixels = pixels_for(stem, seed)
    assert_exact(run(raw, pixels), expected([stem], preprocessing, pixels, seed), preprocessing)


@pytest.mark.parametrize("mean", [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (0, 1, 0.3), (0.485, 0.456, 0.406)])
@pytest.mark.parametrize("color", [0, 255])
def test_black_and_white_pictures_under_every_mean(mean: tuple[float, float, float], color: int) -> None:
    preprocessing = Preprocessing(size=9, mean=mean)
    raw = with_raw_images(model(Stem()), preprocessing)
    pixels = np.full((1, 9, 9, 3), color, np.uint8)
    assert_exact(run(raw, pixels), expected([Stem()], preprocessing, pixels), preprocessing)


@pytest.mark.parametrize("fault", ["a level", "the channel", "two colors"])
def test_a_fault_would_be_seen(fault: str) -> None:
    raw, pixels = with_raw_images(model(Stem()), IMAGENET), pixels_for(Stem())
    wanted = expected([Stem()], IMAGENET, pixels)
    assert_exact(run(raw, pixels), wanted, IMAGENET)
    if fault == "a level":
        zero_point = raw.graph.initializers["x_zero_point"]
        zero_point.const_value = ir.tensor(zero_point.const_value.numpy() - np.uint8(1), name=zero_point.name)
    else:
        weight = raw.graph.node("conv0").inputs[1]
        array = weight.const_value.numpy().copy()
        if fault == "the channel":  # as if the borders were a gray that they are not
            array[:, 3] = 0
        else:
            array[:, [0, 1]] = array[:, [1, 0]]
        weight.const_value = ir.tensor(array, name=weight.name)
    with pytest.raises(AssertionError):
        assert_exact(run(raw, pixels), wanted, IMAGENET)


def test_the_shift_in_the_bias_alone_would_be_wrong_at_the_border_only() -> None:
    padded, bare = Stem(), Stem(pads=(0, 0, 0, 0))
    without = with_raw_images(model(bare), IMAGENET)
    without.graph.node("conv0").attributes.add(ir.AttrInt64s("pads", (1, 1, 1, 1)))
    pixels = pixels_for(padded)
    difference = np.abs(run(without, pixels) - expected([padded], IMAGENET, pixels))
    assert difference[:, :, 1:-1, 1:-1].max() < 1e-4
    assert difference[:, :, 0].max() > 0.1


# the graph


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_padding_that_the_size_decides(auto_pad: str) -> None:
    original = model(Stem(kernel=(4, 4)))
    attributes = original.graph.node("conv0").attributes
    attributes.pop("pads")
    attributes.add(ir.AttrString("auto_pad", auto_pad))
    raw, pixels = with_raw_images(original, IMAGENET), pixels_for(Stem())
    assert ops(raw)["Concat"] == (0 if auto_pad == "VALID" else 2)
    (wanted,) = open_session(to_bytes(original)).run(None, {"x": IMAGENET.normalise(pixels)})
    assert_exact(run(raw, pixels), wanted, IMAGENET)


def test_an_ensemble_shares_the_pictures() -> None:
    both = (Stem(), Stem(kernel=(5, 1), pads=(2, 0, 2, 0), bias=False))
    raw = with_raw_images(model(*both), IMAGENET)
    assert ops(raw)["DequantizeLinear"] == 1
    assert ops(raw)["Concat"] == 2  # one of them of the shape
    pixels = pixels_for(both[0])
    assert_exact(run(raw, pixels), expected(both, IMAGENET, pixels), IMAGENET)


def test_one_that_pads_and_one_that_does_not() -> None:
    both = (Stem(pads=(0, 0, 0, 0)), Stem(kernel=(5, 5)))
    raw = with_raw_images(model(*both), IMAGENET)
    pixels = pixels_for(both[0])
    assert_exact(run(raw, pixels), expected(both, IMAGENET, pixels), IMAGENET)


@pytest.mark.parametrize("bias", [False, True])
def test_without_padding_there_is_no_channel_more(bias: bool) -> None:
    stem = Stem(pads=(0, 0, 0, 0), bias=bias)
    raw = with_raw_images(model(stem), IMAGENET)
    assert ops(raw) == {"Transpose": 1, "DequantizeLinear": 1, "Conv": 1, "Identity": 1}
    assert raw.graph.node("conv0").inputs[1].shape == [4, 3, 3, 3]
    pixels = pixels_for(stem)
    assert_exact(run(raw, pixels), expected([stem], IMAGENET, pixels), IMAGENET)


def test_a_mean_that_is_a_gray_needs_no_channel_more() -> None:
    preprocessing = Preprocessing(size=9, mean=(51 / 255, 51 / 255, 51 / 255), std=(0.1, 0.2, 0.3))
    raw = with_raw_images(model(Stem()), preprocessing)
    assert ops(raw) == {"Transpose": 1, "DequantizeLinear": 1, "Conv": 1, "Identity": 1}
    pixels = pixels_for(Stem())
    assert_exact(run(raw, pixels), expected([Stem()], preprocessing, pixels), preprocessing)


@pytest.mark.parametrize("bias", [False, True])
def test_with_padding_the_bias_stays_as_it_was(bias: bool) -> None:
    raw = with_raw_images(model(Stem(bias=bias)), IMAGENET)
    conv = raw.graph.node("conv0")
    assert len(conv.inputs) == 2 + bias
    if bias:
        np.testing.assert_array_equal(conv.inputs[2].const_value.numpy(), weights(Stem(), 0)["b"])


_TRANSPOSED = {"Transpose": 1, "Concat": 1, "DequantizeLinear": 1, "Conv": 1, "Identity": 1}


@pytest.mark.parametrize(
    ("batch", "height", "width", "more"),
    [
        (2, 9, 9, {}),
        ("N", 9, 9, {"Shape": 1, "Slice": 1, "ConstantOfShape": 1, "Concat": 2}),
        (2, "H", 9, {"Shape": 1, "Slice": 1, "ConstantOfShape": 1, "Concat": 2}),
        ("N", "H", "W", {"Shape": 1, "Slice": 2, "ConstantOfShape": 1, "Concat": 2}),
    ],
)
def test_only_what_is_open_is_computed(batch: int | str, height: int | str, width: int | str, more: dict) -> None:
    stem = Stem(batch=batch, sides=(height, width))
    raw = with_raw_images(model(stem), IMAGENET)
    assert ops(raw) == _TRANSPOSED | more
    image = raw.graph.inputs[0]
    assert (image.name, image.dtype) == ("x", ir.DataType.UINT8)
    assert [str(size) for size in image.shape] == [str(size) for size in (batch, height, width, 3)]


def test_the_rest_of_the_model_may_ask_for_the_shape() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 3, 5, H] x) => (float[N, 2, 5, H] y, int64[4] z) <float[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}>
        { y = Conv(x, w)  z = Shape(x) }"""
    raw = with_raw_images(parse(text), IMAGENET)
    pixels = np.zeros((2, 5, 7, 3), np.uint8)
    assert open_session(to_bytes(raw)).run(["z"], {"x": pixels})[0].tolist() == [2, 3, 5, 7]


def test_the_model_is_left_as_it_was_and_the_copy_says_what_it_takes() -> None:
    original = model(Stem())
    Metadata(network="a", classes=("b", "c")).write_to(original)
    before = to_bytes(original)
    preprocessing = Preprocessing(size=9, resize=10, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    raw = with_raw_images(original, preprocessing)
    assert to_bytes(original) == before
    stated = Metadata.of(ir.from_proto(ir.to_proto(raw)))
    assert (stated.network, stated.classes) == ("a", ("b", "c"))
    assert stated.preprocessing == Preprocessing(
        size=9, resize=10, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), takes=Takes.PIXELS
    )
    assert image_input(raw).raw


def test_names_that_are_taken_are_not_taken_again() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[N, 3, 5, 5] x) => (float[N, 1, 5, 5] y)
        <float[1, 3, 3, 3] x_scale, float[1] x_zero_point = {1}>
        { x_dequantized = Conv<pads = [1, 1, 1, 1]>(x, x_scale, x_zero_point)  y = Relu(x_dequantized) }"""
    original = parse(text.replace("x_scale,", f"x_scale = {{{', '.join(['2'] * 27)}}},", 1))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    raw = with_raw_images(original, IMAGENET)
    (wanted,) = open_session(to_bytes(original)).run(None, {"x": IMAGENET.normalise(pixels)})
    np.testing.assert_allclose(run(raw, pixels), wanted, atol=1e-4)


def test_an_old_opset_becomes_one_that_has_the_operators() -> None:
    raw = with_raw_images(model(Stem(), opset=9), IMAGENET)
    assert default_opset(raw) == 10
    pixels = pixels_for(Stem())
    assert_exact(run(raw, pixels), expected([Stem()], IMAGENET, pixels), IMAGENET)


def test_it_can_be_fused_and_proven_like_any_model() -> None:
    original = model(Stem())
    raw = with_raw_images(original, IMAGENET)
    reference = Reference(original, preprocessing=IMAGENET)
    assert reference.difference(raw) < 1e-6
    assert reference.difference(original) == 0
    assert Reference(raw).difference(fuse(raw).model) == 0


# refusals

TEXT = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (float[N, 3, 6, 6] x{inputs}) => (float[N, A, B, C] y{outputs})
    <{weights}float[1, 1, 1, 1] u = {{3}}>
    {{ {nodes} }}"""
WEIGHTS = "float[3, 3, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, "
BY = "Raw images are normalised by the weights of the convolutions that read them, and {where} can't do it: {why}."


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"nodes": "p = Pad(x, n) y = Conv(p, w)", "weights": WEIGHTS + "int64[8] n = {0, 0, 1, 1, 0, 0, 1, 1}, "},
            BY.format(where="p", why="it is a Pad node"),
        ),
        ({"nodes": "r = Relu(x) c = Conv(x, w) y = Add(r, c)"}, BY.format(where="r", why="it is a Relu node")),
        (
            {"nodes": "y = Conv<group = 3>(x, g)", "weights": "float[3, 1, 1, 1] g = {1, 2, 3}, "},
            BY.format(where="y", why="it has groups"),
        ),
        (
            {"nodes": "y = Conv(x, w)  z = Conv(x, w)", "outputs": ", float[N, 3, 6, 6] z"},
            BY.format(where="y", why="its convolution's weight 'w' is shared with 1 other place"),
        ),
        (
            {"nodes": "v = Relu(w) y = Conv(x, v)"},
            BY.format(where="y", why="its convolution's weight 'v' is computed while the model runs"),
        ),
        (
            {"nodes": "y = Conv(x, w)", "outputs": ", float[N, 3, 6, 6] x"},
            "The images 'x' are an output of the model too, and can't become uint8.",
        ),
        ({"nodes": "c = Conv(x, w)  y = Conv(c, x)"}, BY.format(where="y", why="it takes them for weights")),
    ],
)
def test_refusals_say_why(parts: dict[str, str], message: str) -> None:
    original = parse(TEXT.format(**{"inputs": "", "outputs": "", "weights": WEIGHTS} | parts))
    with pytest.raises(ModelFileError) as caught:
        with_raw_images(original, IMAGENET)
    assert str(caught.value) == message


def test_weights_that_float32_can_t_hold_are_refused() -> None:
    stem = model(Stem())
    value = stem.graph.initializers["w0"]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1e38), name="w0")
    with pytest.raises(ModelFileError, match="give weights that float32 can't hold"):
        with_raw_images(stem, Preprocessing(size=9, std=(0.01, 0.01, 0.01)))


def test_raw_images_are_refused() -> None:
    raw = with_raw_images(model(Stem()), IMAGENET)
    with pytest.raises(ModelFileError, match="takes raw images already"):
        with_raw_images(raw, IMAGENET)
