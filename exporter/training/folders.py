"""Finding the pictures to train and to test with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rexport._errors import DataError
from rexport.calibration.image_folder import ImageFolder

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.preprocessing import Preprocessing

__all__ = ["ImageSplit", "find_images", "fingerprint"]


@dataclass(frozen=True, kw_only=True)
class ImageSplit:
    """Pictures to train with and others to test with, labelled with the same classes.

    Attributes:
        train: To train with.
        test: To test with; some classes may have no pictures there.
        classes: The names of the class folders of ``train``, sorted: those of the outputs, in order.
    """

    train: ImageFolder
    test: ImageFolder
    classes: tuple[str, ...]


def find_images(data: Path, preprocessing: Preprocessing, *, test: Path | None = None) -> ImageSplit:
    """Find ``data/train/<class>/…`` and ``data/test/<class>/…``, or ``data/val``; with ``test``, that instead.

    With ``test``, ``data`` may be the folder of classes itself.

    Raises:
        DataError: There are no such folders, there is only one class, or ``test`` has one that ``train`` has not.
    """
    try:
        return _find(data, preprocessing, test)
    except OSError as error:
        raise DataError(f"{error.filename or data} can't be read: {error.strerror}.") from error


def fingerprint(folder: ImageFolder) -> str:
    """Return the SHA-256, in hexadecimal, over the images: class, file name and size in bytes, not their pixels.

    It tells of images that were added, removed, renamed or saved anew, without reading them all.
    """
    digest = hashlib.sha256()
    assert folder.labels is not None
    for path, label in zip(folder.paths, folder.labels, strict=True):
        size = path.stat().st_size if path.exists() else -1  # a link that leads nowhere
        digest.update(f"{label} {path.name} {size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _find(data: Path, preprocessing: Preprocessing, test: Path | None) -> ImageSplit:
    if not data.is_dir():
        what = "is not a folder" if data.exists() else "does not exist"
        raise DataError(f"{data} {what}; pass a folder with train/<class>/… and test/<class>/….")
    train = data / "train"
    if not _has_folders(train):
        if test is None:
            raise DataError(
                f"{data} has no folder train with a folder per class in it. Sort the images into train/<class>/… and "
                f"test/<class>/…, or, if {data} is the folder of classes, pass --test DIR with others to test on."
            )
        train = data
    if test is None:
        test = next((data / name for name in ("test", "val") if (data / name).is_dir()), None)
        if test is None:
            raise DataError(
                f"{data} has no folder test (or val) beside train: a network is tested on images that it was not "
                "trained with. Move some there, into a folder per class, or pass --test DIR."
            )
    return _split(ImageFolder.scan(train, preprocessing), train, _scan(test, preprocessing), test)


def _split(train: ImageFolder, train_path: Path, test: ImageFolder, test_path: Path) -> ImageSplit:
    for folder, path in ((train, train_path), (test, test_path)):
        if folder.classes is None:
            raise DataError(f"The images in {path} have no classes; sort them into a folder per class.")
    assert train.classes is not None
    assert test.classes is not None
    assert test.labels is not None
    if len(train.classes) < 2:
        raise DataError(
            f"{train_path} has images of one class only ({train.classes[0]}, {len(train)} in all); a network learns "
            "to tell classes apart, so it takes two or more."
        )
    unknown = [name for name in test.classes if name not in train.classes]
    if unknown:
        raise DataError(
            f"{test_path} has a class that {train_path} has no images of: {', '.join(unknown[:5])}. Both need the same "
            "class folders."
        )
    index = {name: label for label, name in enumerate(train.classes)}
    labels = tuple(index[test.classes[label]] for label in test.labels)
    return ImageSplit(train=train, test=replace(test, labels=labels, classes=train.classes), classes=train.classes)


def _scan(folder: Path, preprocessing: Preprocessing) -> ImageFolder:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}; --test takes a folder with a folder per class.")
    return ImageFolder.scan(folder, preprocessing)


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(child.is_dir() and not child.name.startswith(".") for child in folder.iterdir())
