"""Pictures in folders, decoded in threads a few batches ahead of whoever reads them.

Pillow lets go of the interpreter lock while it decodes, and no more than those batches are in memory.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from rexport._cpu import this_cpu
from rexport._errors import DataError
from rexport.calibration.dataset import BadImage, Batch, spread

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from rexport.preprocessing import Preprocessing

__all__ = ["IMAGE_SUFFIXES", "ImageFolder"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class ImageFolder:
    """Image files, with labels if they lie in one folder per class (sorted by name, as in torchvision)."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing

    @classmethod
    def scan(cls, folder: Path, preprocessing: Preprocessing) -> ImageFolder:
        """Find the images below ``folder``."""
        flat = _images_in(folder, recursive=False)
        classes = {child.name: _images_in(child, recursive=True) for child in sorted(_folders_in(folder))}
        classes = {name: images for name, images in classes.items() if images}
        if flat and classes:
            raise DataError(
                f"{folder} holds images as well as folders of images (such as {next(iter(classes))}); "
                "move one of the two elsewhere, so that it is clear what is a class."
            )
        if flat:
            return cls(tuple(flat), None, None, preprocessing)
        if not classes:
            raise DataError(
                f"No images in {folder}: looked for {', '.join(sorted(IMAGE_SUFFIXES))} in it and in its folders."
            )
        paths = tuple(path for images in classes.values() for path in images)
        labels = tuple(label for label, images in enumerate(classes.values()) for _ in images)
        return cls(paths, labels, tuple(classes), preprocessing)

    @property
    def labelled(self) -> bool:
        """Whether the images lie in class folders."""
        return self.labels is not None

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, size: int, *, samples: int | None = None, skip_bad: bool = False) -> Iterator[Batch]:
        """See :meth:`Dataset.batches`."""
        good: list[np.ndarray] = []
        labels: list[int] = []
        skipped: list[BadImage] = []
        yielded = False
        indices = spread(len(self), samples)
        with closing(self._decode(indices, ahead=size * _BATCHES_AHEAD)) as decoded:
            for index, image in decoded:
                if isinstance(image, BadImage):
                    if not skip_bad:
                        rest = [other for _, other in decoded if isinstance(other, BadImage)]
                        raise _unreadable([image, *rest], len(indices))
                    skipped.append(image)
                    continue
                good.append(image)
                if self.labels is not None:
                    labels.append(self.labels[index])
                if len(good) == size:
                    yield self._batch(good, labels, skipped)
                    yielded = True
                    good, labels, skipped = [], [], []
        if not good and not yielded:
            raise _unreadable(skipped, len(skipped))
        if good or skipped:
            yield self._batch(good, labels, skipped)

    def _batch(self, pixels: Sequence[np.ndarray], labels: Sequence[int], skipped: Sequence[BadImage]) -> Batch:
        side = self.preprocessing.size
        stacked = np.stack(pixels) if pixels else np.zeros((0, side, side, 3), np.uint8)
        return Batch(
            images=self.preprocessing.normalise(stacked),
            labels=None if self.labels is None else np.array(labels, np.int64),
            skipped=tuple(skipped),
        )

    def _decode(
        self, indices: Sequence[int], *, ahead: int
    ) -> Generator[tuple[int, np.ndarray | BadImage], None, None]:
        """Yield the pixels of the images at ``indices``, in that order, decoding up to ``ahead`` in advance."""
        waiting: deque[tuple[int, Future[np.ndarray | BadImage]]] = deque()
        with ThreadPoolExecutor(this_cpu().cores) as pool:
            try:
                for index in indices:
                    waiting.append((index, pool.submit(self._read, self.paths[index])))
                    if len(waiting) > ahead:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, path: Path) -> np.ndarray | BadImage:
        try:
            with Image.open(path) as image:
                return self.preprocessing.crop(image)
        except DataError as error:
            return BadImage(path, str(error))
        except UnidentifiedImageError:
            return BadImage(path, "is not an image that Pillow knows")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return BadImage(path, f"can't be decoded ({error})")


def _images_in(folder: Path, *, recursive: bool) -> list[Path]:
    """Return the files that are images by their names; hidden ones, such as thumbnails, are not meant."""
    found: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=_fail, followlinks=True):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        visible = [Path(root, name) for name in files if not name.startswith(".")]
        # a link that leads nowhere is a bad image, to be named when it is read
        found += [p for p in visible if p.suffix.lower() in IMAGE_SUFFIXES and (p.is_file() or p.is_symlink())]
    return sorted(found)


def _fail(error: OSError) -> None:
    raise error


def _folders_in(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _unreadable(bad: Sequence[BadImage], total: int) -> DataError:
    named = "\n  ".join(str(image) for image in bad[:5])
    more = f"\n  … and {len(bad) - 5} more" if len(bad) > 5 else ""
    hint = "Mend or remove them" + (", or pass --skip-bad to go on without them." if len(bad) < total else ".")
    return DataError(f"{len(bad)} of {total} images can't be used:\n  {named}{more}\n{hint}")
