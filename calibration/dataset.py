"""Data sets: examples that can be read batch by batch, again and again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rexport._errors import UsageError
from rexport.feeds import examples_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from rexport._progress import Note
    from rexport.calibration.views import Views
    from rexport.feeds import Feed

__all__ = ["BadImage", "Batch", "Dataset", "ViewBatch", "fingerprint_of", "note_skipped", "spread"]

_NAMED = 5


@dataclass(frozen=True)
class BadImage:
    """An image that can't be used, and why."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def note_skipped(skipped: Sequence[BadImage], note: Note) -> None:
    """Name the first images that were left out, and the number of all if there are more."""
    for image in skipped[:_NAMED]:
        note(f"skipped {image}")
    if len(skipped) > _NAMED:
        note(f"skipped {len(skipped)} images in all")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some examples, ready for the network.

    Attributes:
        feed: What the network takes; of pictures float32, or uint8 for raw images.
        labels: int64 of shape ``(N,)``, if there are any.
        skipped: The unusable images on the way.
    """

    feed: Feed
    labels: np.ndarray | None = None
    skipped: tuple[BadImage, ...] = ()

    @property
    def images(self) -> np.ndarray:
        """The pictures: the array of a network's only input."""
        assert isinstance(self.feed, np.ndarray)
        return self.feed

    def __len__(self) -> int:
        return examples_in(self.feed)


@dataclass(frozen=True, kw_only=True)
class ViewBatch:
    """Some pictures, each in several views (see :mod:`rexport.calibration.views`), ready for the network.

    Attributes:
        pictures: For each picture its views, float32 of shape ``(3, H, W)``; for raw images uint8 ``(H, W, 3)``.
        labels: int64 of shape ``(N,)``, if there are any.
        skipped: The unusable images on the way.
    """

    pictures: tuple[tuple[np.ndarray, ...], ...]
    labels: np.ndarray | None = None
    skipped: tuple[BadImage, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)


class Dataset(Protocol):
    """Images, or other examples, that can be read batch by batch, again and again."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, sorted; ``None`` where there are none."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether batches have labels."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def subset(self, indices: Sequence[int]) -> Dataset:
        """Return the data set of the images at ``indices``, which rise."""
        ...

    def names(self) -> tuple[str, ...]:
        """Return what to call each image: its path, or ``images.npz[7]``."""
        ...

    def fingerprint(self) -> str:
        """Return a SHA-256 in hex that changes if the files do: of their paths, sizes and times, not their contents."""
        ...

    def batches(self, size: int, *, samples: int | None = None, skip_bad: bool = False) -> Iterator[Batch]:
        """Yield batches of up to ``size`` images, in order; of only ``samples`` images if given, evenly spread.

        Whole pictures from a folder come one by one.

        Raises:
            DataError: Images can't be read: all of them are counted, and the first few named. With
                ``skip_bad``, only if none can.
        """
        ...

    def view_batches(
        self, views: Views, size: int, *, samples: int | None = None, skip_bad: bool = False
    ) -> Iterator[ViewBatch]:
        """Yield the same pictures in ``views``, as many at a time as give about ``size`` views.

        Raises:
            UsageError: There are no such views with this preprocessing.
            DataError: As :meth:`batches`, or these are arrays and no pictures.
        """
        ...


def fingerprint_of(paths: Iterable[Path], *details: object) -> str:
    """Return the SHA-256, in hex, of the paths, sizes and times of files, and of ``details``."""
    digest = hashlib.sha256(repr(details).encode())
    for path in paths:
        try:
            status = path.stat()
            size, time = status.st_size, status.st_mtime_ns
        except OSError:  # a bad image, to be named when it is read
            size, time = -1, -1
        digest.update(repr((str(path.absolute()), size, time)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def spread(count: int, samples: int | None) -> Sequence[int]:
    """Return the indices of ``samples`` of ``count`` items, evenly spread, so that every class gets its share.

    Raises:
        UsageError: ``samples`` is less than one.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"The number of images must be at least 1, not {samples}.")
    if samples is None or samples >= count:
        return range(count)
    return [index * count // samples for index in range(samples)]
