"""Thumbnails: what the model sees, and small."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rexport.calibration import CenterCrop, WholePictures
from rexport.evaluation.thumbnails import Thumbnail, thumbnail
from rexport.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

_PICTURE = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)


def image_of(picture: Thumbnail | None) -> Image.Image:
    assert picture is not None
    image = Image.open(io.BytesIO(base64.b64decode(picture.address.partition(",")[2])))
    assert image.size == (picture.width, picture.height)
    return image


def test_small_pictures_are_the_pixels_that_the_model_sees(tmp_path: Path) -> None:
    Image.fromarray(_PICTURE).save(tmp_path / "a.png")
    preprocessing = Preprocessing(size=32, resize=40)
    picture = thumbnail(tmp_path / "a.png", preprocessing, CenterCrop())
    assert picture is not None
    assert picture.address.startswith("data:image/png;base64,")
    assert picture.few_pixels
    with Image.open(tmp_path / "a.png") as original:
        assert np.array_equal(np.asarray(image_of(picture)), preprocessing.crop(original))


def test_large_ones_are_a_small_jpeg(tmp_path: Path) -> None:
    Image.fromarray(_PICTURE).save(tmp_path / "a.png")
    picture = thumbnail(tmp_path / "a.png", Preprocessing(size=256, resize=256), CenterCrop())
    assert picture is not None
    assert (image_of(picture).size, picture.few_pixels) == ((224, 224), False)
    assert picture.address.startswith("data:image/jpeg;base64,")
    whole = thumbnail(tmp_path / "a.png", Preprocessing(size=256, resize=256), WholePictures((256,)))
    assert image_of(whole).size == (224, 168)


def test_a_picture_that_is_gone_has_none(tmp_path: Path) -> None:
    assert thumbnail(tmp_path / "gone.png", Preprocessing(size=32), CenterCrop()) is None
