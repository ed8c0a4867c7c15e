from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rexport._errors import DataError, UsageError
from rexport.benchmarks.document import Sample
from rexport.benchmarks.pictures import DRAWN, Gallery, draw_pictures
from rexport.preprocessing import Preprocessing, Takes

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Preprocessing(size=32)


def test_drawn_pictures_are_the_same_every_time_and_differ_from_each_other() -> None:
    pictures = draw_pictures(6, 40, 56)
    assert (pictures.shape, pictures.dtype) == ((6, 40, 56, 3), np.uint8)
    np.testing.assert_array_equal(pictures, draw_pictures(6, 40, 56))
    assert not np.array_equal(pictures, draw_pictures(6, 40, 56, seed=1))
    means = pictures.mean(axis=(1, 2))
    assert means.std(axis=0).min() > 10  # of noise, all would be 128 within 2
    assert pictures.std() > 30


def test_neighbours_in_a_drawn_picture_are_alike() -> None:
    picture = draw_pictures(1, 64, 64)[0].astype(float)
    assert np.abs(np.diff(picture, axis=0)).mean() < 0.3 * picture.std(axis=(0, 1)).mean()


def test_raw_and_normalised_models_share_a_file_of_pictures(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    normalised = gallery.hang("a.onnx", PLAIN)
    raw = gallery.hang("b.onnx", replace(PLAIN, takes=Takes.PIXELS))
    other = gallery.hang("c.onnx", Preprocessing(size=16))
    assert normalised.pictures.path == raw.pictures.path
    assert normalised.key == raw.key != other.key
    assert np.load(raw.pictures.path).shape == (DRAWN, 32, 32, 3)
    assert (normalised.labels, normalised.folders) == (None, None)


@pytest.mark.slow
def test_a_model_that_cuts_pictures_sees_what_is_cut_for_others(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    cut = Preprocessing(size=32, resize=36)
    whole = gallery.hang("w.onnx", replace(cut, takes=Takes.PICTURES))
    pixels = gallery.hang("p.onnx", cut)
    assert whole.key == pixels.key
    pictures = np.load(whole.pictures.path)
    assert pictures.shape[1:] == (480, 640, 3)
    np.testing.assert_array_equal(cut.crop(Image.fromarray(pictures[3])), np.load(pixels.pictures.path)[3])


def test_a_folder_s_pictures_come_with_their_labels(data_dir: Path, tmp_path: Path) -> None:
    gallery = Gallery(tmp_path, data=data_dir / "cifar10" / "test", samples=50)
    hung = gallery.hang("m.onnx", PLAIN)
    assert gallery.sample == Sample(used=50, total=846)
    assert np.load(hung.pictures.path).shape == (50, 32, 32, 3)
    assert hung.labels is not None
    assert len(set(hung.labels.tolist())) == len(hung.folders or ()) == 10


def test_whole_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    for name, side in (("a", 20), ("b", 30)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    whole = Preprocessing(size=8, resize=9, takes=Takes.PICTURES)
    with pytest.raises(DataError, match=r"m\.onnx takes whole pictures.*several sizes"):
        Gallery(tmp_path, data=tmp_path).hang("m.onnx", whole)


def test_ready_inputs_are_no_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 32, 32), np.float32))
    with pytest.raises((UsageError, DataError)):
        Gallery(tmp_path, data=tmp_path / "x.npy").hang("m.onnx", PLAIN)
