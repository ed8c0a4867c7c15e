"""Pictures in folders, decoded in threads a few batches ahead of the reader; no more are in memory."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rexport._errors import DataError
from rexport.calibration.dataset import BadImage, Batch, ViewBatch, fingerprint_of, spread
from rexport.calibration.decoding import UnreadableError, in_threads, read_picture
from rexport.calibration.labels_file import read_labels
from rexport.preprocessing import IMAGE_SUFFIXES, Takes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from PIL.Image import Image

    from rexport.calibration.views import Views
    from rexport.preprocessing import Preprocessing

__all__ = ["ImageFolder"]

_BATCHES_AHEAD = 2
_T = TypeVar("_T")


@dataclass(frozen=True)
class ImageFolder:
    """Image files, with labels if they lie in one folder per class (sorted by name, as in torchvision).

    Those in one folder have labels if a file of them is there too (see :mod:`rexport.calibration.labels_file`).
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing

    @classmethod
    def scan(cls, folder: Path, preprocessing: Preprocessing) -> ImageFolder:
        """Find the images below ``folder``.

        Raises:
            DataError: There are none, there are some beside folders, or a file of labels does not fit them.
        """
        flat = _images_in(folder, recursive=False)
        classes = {child.name: _images_in(child, recursive=True) for child in sorted(_folders_in(folder))}
        classes = {name: images for name, images in classes.items() if images}
        if flat and classes:
            raise DataError(
                f"{folder} holds images as well as folders of images (such as {next(iter(classes))}); "
                "move one of the two elsewhere, so that it is clear what is a class."
            )
        if flat:
            stated = read_labels(folder, flat)
            if stated is None:
                return cls(tuple(flat), None, None, preprocessing)
            return cls(tuple(flat), stated.labels, stated.classes, preprocessing)
        if not classes:
            raise DataError(
                f"No images in {folder}: looked for {', '.join(sorted(IMAGE_SUFFIXES))} in it and in its folders."
            )
        paths = tuple(path for images in classes.values() for path in images)
        labels = tuple(label for label, images in enumerate(classes.values()) for _ in images)
        return cls(paths, labels, tuple(classes), preprocessing)

    @property
    def labelled(self) -> bool:
        """Whether the images lie in class folders, or beside a file of labels."""
        return self.labels is not None

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int]) -> ImageFolder:
        """See :meth:`Dataset.subset`."""
        labels = self.labels and tuple(self.labels[index] for index in indices)
        return replace(self, paths=tuple(self.paths[index] for index in indices), labels=labels)

    def names(self) -> tuple[str, ...]:
        """See :meth:`Dataset.names`."""
        return tuple(map(str, self.paths))

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`."""
        return fingerprint_of(self.paths, self.labels, self.preprocessing)

    def batches(self, size: int, *, samples: int | None = None, skip_bad: bool = False) -> Iterator[Batch]:
        """See :meth:`Dataset.batches`."""
        if self.preprocessing.takes is Takes.PICTURES:  # whose sizes differ
            size = 1
        read = self.preprocessing.pixels
        for pictures, labels, skipped in self._groups(size, read, samples=samples, skip_bad=skip_bad):
            pixels = np.stack(pictures) if pictures else np.zeros((0, *self.preprocessing.shape), np.uint8)
            yield Batch(feed=self.preprocessing.to_input(pixels), labels=labels, skipped=skipped)

    def view_batches(
        self, views: Views, size: int, *, samples: int | None = None, skip_bad: bool = False
    ) -> Iterator[ViewBatch]:
        """See :meth:`Dataset.view_batches`."""
        views.require(self.preprocessing)
        for pictures, labels, skipped in self._groups(
            max(1, size // views.count),
            lambda image: views.of(image, self.preprocessing),
            samples=samples,
            skip_bad=skip_bad,
        ):
            ready = tuple(tuple(map(self.preprocessing.to_input, picture)) for picture in pictures)
            yield ViewBatch(pictures=ready, labels=labels, skipped=skipped)

    def _groups(
        self, size: int, read: Callable[[Image], _T], *, samples: int | None, skip_bad: bool
    ) -> Iterator[tuple[Sequence[_T], np.ndarray | None, tuple[BadImage, ...]]]:
        """Yield the results of ``read`` for up to ``size`` pictures, with their labels, and the skipped images."""
        good: list[_T] = []
        labels: list[int] = []
        skipped: list[BadImage] = []
        yielded = False
        indices = spread(len(self), samples)
        decoded = in_threads(lambda i: read_picture(self.paths[i], read), indices, ahead=size * _BATCHES_AHEAD)
        with closing(decoded):
            for index, image in decoded:
                if isinstance(image, BadImage):
                    if not skip_bad:
                        later = [result for _, result in decoded if isinstance(result, BadImage)]
                        raise UnreadableError([image, *later], len(indices))
                    skipped.append(image)
                    continue
                good.append(image)
                if self.labels is not None:
                    labels.append(self.labels[index])
                if len(good) == size:
                    yield good, self._array(labels), tuple(skipped)
                    yielded = True
                    good, labels, skipped = [], [], []
        if not good and not yielded:
            raise UnreadableError(skipped, len(skipped))
        if good or skipped:
            yield good, self._array(labels), tuple(skipped)

    def _array(self, labels: Sequence[int]) -> np.ndarray | None:
        return None if self.labels is None else np.array(labels, np.int64)


def _images_in(folder: Path, *, recursive: bool) -> list[Path]:
    """Return the files with suffixes of images; hidden ones, such as thumbnails, are left out."""
    paths: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=_fail, followlinks=True):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        visible = [Path(root, name) for name in files if not name.startswith(".")]
        # a link that leads nowhere is a bad image, to be named when it is read
        paths += [p for p in visible if p.suffix.lower() in IMAGE_SUFFIXES and (p.is_file() or p.is_symlink())]
    return sorted(paths)


def _fail(error: OSError) -> None:
    raise error


def _folders_in(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
