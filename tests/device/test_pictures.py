from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rexport.calibration.dataset import BadImage
from rexport.calibration.decoding import read_picture
from rexport.device._pictures import PictureError, model_input, resized, with_channels
from rexport.preprocessing import Interpolation, Layout, Preprocessing, Takes

if TYPE_CHECKING:
    from pathlib import Path

_SIDES = st.integers(1, 70)


def _pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=100, deadline=None)
@given(height=_SIDES, width=_SIDES, new_height=_SIDES, new_width=_SIDES, seed=st.integers(0, 99), bicubic=st.booleans())
def test_resizing_is_pillows(
    height: int, width: int, new_height: int, new_width: int, seed: int, *, bicubic: bool
) -> None:
    """To the bit, if Pillow is asked for the rows first; versions differ in which of the two they take first."""
    pixels = _pixels(height, width, seed)
    found = resized(pixels, new_width, new_height, bicubic=bicubic)
    kernel = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    image = Image.fromarray(pixels)
    rows = image.resize((new_width, height), kernel)
    np.testing.assert_array_equal(found, rows.resize((new_width, new_height), kernel))
    at_once = np.asarray(image.resize((new_width, new_height), kernel))
    if bicubic:  # whose first pass is cut off at 0 and 255, elsewhere where columns come first
        columns = image.resize((width, new_height), kernel).resize((new_width, new_height), kernel)
        assert np.array_equal(at_once, found) or np.array_equal(at_once, columns)
    else:
        assert np.abs(found.astype(int) - at_once).max() <= 1


@pytest.mark.parametrize("interpolation", list(Interpolation))
@pytest.mark.parametrize("takes", list(Takes))
@pytest.mark.parametrize(("height", "width", "resize"), [(75, 104, 64), (104, 75, 64), (56, 56, 56), (23, 15, 60)])
def test_an_input_is_rexports(
    tmp_path: Path, height: int, width: int, resize: int, takes: Takes, interpolation: Interpolation
) -> None:
    preprocessing = Preprocessing(size=56, resize=resize, takes=takes, interpolation=interpolation)
    image = Image.fromarray(_pixels(height, width))
    image.save(tmp_path / "x.png")
    np.save(tmp_path / "x.npy", np.asarray(image))
    image.save(tmp_path / "x.ppm")
    expected = preprocessing.to_input(preprocessing.pixels(image))[np.newaxis]
    golden = np.empty((1, *expected.shape[1:]), expected.dtype)
    one_of_255 = 1 if takes.raw else 1 / 255 / min(preprocessing.std)
    for name in ("x.png", "x.npy", "x.ppm"):
        found = model_input(tmp_path / name, _stated(preprocessing), golden)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=one_of_255 * 1.001)
        assert (np.abs(found.astype(float) - expected) > 0.5 * one_of_255).mean() < 0.01


_SHAPES = (
    Preprocessing(size=(40, 24), resize=(40, 24), mean=(0.4,), std=(0.3,)),
    Preprocessing(size=(24, 40), resize=48, layout=Layout.NHWC),
    Preprocessing(size=32, resize=(36, 40), mean=(0.1, 0.2, 0.3, 0.4), std=(1.0, 1.0, 1.0, 1.0)),
    Preprocessing(size=(40, 24), resize=(40, 24), takes=Takes.PIXELS, layout=Layout.NCHW),
    Preprocessing(size=32, resize=32, mean=(0.0,), std=(1.0,), takes=Takes.PIXELS),
)


@pytest.mark.parametrize("preprocessing", _SHAPES)
def test_pictures_of_any_shape_are_rexports(tmp_path: Path, preprocessing: Preprocessing) -> None:
    image = Image.fromarray(_pixels(57, 61))
    image.save(tmp_path / "x.png")
    image.save(tmp_path / "x.ppm")
    expected = preprocessing.to_input(preprocessing.pixels(image))[np.newaxis]
    assert expected.shape[1:] == preprocessing.input_shape
    for name in ("x.png", "x.ppm"):
        found = model_input(tmp_path / name, _stated(preprocessing), np.empty_like(expected))
        assert found.dtype == expected.dtype
        one_of_255 = 1 if preprocessing.takes.raw else 1 / 255 / min(preprocessing.std)
        np.testing.assert_allclose(found, expected, rtol=0, atol=one_of_255 * 1.001)


def _stated(preprocessing: Preprocessing) -> dict[str, Any]:
    stated: dict[str, Any] = json.loads(preprocessing.to_json())
    return stated


def test_a_ready_input_is_taken_as_it_is(tmp_path: Path) -> None:
    ready = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", ready)
    np.testing.assert_array_equal(model_input(tmp_path / "x.npy", _stated(Preprocessing(size=8)), ready), ready)


def test_what_can_not_be_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = np.zeros((1, 3, 8, 8), np.float32)

    def refused(name: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            model_input(tmp_path / name, _stated(Preprocessing(size=8)), golden)

    np.save(tmp_path / "float.npy", np.zeros((1, 3, 9, 9), np.float32))
    np.save(tmp_path / "pixels.npy", _pixels(8, 8))
    np.save(tmp_path / "large.npy", _pixels(9, 8))
    np.save(tmp_path / "objects.npy", np.array([print]), allow_pickle=True)
    Image.fromarray(_pixels(8, 8)).save(tmp_path / "x.png")
    (tmp_path / "cut.ppm").write_bytes(b"P6 8 8 255\n" + bytes(10))
    refused("float.npy", "neither pixels")
    refused("large.npy", "is 9×8 pixels, and the model takes 8×8 without resizing")
    refused("objects.npy", "allow_pickle=False")
    refused("cut.ppm", "a PPM of 8×8 pixels has another length")
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused("x.png", "pip install pillow")


_SIDE = 8
_EXIF_TURNED = Image.Exif()
_EXIF_TURNED[0x0112] = 6  # the orientation: to be shown turned by 90 degrees
_RGB = Image.fromarray(_pixels(_SIDE, _SIDE))
_DEEP = (np.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE) * 1000).astype(np.uint16)
_OPTIONS: dict[str, dict[str, Any]] = {
    "turned.jpg": {"exif": _EXIF_TURNED},
    "animated.gif": {"save_all": True, "append_images": [Image.new("P", (_SIDE, _SIDE), 7)]},
    "transparent.png": {"transparency": 0},
}
_PICTURES = {
    "grey.png": _RGB.convert("L"),
    "bits.png": _RGB.convert("1"),
    "grey-alpha.png": _RGB.convert("LA"),
    "palette.png": _RGB.convert("P"),
    "transparent.png": _RGB.convert("P"),
    "palette-alpha.tif": _RGB.convert("P").convert("PA"),
    "alpha.png": _RGB.convert("RGBA"),
    "turned.jpg": _RGB,
    "cmyk.jpg": _RGB.convert("CMYK"),
    "cmyk.tif": _RGB.convert("CMYK"),
    "ycbcr.tif": _RGB.convert("YCbCr"),
    "animated.gif": _RGB.convert("P"),
    "plain.ppm": _RGB,
    "grey.pgm": _RGB.convert("L"),
    "deep.png": Image.fromarray(_DEEP),
    "deep.tif": Image.fromarray(_DEEP),
    "deep-big-endian.tif": Image.frombytes("I;16B", (_SIDE, _SIDE), _DEEP.astype(">u2").tobytes()),
    "integers.tif": Image.fromarray(_DEEP.astype(np.int32)),
    "floats.tif": Image.fromarray(_DEEP.astype(np.float32)),
}


@pytest.mark.parametrize("name", _PICTURES)
def test_every_kind_of_picture_is_read_or_refused_as_rexport_does(tmp_path: Path, name: str) -> None:
    path, preprocessing = tmp_path / name, Preprocessing(size=_SIDE)
    _PICTURES[name].save(path, **_OPTIONS.get(name, {}))
    golden = np.empty((1, 3, _SIDE, _SIDE), np.float32)
    expected = read_picture(path, preprocessing.pixels)
    if isinstance(expected, BadImage):
        with pytest.raises(PictureError) as refused:
            model_input(path, _stated(preprocessing), golden)
        assert str(expected) == f"{path}: {refused.value}"
    else:
        found = model_input(path, _stated(preprocessing), golden)
        np.testing.assert_array_equal(found, preprocessing.to_input(expected)[np.newaxis])


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep-big-endian.tif"])
def test_of_16_bits_the_upper_ones_are_taken(tmp_path: Path, name: str) -> None:
    _PICTURES[name].save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        np.testing.assert_array_equal(
            np.asarray(with_channels(image, 3)), np.repeat(_DEEP[..., np.newaxis] >> 8, 3, axis=2)
        )


def test_a_png_of_16_bits_as_older_pillows_open_it(tmp_path: Path) -> None:
    _PICTURES["deep.png"].save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as opened:
        image = opened.convert("I")  # as before Pillow 10.3
        image.format = "PNG"
        np.testing.assert_array_equal(np.asarray(with_channels(image, 3))[..., 0], _DEEP >> 8)


@pytest.mark.parametrize("name", ["integers.tif", "floats.tif"])
def test_pixels_without_a_known_white_are_refused(tmp_path: Path, name: str) -> None:
    _PICTURES[name].save(tmp_path / name)
    with pytest.raises(PictureError, match="has pixels of 32 bits, and which of them are white is not known"):
        model_input(tmp_path / name, _stated(Preprocessing(size=_SIDE)), np.empty((1, 3, _SIDE, _SIDE), np.float32))


def test_what_is_no_picture_is_refused_as_rexport_does(tmp_path: Path) -> None:
    _RGB.save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    for data in (b"no picture", whole[: len(whole) // 2], b""):
        (tmp_path / "x.png").write_bytes(data)
        expected = read_picture(tmp_path / "x.png", Preprocessing(size=_SIDE).pixels)
        assert isinstance(expected, BadImage)
        with pytest.raises(PictureError) as refused:
            model_input(tmp_path / "x.png", _stated(Preprocessing(size=_SIDE)), np.empty((1, 3, 8, 8), np.float32))
        assert str(expected) == f"{tmp_path / 'x.png'}: {refused.value}"
