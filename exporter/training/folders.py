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
        train_path, test_path = _folders(data, test)
        train, held_out = (ImageFolder.scan(path, preprocessing) for path in (train_path, test_path))
    except OSError as error:
        raise DataError(f"{error.filename or data} can't be read: {error.strerror}.") from error
    for folder, path in ((train, train_path), (held_out, test_path)):
        if folder.classes is None:
            raise DataError(f"The images in {path} have no classes; sort them into a folder per class.")
    classes, test_classes = train.classes or (), held_out.classes or ()
    if len(classes) < 2:
        raise DataError(
            f"{train_path} has images of one class only ({classes[0]}, {len(train)} in all); a network learns to tell "
            "classes apart, so it takes two or more."
        )
    unknown = [name for name in test_classes if name not in classes]
    if unknown:
        raise DataError(
            f"{test_path} has a class that {train_path} has no images of: {', '.join(unknown[:5])}. Both need the same "
            "class folders."
        )
    labels_of = {name: label for label, name in enumerate(classes)}
    labels = tuple(labels_of[test_classes[label]] for label in held_out.labels or ())
    return ImageSplit(train=train, test=replace(held_out, labels=labels, classes=classes), classes=classes)


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


def _folders(data: Path, test: Path | None) -> tuple[Path, Path]:
    """Return the folder of classes to train with, and that to test with."""
    _require_folder(data, "pass a folder with train/<class>/… and test/<class>/…")
    train = data / "train"
    if not _has_folders(train):
        if test is None:
            raise DataError(
                f"{data} has no folder train with a folder per class in it. Sort the images into train/<class>/… and "
                f"test/<class>/…, or, if {data} is the folder of classes, pass --test DIR with others to test on."
            )
        train = data
    if test is not None:
        _require_folder(test, "--test takes a folder with a folder per class")
        return train, test
    for name in ("test", "val"):
        if (data / name).is_dir():
            return train, data / name
    raise DataError(
        f"{data} has no folder test (or val) beside train: a network is tested on images that it was not trained with. "
        "Move some there, into a folder per class, or pass --test DIR."
    )


def _require_folder(path: Path, hint: str) -> None:
    if not path.exists():
        raise DataError(f"{path} does not exist; {hint}.")
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; {hint}.")


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(child.is_dir() and not child.name.startswith(".") for child in folder.iterdir())
