from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport._errors import ModelFileError
from rexport.model_file import image_input, to_bytes
from rexport.passes.raw_image import are_whole_pixels, with_raw_images, with_whole_pixels
from rexport.preprocessing import Preprocessing
from rexport.runtimes.onnxruntime import open_session
from tests._graphs import convolution, graph, vector

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
@pytest.mark.parametrize("pads", ["[1, 1, 1, 1]", "[0, 0, 0, 0]", "[2, 0, 1, 3]"])
def test_normalised_pictures_become_their_pixels(preprocessing: Preprocessing, pads: str) -> None:
    model = graph(f"y = Conv<pads = {pads}>(x, w, b)", _WEIGHTS, outputs="float[N, 8, P, Q] y")
    images = preprocessing.to_input(_pixels())
    changed = with_whole_pixels(model, preprocessing)
    (expected,) = open_session(to_bytes(model)).run(None, {"x": images})
    (found,) = open_session(to_bytes(changed)).run(None, {"x": images})
    # sums of 27 products of a few units, added up in another order and with the normalisation in the weights
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)
    pixels = next(node for node in changed.graph if node.op_type == "QuantizeLinear").outputs[0]
    changed.graph.outputs.append(pixels)
    planes = open_session(to_bytes(changed)).run([pixels.name], {"x": images})[0]
    np.testing.assert_array_equal(planes, _pixels().transpose(0, 3, 1, 2))


def test_the_input_stays_what_it_was() -> None:
    model = graph(_PADDED, _WEIGHTS, outputs="float[N, 8, 16, 16] y")
    assert image_input(with_whole_pixels(model, _IMAGENET)) == image_input(model)


@settings(max_examples=50, deadline=None)
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
    raw = with_raw_images(graph(_PADDED, _WEIGHTS, outputs="float[N, 8, 16, 16] y"), _IMAGENET)
    with pytest.raises(ModelFileError, match="raw images already"):
        with_whole_pixels(raw, _IMAGENET)
