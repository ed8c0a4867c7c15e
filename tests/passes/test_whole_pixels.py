from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport._errors import ModelFileError
from rexport.model_file import to_bytes
from rexport.model_inputs import image_input
from rexport.passes.raw_image import with_raw_images
from rexport.passes.whole_pixels import are_whole_pixels, with_whole_pixels
from rexport.preprocessing import Preprocessing
from rexport.runtimes.onnxruntime import open_session
from tests._graphs import convolution, graph, vector
from tests.passes._models import ops

_IMAGENET = Preprocessing(size=16)
_CIFAR = Preprocessing(size=16, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
_HALF = Preprocessing(size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_WEIGHTS = {"w": convolution(8, 3), "b": vector(8)}
_PADDED = "y = Conv<pads = [1, 1, 1, 1]>(x, w, b)"


def _pixels(count: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    pixels[0, :, :4], pixels[0, :, -4:] = 0, 255
    return pixels


@pytest.mark.parametrize("preprocessing", [_IMAGENET, _CIFAR])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 0, 0, 0), (2, 0, 1, 3), (0, 2, 0, 0)])
@pytest.mark.parametrize("sizes", ["N, 3, 16, 16", "3, 3, 16, 16", "N, 3, H, W", "3, 3, H, 16", "3, 3, 16, W"])
def test_normalised_pictures_become_their_pixels_in_a_frame(
    preprocessing: Preprocessing, pads: tuple[int, int, int, int], sizes: str
) -> None:
    model = graph(
        f"y = Conv<pads = {list(pads)}>(x, w, b)",
        _WEIGHTS,
        inputs=f"float[{sizes}] x",
        outputs="float[N, 8, P, Q] y",
    )
    changed = with_whole_pixels(model, preprocessing)
    (read,) = (node.inputs[0] for node in changed.graph if node.op_type == "DequantizeLinear")
    assert read is not None
    changed.graph.outputs.append(read)
    found, planes = open_session(to_bytes(changed)).run(None, {"x": preprocessing.to_input(_pixels())})
    top, left, bottom, right = pads
    colour = [round(255 * one) for one in preprocessing.mean]
    framed = np.stack(
        [
            np.pad(_pixels()[..., i], ((0, 0), (top, bottom), (left, right)), constant_values=colour[i])
            for i in range(3)
        ],
        axis=1,
    )
    np.testing.assert_array_equal(planes, framed)
    bare = graph("y = Conv(x, w, b)", _WEIGHTS, inputs="float[N, 3, H, W] x", outputs="float[N, 8, P, Q] y")
    images = preprocessing.to_input(np.ascontiguousarray(framed.transpose(0, 2, 3, 1)))
    (expected,) = open_session(to_bytes(bare)).run(None, {"x": images})
    # sums of 27 products of a few units, added up in another order and with the normalisation in the weights
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def test_what_the_frame_is_off_by_is_half_a_level_at_most() -> None:
    model = graph(_PADDED, _WEIGHTS, outputs="float[N, 8, 16, 16] y")
    images = _IMAGENET.to_input(_pixels())
    (expected,) = open_session(to_bytes(model)).run(None, {"x": images})
    (found,) = open_session(to_bytes(with_whole_pixels(model, _IMAGENET))).run(None, {"x": images})
    off = np.abs(found - expected)
    assert off[:, :, 1:-1, 1:-1].max() < 2e-4
    assert off.max() > 2e-3  # the mean is no whole pixel
    half = 0.5 / (255 * np.array(_IMAGENET.std))
    assert (off < (np.abs(_WEIGHTS["w"]).sum(axis=(2, 3)) @ half).reshape(1, -1, 1, 1)).all()


def test_convolutions_with_the_same_padding_share_a_frame() -> None:
    three, five = (f"<pads = [{by}, {by}, {by}, {by}]>" for by in (1, 2))
    model = graph(
        f"a = Conv{three}(x, w, b) c = Conv{three}(x, v) d = Conv{five}(x, u) y = Sum(a, c, d)",
        {**_WEIGHTS, "v": convolution(8, 3, seed=1), "u": convolution(8, 3, 5)},
        outputs="float[N, 8, 16, 16] y",
    )
    images = _IMAGENET.to_input(_pixels())
    changed = with_whole_pixels(model, _IMAGENET)
    assert ops(changed) == {
        "QuantizeLinear": 1,
        "DequantizeLinear": 2,
        "Conv": 3,
        "Sum": 1,
        "Shape": 1,
        "Slice": 1,
        "Concat": 1 + 2 * 2,
        "Expand": 2 * 2,
    }
    (expected,) = open_session(to_bytes(model)).run(None, {"x": images})
    (found,) = open_session(to_bytes(changed)).run(None, {"x": images})
    np.testing.assert_allclose(found[:, :, 2:-2, 2:-2], expected[:, :, 2:-2, 2:-2], rtol=0, atol=6e-4)


@pytest.mark.parametrize("mean", [0.0, 0.45, 1.0])
@pytest.mark.parametrize("pads", ["pads = [1, 1, 1, 1]", 'auto_pad = "SAME_UPPER"'])
def test_of_a_gray_mean_the_convolution_pads_itself(mean: float, pads: str) -> None:
    model = graph(f"y = Conv<{pads}>(x, w, b)", _WEIGHTS, outputs="float[N, 8, 16, 16] y")
    preprocessing = Preprocessing(size=16, mean=(mean,) * 3, std=(0.2, 0.3, 0.4))
    images = preprocessing.to_input(_pixels())
    changed = with_whole_pixels(model, preprocessing)
    assert ops(changed) == {"QuantizeLinear": 1, "DequantizeLinear": 1, "Conv": 1}
    (expected,) = open_session(to_bytes(model)).run(None, {"x": images})
    (found,) = open_session(to_bytes(changed)).run(None, {"x": images})
    np.testing.assert_allclose(found[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], rtol=0, atol=2e-4)
    assert np.abs(found - expected).max() < (0.03 if mean == 0.45 else 2e-4)  # whose padding is a quarter level off


def test_the_input_stays_what_it_was() -> None:
    model = graph(_PADDED, _WEIGHTS, outputs="float[N, 8, 16, 16] y")
    assert image_input(with_whole_pixels(model, _IMAGENET)) == image_input(model)


@settings(max_examples=50)
@given(
    mean=st.tuples(*[st.floats(0.05, 0.95)] * 3),
    std=st.tuples(*[st.floats(0.05, 1.0)] * 3),
)
def test_pictures_are_recognised_where_rounding_finds_them(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    preprocessing = Preprocessing(size=16, mean=mean, std=std)
    images = preprocessing.to_input(_pixels())
    if not are_whole_pixels(images, preprocessing):  # only where 255 mean lies between two integers
        assert min(abs(255 * one % 1 - 0.5) for one in mean) < 0.03
        return
    scale = np.array([1 / (255 * one) for one in std], np.float32).reshape(-1, 1, 1)
    shift = np.rint(255 * np.array(mean)).reshape(-1, 1, 1)
    np.testing.assert_array_equal(np.rint(images / scale) + shift, _pixels().transpose(0, 3, 1, 2))


def test_what_is_no_picture_is_not_taken_for_one() -> None:
    images = _IMAGENET.to_input(_pixels())
    assert are_whole_pixels(images, _IMAGENET)
    assert not are_whole_pixels(images + np.float32(0.01), _IMAGENET)
    assert not are_whole_pixels(images, _CIFAR)  # normalised otherwise
    assert not are_whole_pixels(2 * images, _IMAGENET)
    assert not are_whole_pixels(_HALF.to_input(_pixels()), _HALF)  # 127.5: to which side it is rounded is chance
    resized = (images[:, :, ::2] + images[:, :, 1::2]) / 2
    assert not are_whole_pixels(resized, _IMAGENET)


def test_images_that_more_than_convolutions_read_are_refused() -> None:
    pooled = graph("y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)", outputs="float[N, 3, 8, 8] y")
    with pytest.raises(ModelFileError, match="MaxPool"):
        with_whole_pixels(pooled, _IMAGENET)
    same = graph('y = Conv<auto_pad = "SAME_UPPER">(x, w, b)', _WEIGHTS, outputs="float[N, 8, 16, 16] y")
    with pytest.raises(ModelFileError, match="auto_pad"):
        with_whole_pixels(same, _IMAGENET)
    raw = with_raw_images(graph(_PADDED, _WEIGHTS, outputs="float[N, 8, 16, 16] y"), _IMAGENET)
    with pytest.raises(ModelFileError, match="raw images already"):
        with_whole_pixels(raw, _IMAGENET)
