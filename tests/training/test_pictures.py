from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rexport import Preprocessing
from rexport._errors import DataError
from rexport.calibration.image_folder import ImageFolder
from rexport.training import Pictures, PicturesInMemory, PicturesOnDisk, open_pictures
from rexport.training.pictures import normalise
from tests.training._images import pixels_of, write_images

if TYPE_CHECKING:
    from pathlib import Path

_SMALL = Preprocessing(size=32)
_ORDER = [torch.tensor([5, 0, 3]), torch.tensor([1])]


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    return ImageFolder.scan(write_images(tmp_path, count=3), _SMALL)


def _both(folder: ImageFolder) -> list[Pictures]:
    return [PicturesInMemory.read(folder), PicturesOnDisk(folder)]


def test_normalising_a_batch_is_the_preprocessing_to_the_last_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    ours = normalise(torch.from_numpy(np.moveaxis(pixels, -1, 1).copy()), _SMALL)
    np.testing.assert_array_equal(ours.numpy(), _SMALL.normalise(pixels))


def test_batches_are_those_chosen_in_their_order(folder: ImageFolder) -> None:
    expected = np.moveaxis(np.concatenate([pixels_of(0, 3), pixels_of(1, 3)]), -1, 1)
    for pictures in _both(folder):
        batches = list(pictures.batches(_ORDER))
        assert [labels.tolist() for _, labels in batches] == [[1, 0, 1], [0]]
        for (pixels, _), chosen in zip(batches, _ORDER, strict=True):
            np.testing.assert_array_equal(pixels.numpy(), expected[chosen.numpy()])


def test_a_picture_is_changed_by_its_own_numbers_whatever_the_batch(folder: ImageFolder) -> None:
    for pictures in _both(folder):
        drawn = torch.rand(len(pictures), pictures.draws, generator=torch.Generator().manual_seed(0))
        (together,) = pictures.batches([torch.arange(6)], drawn)
        for index in range(6):
            ((alone, _),) = pictures.batches([torch.tensor([index])], drawn)
            torch.testing.assert_close(alone[0], together[0][index])
        (plain,) = pictures.batches([torch.arange(6)])
        assert not torch.equal(plain[0], together[0])


def test_large_pictures_stay_on_the_disk(tmp_path: Path) -> None:
    write_images(tmp_path, count=2, size=150)
    folder = ImageFolder.scan(tmp_path, Preprocessing(size=128, resize=146))
    pictures = open_pictures(folder)
    assert isinstance(pictures, PicturesOnDisk)
    ((pixels, labels),) = pictures.batches([torch.arange(4)])
    assert (pixels.shape, pixels.dtype, labels.tolist()) == ((4, 3, 128, 128), torch.uint8, [0, 0, 1, 1])
    assert isinstance(open_pictures(replace(folder, preprocessing=Preprocessing(size=32, resize=36))), PicturesInMemory)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_bad_picture_is_named_or_left_out(tmp_path: Path, on_disk: bool) -> None:
    write_images(tmp_path, count=2)
    (tmp_path / "blue" / "000.png").write_bytes(b"no picture")
    folder = ImageFolder.scan(tmp_path, _SMALL)

    def read(skip_bad: bool) -> tuple[Pictures, list[int]]:
        pictures = (
            PicturesOnDisk(folder, skip_bad=skip_bad) if on_disk else PicturesInMemory.read(folder, skip_bad=skip_bad)
        )
        return pictures, [label for _, labels in pictures.batches([torch.arange(len(pictures))]) for label in labels]

    with pytest.raises(DataError, match=r"(?s)1 of 4 images can't be used.*000\.png.*--skip-bad"):
        read(skip_bad=False)
    pictures, labels = read(skip_bad=True)
    assert labels == [0, 1, 1]
    assert [bad.path.name for bad in pictures.skipped] == ["000.png"]


def test_nothing_but_bad_pictures_is_an_error_even_with_skip_bad(tmp_path: Path) -> None:
    write_images(tmp_path, count=1)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no picture")
    folder = ImageFolder.scan(tmp_path, _SMALL)
    with pytest.raises(DataError, match="2 of 2 images"):
        PicturesInMemory.read(folder, skip_bad=True)
    with pytest.raises(DataError, match="2 of 2 images"):
        list(PicturesOnDisk(folder, skip_bad=True).batches([torch.arange(2)]))


def test_a_first_look_finds_bad_pictures_on_the_disk(tmp_path: Path) -> None:
    write_images(tmp_path, count=2, size=150)
    for name in ("blue/000.png", "red/001.png"):
        (tmp_path / name).write_bytes(b"no picture")
    folder = ImageFolder.scan(tmp_path, Preprocessing(size=128, resize=146))
    with pytest.raises(DataError, match=r"(?s)2 of 4 images.*blue/000\.png.*red/001\.png.*--skip-bad"):
        open_pictures(folder)
    pictures = open_pictures(folder, skip_bad=True)
    assert [bad.path.name for bad in pictures.skipped] == ["000.png", "001.png"]
    ((pixels, labels),) = pictures.batches([torch.arange(4)])
    assert (len(pixels), labels.tolist()) == (2, [0, 1])
