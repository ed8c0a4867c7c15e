"""Opening the folders and files that a user may have pictures in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._errors import DataError
from rexport.calibration.array_file import ArrayFile
from rexport.calibration.image_folder import ImageFolder

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.calibration.dataset import Dataset
    from rexport.preprocessing import Preprocessing

__all__ = ["open_dataset"]

_SPLITS = ("train", "training", "val", "valid", "validation", "test")


def open_dataset(path: Path, preprocessing: Preprocessing) -> Dataset:
    """Open a folder ``DIR/<class>/<image>``, a flat folder of images, or an .npy or .npz file.

    Arrays are float32 of shape ``(N, 3, S, S)``, ready for a network that takes no raw images, or uint8 pictures of
    shape ``(N, S, S, 3)``, of any size if the model cuts them itself. In an .npz they are the array ``images``, or the
    only one that is not ``labels``.

    Raises:
        DataError: It is none of these, or holds no images.
    """
    try:
        if path.suffix in (".npy", ".npz") and path.is_file():
            return ArrayFile(path, preprocessing)
        if not path.is_dir():
            defect = "is not a folder, an .npy or an .npz file" if path.exists() else "does not exist"
            raise DataError(f"{path} {defect}; pass a folder of images (DIR/<class>/<image>, or all in one).")
        _refuse_splits(path)
        return ImageFolder.scan(path, preprocessing)
    except OSError as error:
        raise DataError(f"{error.filename or path} can't be read: {error.strerror}.") from error


def _refuse_splits(path: Path) -> None:
    """Raise :class:`DataError` where the folders in ``path`` are parts of a data set, each with class folders."""
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    names = {folder.name for folder in folders}
    if not names or not names.issubset(_SPLITS) or not all(_has_folders(folder) for folder in folders):
        return
    parts = " or ".join(str(path / name) for name in _SPLITS if name in names)
    raise DataError(f"{path} has {' and '.join(sorted(names))} in it, and no folders of classes; pass {parts}.")


def _has_folders(path: Path) -> bool:
    return any(entry.is_dir() for entry in path.iterdir())
