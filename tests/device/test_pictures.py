from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rexport.device._pictures import model_input, resized
from rexport.preprocessing import Interpolation, Preprocessing, Takes

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

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
@pytest.mark.parametrize(
    ("height", "width", "resize"), [(300, 417, 256), (417, 300, 256), (224, 224, 224), (90, 61, 240)]
)
def test_an_input_is_rexports(
    tmp_path: Path, height: int, width: int, resize: int, takes: Takes, interpolation: Interpolation
) -> None:
    preprocessing = Preprocessing(size=224, resize=resize, takes=takes, interpolation=interpolation)
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


def _stated(preprocessing: Preprocessing) -> dict[str, Any]:
    stated: dict[str, Any] = json.loads(preprocessing.to_json())
    return stated


def test_a_ready_input_is_taken_as_it_is(tmp_path: Path) -> None:
    ready = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", ready)
    np.testing.assert_array_equal(model_input(tmp_path / "x.npy", None, ready), ready)


def test_what_can_not_be_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = np.zeros((1, 3, 8, 8), np.float32)
    stated = _stated(Preprocessing(size=8))

    def refused(name: str, message: str, preprocessing: dict[str, Any] | None = stated) -> None:
        with pytest.raises(ValueError, match=message):
            model_input(tmp_path / name, preprocessing, golden)

    np.save(tmp_path / "float.npy", np.zeros((1, 3, 9, 9), np.float32))
    np.save(tmp_path / "pixels.npy", _pixels(8, 8))
    np.save(tmp_path / "large.npy", _pixels(9, 8))
    np.save(tmp_path / "objects.npy", np.array([print]), allow_pickle=True)
    Image.fromarray(_pixels(8, 8)).save(tmp_path / "x.png")
    (tmp_path / "cut.ppm").write_bytes(b"P6 8 8 255\n" + bytes(10))
    refused("float.npy", "neither RGB pixels")
    refused("pixels.npy", "takes .npy inputs only", None)
    refused("large.npy", "is 8×9 pixels, and the model takes 8×8 without resizing")
    refused("objects.npy", "allow_pickle=False")
    refused("cut.ppm", "no binary PPM")
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused("x.png", "pip install pillow")
