from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rexport import Preprocessing
from rexport._errors import DataError, UsageError
from rexport.calibration import open_dataset
from rexport.calibration.array_file import ArrayFile
from rexport.calibration.dataset import spread
from rexport.calibration.image_folder import ImageFolder

if TYPE_CHECKING:
    from pathlib import Path

_PREPROCESSING = Preprocessing(size=4)


def test_a_folder_and_each_kind_of_array_are_told_apart(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "b.npz", images=pixels)
    (tmp_path / "c").mkdir()
    Image.fromarray(pixels[0]).save(tmp_path / "c" / "1.png")
    assert isinstance(open_dataset(tmp_path / "a.npy", _PREPROCESSING), ArrayFile)
    assert isinstance(open_dataset(tmp_path / "b.npz", _PREPROCESSING), ArrayFile)
    assert isinstance(open_dataset(tmp_path / "c", _PREPROCESSING), ImageFolder)


def test_a_folder_may_be_called_like_an_array(tmp_path: Path) -> None:
    (tmp_path / "c.npy").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "c.npy" / "1.png")
    assert len(open_dataset(tmp_path / "c.npy", _PREPROCESSING)) == 1


@pytest.mark.parametrize(("name", "match"), [("missing", "does not exist"), ("a.txt", "is not a folder, an .npy")])
def test_what_is_neither_is_a_data_error(tmp_path: Path, name: str, match: str) -> None:
    (tmp_path / "a.txt").write_text("no pictures")
    with pytest.raises(DataError, match=match):
        open_dataset(tmp_path / name, _PREPROCESSING)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("locked", ["data", "data/cat", "data/cat/more"])
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, locked: str) -> None:
    (tmp_path / "data" / "cat" / "more").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "data" / "cat" / "1.png")
    (tmp_path / locked).chmod(0)
    try:
        with pytest.raises(DataError, match=rf"{locked} can't be read: Permission denied"):
            open_dataset(tmp_path / "data", _PREPROCESSING)
    finally:
        (tmp_path / locked).chmod(0o700)


def test_samples_are_spread_evenly() -> None:
    assert list(spread(10, None)) == list(range(10))
    assert list(spread(10, 99)) == list(range(10))
    assert list(spread(10, 5)) == [0, 2, 4, 6, 8]
    assert list(spread(10, 3)) == [0, 3, 6]
    for samples in (0, -1):
        with pytest.raises(UsageError, match="at least 1"):
            spread(10, samples)
