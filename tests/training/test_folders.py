from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rexport import Preprocessing
from rexport._errors import DataError
from rexport.training import find_images, fingerprint
from tests.training._images import write_images

if TYPE_CHECKING:
    from pathlib import Path

_SMALL = Preprocessing(size=32)


@pytest.mark.parametrize("name", ["test", "val"])
def test_train_and_test_side_by_side(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / "train", ("c", "a", "b"), count=2)
    write_images(tmp_path / name, ("c", "b"), count=1)
    images = find_images(tmp_path, _SMALL)
    assert images.classes == images.test.classes == ("a", "b", "c")
    assert images.train.labels == (0, 0, 1, 1, 2, 2)
    assert images.test.labels == (1, 2)  # of the classes of train, not of its own


def test_a_plain_folder_of_classes_with_another_to_test(tmp_path: Path) -> None:
    write_images(tmp_path / "mine", count=2)
    write_images(tmp_path / "others", count=1)
    images = find_images(tmp_path / "mine", _SMALL, test=tmp_path / "others")
    assert (len(images.train), len(images.test)) == (4, 2)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path / "data", ("bus", "train"), count=2)
    write_images(tmp_path / "others", ("train",), count=1)
    images = find_images(tmp_path / "data", _SMALL, test=tmp_path / "others")
    assert images.classes == ("bus", "train")
    assert images.test.labels == (1,)


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    train, test = tmp_path / "train", tmp_path / "test"
    with pytest.raises(DataError, match=r"missing does not exist; pass a folder with train/<class>"):
        find_images(tmp_path / "missing", _SMALL)
    with pytest.raises(DataError, match=r"no folder train .* pass --test DIR"):
        find_images(tmp_path, _SMALL)
    write_images(train, ("a",), count=1)
    with pytest.raises(DataError, match=r"no folder test \(or val\) beside train"):
        find_images(tmp_path, _SMALL)
    with pytest.raises(DataError, match=r"nowhere does not exist; --test"):
        find_images(tmp_path, _SMALL, test=tmp_path / "nowhere")
    write_images(test, ("a", "b", "z"), count=1)
    with pytest.raises(DataError, match=r"one class only \(a, 1 in all\)"):
        find_images(tmp_path, _SMALL)
    write_images(train, ("a", "b"), count=1)
    with pytest.raises(DataError, match=r"test has a class that .*train has no images of: z"):
        find_images(tmp_path, _SMALL)
    with pytest.raises(DataError, match=r"images in .*a have no classes"):
        find_images(tmp_path, _SMALL, test=test / "a")


def test_the_fingerprint_tells_of_other_images(tmp_path: Path) -> None:
    def now() -> str:
        return fingerprint(find_images(tmp_path, _SMALL).train)

    write_images(tmp_path / "train", count=2)
    write_images(tmp_path / "test", count=1)
    seen = [now()]
    assert now() == seen[0]
    (tmp_path / "train" / "red" / "000.png").rename(tmp_path / "train" / "red" / "x.png")
    seen.append(now())
    (tmp_path / "train" / "red" / "x.png").rename(tmp_path / "train" / "blue" / "x.png")
    seen.append(now())
    with (tmp_path / "train" / "red" / "001.png").open("ab") as file:
        file.write(b"\0")
    seen.append(now())
    assert len(set(seen)) == 4
