from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rexport._errors import DataError, ModelFileError, UsageError
from rexport.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Interpolation,
    PictureOptions,
    Preprocessing,
    Takes,
)


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="module")
def transforms(torchvision: Any) -> Any:
    return torchvision.transforms


def of_torchvision(transforms: Any, preprocessing: Preprocessing, image: Image.Image) -> np.ndarray:
    """Return what torchvision's reference evaluation makes of a picture."""
    steps = [
        transforms.Resize(preprocessing.resize, transforms.InterpolationMode(preprocessing.interpolation)),
        transforms.CenterCrop(preprocessing.size),
        transforms.ToTensor(),
        transforms.Normalize(preprocessing.mean, preprocessing.std),
    ]
    return transforms.Compose(steps)(image.convert("RGB")).numpy()


def ours(preprocessing: Preprocessing, image: Image.Image) -> np.ndarray:
    return preprocessing.normalise(preprocessing.crop(image))


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Allow one rounding of the last bit: pixels / 255 may be a product with 1 / 255."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype == np.float32
    # the rounding is of pixels of up to 1, divided by the standard deviation
    assert np.abs(actual - expected).max() <= 2**-23 / min(IMAGENET_STD)


@pytest.mark.parametrize(
    ("width", "height"),
    [(500, 375), (375, 500), (256, 256), (257, 256), (300, 299), (1024, 333), (80, 61), (31, 97), (224, 224)],
)
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (224, 224), (224, 235), (97, 101), (1, 8)])
@pytest.mark.parametrize("interpolation", Interpolation)
def test_pictures_become_what_torchvision_makes_of_them(
    width: int, height: int, size: int, resize: int, interpolation: Interpolation, transforms: Any
) -> None:
    preprocessing = Preprocessing(size=size, resize=resize, interpolation=interpolation)
    image = picture(width, height)
    assert_same(ours(preprocessing, image), of_torchvision(transforms, preprocessing, image))


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    size=st.integers(1, 64),
    extra=st.integers(0, 20),
    seed=st.integers(0, 9),
)
@settings(max_examples=60)
def test_any_size_becomes_what_torchvision_makes_of_it(
    width: int, height: int, size: int, extra: int, seed: int, transforms: Any
) -> None:
    preprocessing = Preprocessing(size=size, resize=size + extra)
    image = picture(width, height, seed=seed)
    assert_same(ours(preprocessing, image), of_torchvision(transforms, preprocessing, image))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_every_kind_of_picture_is_rgb_first(mode: str, transforms: Any) -> None:
    preprocessing = Preprocessing(size=24, resize=28)
    image = picture(40, 30, mode)
    assert_same(ours(preprocessing, image), of_torchvision(transforms, preprocessing, image))


def test_a_crop_one_pixel_off_would_be_seen(transforms: Any) -> None:
    preprocessing, image = Preprocessing(size=24, resize=24), picture(24, 24)
    expected = of_torchvision(transforms, preprocessing, image)
    with pytest.raises(AssertionError):
        assert_same(np.roll(ours(preprocessing, image), 1, axis=2), expected)


def test_every_pixel_value_is_normalised_by_the_formula() -> None:
    preprocessing = Preprocessing(size=16)
    pixels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    normal = preprocessing.normalise(pixels)
    exact = (np.arange(256).reshape(16, 16) / 255 - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(
        IMAGENET_STD, (3, 1, 1)
    )
    assert normal.dtype == np.float32
    assert normal.flags.c_contiguous
    assert np.abs(normal - exact).max() <= 3 * 2**-24 / min(IMAGENET_STD)  # three roundings, of numbers up to 1


def test_a_batch_is_normalised_like_its_pictures() -> None:
    preprocessing = Preprocessing(size=8, mean=(0.1, 0.2, 0.3), std=(1, 2, 4))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    batch = preprocessing.normalise(pixels)
    assert batch.shape == (5, 3, 8, 8)
    for one, alone in zip(batch, pixels, strict=True):
        np.testing.assert_array_equal(one, preprocessing.normalise(alone))


def test_without_resizing_pictures_stay_as_they_are() -> None:
    image = picture(32, 32)
    np.testing.assert_array_equal(Preprocessing(size=32).crop(image), np.asarray(image))


@pytest.mark.parametrize(("width", "height"), [(33, 32), (32, 31), (28, 28)])
def test_without_resizing_other_pictures_are_refused(width: int, height: int) -> None:
    with pytest.raises(DataError) as caught:
        Preprocessing(size=32).crop(picture(width, height))
    assert str(caught.value) == (
        f"is {height}×{width} pixels, and the model takes 32×32 without resizing (to resize, pass --resize 32)"
    )


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (299, 342), (384, 439), (128, 146), (32, None), (127, None)])
def test_the_default_is_the_habit_of_the_size(size: int, resize: int | None) -> None:
    assert Preprocessing.default_for(size) == Preprocessing(size=size, resize=resize)


finite = st.floats(-10, 10, width=32)
positive = st.floats(1e-3, 10)


@given(
    size=st.integers(1, 2000),
    extra=st.none() | st.integers(0, 200),
    mean=st.tuples(finite, finite, finite),
    std=st.tuples(positive, positive, positive),
    takes=st.sampled_from(Takes),
    interpolation=st.sampled_from(Interpolation),
    assumed=st.booleans(),
)
def test_what_is_written_is_read(size: int, extra: int | None, **fields: Any) -> None:
    written = Preprocessing(size=size, resize=None if extra is None else size + extra, **fields)
    read = Preprocessing.from_json(written.to_json())
    assert (read, read.assumed) == (written, written.assumed)


def test_what_is_assumed_says_so() -> None:
    assert '"assumed": true' in Preprocessing.default_for(224).to_json()
    assert "assumed" not in Preprocessing(size=224, resize=256).to_json()


@pytest.mark.parametrize("change", ['"interpolation": "lanczos"', '"interpolation": 3', '"assumed": "no"'])
def test_other_filters_and_truths_are_refused(change: str) -> None:
    with pytest.raises(ModelFileError, match="preprocessing metadata can't be read"):
        Preprocessing.from_json(f"{Preprocessing(size=32).to_json()[:-1]}, {change}}}")


@pytest.mark.parametrize(
    ("takes", "layout", "dtype", "in_graph"),
    [
        (Takes.NORMALISED, "NCHW", "float32", "[]"),
        (Takes.PIXELS, "NHWC", "uint8", '["normalise"]'),
        (Takes.PICTURES, "NHWC", "uint8", '["resize", "crop", "normalise"]'),
    ],
)
def test_the_text_says_what_others_need_to_know(takes: Takes, layout: str, dtype: str, in_graph: str) -> None:
    assert Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1), takes=takes).to_json() == (
        '{"size": 32, "resize": null, "interpolation": "bilinear", "mean": [0, 0, 0], "std": [1, 1, 1], '
        f'"color": "RGB", "layout": "{layout}", "dtype": "{dtype}", "scale": "1/255", "in_graph": {in_graph}}}'
    )


def test_files_that_do_not_say_what_they_do_themselves_do_nothing() -> None:
    old = '{"size": 32, "resize": null, "mean": [0, 0, 0], "std": [1, 1, 1], "color": "RGB", "layout": "NCHW"}'
    assert Preprocessing.from_json(old) == Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize("in_graph", ['["crop"]', '"normalise"', "null", "[[]]", "3", '["normalise", "resize"]'])
def test_other_steps_are_refused(in_graph: str) -> None:
    text = Preprocessing(size=32).to_json().replace('"in_graph": []', f'"in_graph": {in_graph}')
    with pytest.raises(ModelFileError, match="preprocessing metadata can't be read"):
        Preprocessing.from_json(text)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4).map(repr))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError, match="preprocessing metadata can't be read"):
        Preprocessing.from_json(text)


# what a file takes


@pytest.mark.parametrize(("takes", "shape"), [(Takes.PIXELS, (24, 24, 3)), (Takes.PICTURES, (60, 44, 3))])
def test_raw_images_are_pixels_as_they_are(takes: Takes, shape: tuple[int, ...]) -> None:
    preprocessing, image = Preprocessing(size=24, resize=31, takes=takes), picture(44, 60)
    pixels = preprocessing.pixels(image)
    assert (pixels.dtype, pixels.shape) == (np.uint8, shape)
    assert preprocessing.to_input(pixels) is pixels
    if takes is Takes.PICTURES:
        np.testing.assert_array_equal(pixels, np.asarray(image))
    else:
        np.testing.assert_array_equal(pixels, preprocessing.crop(image))


def test_others_are_normalised() -> None:
    preprocessing, image = Preprocessing(size=24, resize=31), picture(44, 60)
    pixels = preprocessing.pixels(image)
    np.testing.assert_array_equal(pixels, preprocessing.crop(image))
    np.testing.assert_array_equal(preprocessing.to_input(pixels), preprocessing.normalise(pixels))


@pytest.mark.parametrize("takes", Takes)
def test_whole_pictures_become_what_any_file_takes(takes: Takes) -> None:
    preprocessing = Preprocessing(size=24, resize=31, takes=takes)
    images = [picture(44, 60, seed=seed) for seed in range(3)]
    found = preprocessing.of_pictures(np.stack([np.asarray(image) for image in images]))
    expected = preprocessing.to_input(np.stack([preprocessing.pixels(image) for image in images]))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == (np.uint8 if takes.raw else np.float32)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_whole_pictures_are_rgb(mode: str) -> None:
    pixels = Preprocessing(size=24, resize=31, takes=Takes.PICTURES).pixels(picture(40, 30, mode))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (30, 40, 3))


# several views


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (256, 256), (257, 300), (61, 80), (97, 31)])
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (224, 224), (97, 101), (32, 41)])
def test_ten_crops_are_those_of_torchvision(width: int, height: int, size: int, resize: int, transforms: Any) -> None:
    image = picture(width, height)
    steps = transforms.Compose([transforms.Resize(resize), transforms.TenCrop(size)])
    crops = Preprocessing(size=size, resize=resize).ten_crops(image)
    assert len(crops) == 10
    for crop, expected in zip(crops, steps(image), strict=True):
        np.testing.assert_array_equal(crop, np.asarray(expected))


def test_the_fifth_crop_is_the_one_that_is_taken_alone() -> None:
    preprocessing, image = Preprocessing(size=24, resize=31), picture(60, 44)
    np.testing.assert_array_equal(preprocessing.ten_crops(image)[4], preprocessing.crop(image))


def test_ten_crops_need_a_larger_picture() -> None:
    with pytest.raises(DataError, match=r"ten crops are cut from a resized picture \(pass --resize\)"):
        Preprocessing(size=32).ten_crops(picture(40, 40))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (256, 256), (31, 97), (1024, 333)])
@pytest.mark.parametrize("scale", [8, 224, 256, 333])
def test_whole_pictures_are_those_of_torchvision(width: int, height: int, scale: int, transforms: Any) -> None:
    image = picture(width, height)
    whole = Preprocessing(size=32).whole(image, scale)
    assert min(whole.shape[:2]) == scale
    np.testing.assert_array_equal(whole, np.asarray(transforms.Resize(scale)(image)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_views_are_rgb(mode: str, transforms: Any) -> None:
    image = picture(40, 30, mode)
    expected = transforms.Resize(28)(image.convert("RGB"))
    np.testing.assert_array_equal(Preprocessing(size=24).whole(image, 28), np.asarray(expected))
    corner = Preprocessing(size=24, resize=28).ten_crops(image)[0]
    np.testing.assert_array_equal(corner, np.asarray(expected)[:24, :24])


# what a user states

HALF = (0.5, 0.5, 0.5)


def test_what_is_the_same_needs_no_word() -> None:
    known = Preprocessing(size=32, resize=36)
    options = PictureOptions.parse(size="32", resize="36", mean="0.485,0.456,0.406", std="0.229,0.224,0.225")
    assert options.applied_to(known, "m.onnx") == (known, None)
    assert PictureOptions().applied_to(known, "m.onnx") == (known, None)


def test_what_replaces_what_is_stated_is_said() -> None:
    known = Preprocessing(size=32, mean=HALF, std=HALF, interpolation=Interpolation.BICUBIC)
    found, note = PictureOptions.parse(resize="40", mean="0,0,0", std="0.5,0.5,0.5").applied_to(known, "m.onnx")
    assert found == replace(known, resize=40, mean=(0.0, 0.0, 0.0))
    assert note == "m.onnx states resize none, mean 0.5,0.5,0.5; taking --resize 40 --mean 0,0,0 instead."


def test_another_size_keeps_the_proportion() -> None:
    found, note = PictureOptions(size=288).applied_to(Preprocessing(size=224, resize=232), "w")
    assert (found.size, found.resize) == (288, 298)
    assert note == "w states size 224; taking --size 288 instead."


def test_what_is_assumed_is_said_until_it_is_all_stated() -> None:
    known = Preprocessing.default_for(224)
    found, note = PictureOptions.parse(mean="0.5,0.5,0.5").applied_to(known, "w.pth")
    assert (found.assumed, found.mean) == (True, HALF)
    assert note == (
        "w.pth does not say how pictures become its input; taking the middle 224×224 of pictures resized to 256, mean "
        "0.5,0.5,0.5 and std 0.229,0.224,0.225 (see --resize, --mean and --std)."
    )
    found, note = PictureOptions(size=32, mean=HALF, std=HALF).applied_to(known, "w.pth")
    assert (found, found.assumed, note) == (Preprocessing(size=32, mean=HALF, std=HALF), False, None)


@pytest.mark.parametrize(
    ("mean", "std", "divided"),
    [
        ("123,117,104", None, "--mean 123,117,104 is for pixels of 0…255; divide by 255: --mean 0.482,0.459,0.408."),
        (None, "58.4,57.1,57.4", "divide by 255: --std 0.229,0.224,0.225."),
        ("0,0,0", "255,255,255", "divide by 255: --std 1,1,1."),
        ("123,117,104", "1,1,1", "--mean 0.482,0.459,0.408 --std 0.00392,0.00392,0.00392."),
        ("123,117,104", "0.2,0.2,0.2", "divide by 255: --mean 0.482,0.459,0.408."),
        ("1,2", None, "--mean 1,2: expected a number per channel"),
        ("nan,0,0", None, "--mean nan,0,0: expected a number per channel"),
        (None, "1,0,1", "larger than zero"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(mean: str | None, std: str | None, divided: str) -> None:
    with pytest.raises(UsageError) as caught:
        PictureOptions.parse(mean=mean, std=std)
    assert divided in str(caught.value)


def test_numbers_of_scaled_pixels_are_taken() -> None:
    options = PictureOptions.parse(mean="0,0.5,1", std="1,0.0039,0.5")
    assert options == PictureOptions(mean=(0, 0.5, 1), std=(1, 0.0039, 0.5))
