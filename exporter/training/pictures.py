"""Labelled pictures as a training reads them: batches of chosen ones, as they are or changed at random.

Small ones are held in memory, 3 KiB each at 32×32; large ones are decoded in threads, two batches ahead.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from rexport._progress import Progress, silent
from rexport.calibration import BadImage
from rexport.calibration.decoding import UnreadableError, in_threads, read_picture
from rexport.preprocessing import to_rgb
from rexport.training.augmentation import PadCropFlip, ScaleCropFlip

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

    from rexport.calibration.image_folder import ImageFolder
    from rexport.preprocessing import Preprocessing

    _Batches = Generator[tuple[Tensor, Tensor], None, None]

__all__ = ["Pictures", "PicturesInMemory", "PicturesOnDisk", "normalise", "open_pictures"]

_LARGE = 128  # pixels of the network's input from which on pictures stay on the disk
_BATCHES_AHEAD = 2
_SHORTER = (256, 480)  # of pictures for crops of 224


class Pictures(Protocol):
    """Labelled pictures that can be read batch by batch, in any order."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What becomes of their pixels."""
        ...

    @property
    def draws(self) -> int:
        """How many random numbers it takes to change a picture."""
        ...

    @property
    def skipped(self) -> tuple[BadImage, ...]:
        """Those that could not be read so far, and were left out."""
        ...

    def __len__(self) -> int:
        """Return their number."""
        ...

    def batches(self, chosen: Sequence[Tensor], drawn: Tensor | None = None) -> _Batches:
        """Yield pixels, uint8 ``(N, 3, S, S)``, and labels, int64 ``(N,)``, of one batch after the other.

        Args:
            chosen: The indices of each batch's pictures, int64.
            drawn: Numbers in [0, 1), float32 ``(len(self), draws)``, by which each picture is changed; ``None`` for
                the pictures as they are, the middle cut out.

        Raises:
            DataError: A picture can't be read; with ``skip_bad`` batches are smaller by those.
        """
        ...


class PicturesInMemory:
    """Pictures that are all in memory; at random they are padded, cropped and flipped.

    Args:
        pixels: uint8 of shape ``(count, S, S, 3)``.
        labels: int64 of shape ``(count,)``.
        preprocessing: With the mean and standard deviation to normalise by.
        skipped: Those that are not among them.
    """

    draws = PadCropFlip.draws

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        preprocessing: Preprocessing,
        *,
        skipped: Sequence[BadImage] = (),
    ) -> None:
        self.preprocessing = preprocessing
        self.skipped = tuple(skipped)
        self._pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1)))
        self._labels = torch.from_numpy(labels)
        red, green, blue = (round(255 * mean) for mean in preprocessing.mean)
        self._change = PadCropFlip(color=(red, green, blue))

    @classmethod
    def read(cls, folder: ImageFolder, *, skip_bad: bool = False, progress: Progress = silent) -> PicturesInMemory:
        """Decode all pictures of a folder with labels.

        Raises:
            DataError: Some can't be read: they are counted, and the first few named. With ``skip_bad``, if none can.
        """
        assert folder.labels is not None
        read = partial(read_picture, crop=folder.preprocessing.crop)
        pixels: list[np.ndarray] = []
        labels: list[int] = []
        bad: list[BadImage] = []
        with progress("reading images", len(folder)) as advance, closing(in_threads(read, folder.paths, ahead=64)) as d:
            for label, (_, picture) in zip(folder.labels, d, strict=True):
                if isinstance(picture, BadImage):
                    bad.append(picture)
                else:
                    pixels.append(picture)
                    labels.append(label)
                advance(1)
        if bad and (not skip_bad or not pixels):
            raise UnreadableError(bad, len(folder))
        return cls(np.stack(pixels), np.array(labels, np.int64), folder.preprocessing, skipped=bad)

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, chosen: Sequence[Tensor], drawn: Tensor | None = None) -> _Batches:
        """See :meth:`Pictures.batches`."""
        for indices in chosen:
            pixels = self._pixels[indices]
            yield pixels if drawn is None else self._change(pixels, drawn[indices]), self._labels[indices]


class PicturesOnDisk:
    """Pictures that are decoded when they are needed; at random they are resized, cropped and flipped.

    Args:
        folder: The files, with labels.
        skip_bad: Leave out those that can't be read.
    """

    draws = ScaleCropFlip.draws

    def __init__(self, folder: ImageFolder, *, skip_bad: bool = False) -> None:
        assert folder.labels is not None
        self.preprocessing = folder.preprocessing
        self._paths = folder.paths
        self._labels = torch.tensor(folder.labels)
        self._skip_bad = skip_bad
        self._bad: dict[Path, BadImage] = {}
        size = self.preprocessing.size
        least, largest = (round(side * size / 224) for side in _SHORTER)
        self._change = ScaleCropFlip(size=size, shorter=(least, largest))

    @classmethod
    def open(cls, folder: ImageFolder, *, skip_bad: bool = False, progress: Progress = silent) -> PicturesOnDisk:
        """Open all pictures of a folder for a first look, which finds most of the bad ones: none is decoded.

        Raises:
            DataError: Some are no pictures: they are counted, and the first few named. With ``skip_bad``, if none is.
        """
        look = partial(read_picture, crop=lambda image: np.array(image.size))
        with progress("finding images", len(folder)) as advance, closing(in_threads(look, folder.paths, ahead=64)) as d:
            bad = []
            for _, found in d:
                bad += [found] if isinstance(found, BadImage) else []
                advance(1)
        pictures = cls(folder, skip_bad=skip_bad)
        for one in bad:
            pictures._bad[one.path] = one
        if bad and (not skip_bad or len(bad) == len(folder)):
            raise UnreadableError(bad, len(folder))
        return pictures

    @property
    def skipped(self) -> tuple[BadImage, ...]:
        """See :attr:`Pictures.skipped`."""
        return tuple(self._bad.values())

    def __len__(self) -> int:
        return len(self._paths)

    def batches(self, chosen: Sequence[Tensor], drawn: Tensor | None = None) -> _Batches:
        """See :meth:`Pictures.batches`."""
        ahead = _BATCHES_AHEAD * max(map(len, chosen), default=0)
        indices = chain.from_iterable(part.tolist() for part in chosen)
        with closing(in_threads(partial(self._read, drawn=drawn), indices, ahead=ahead)) as decoded:
            for part in chosen:
                good: dict[int, np.ndarray] = {}
                for _ in part:
                    index, picture = next(decoded)
                    if isinstance(picture, BadImage):
                        self._leave_out(picture)
                    else:
                        good[index] = picture
                yield self._stacked(list(good.values())), self._labels[list(good)]

    def _read(self, index: int, *, drawn: Tensor | None) -> np.ndarray | BadImage:
        def crop(image: Image) -> np.ndarray:
            if drawn is None:
                return self.preprocessing.crop(image)
            return self._change(to_rgb(image), drawn[index])

        return read_picture(self._paths[index], crop)

    def _leave_out(self, bad: BadImage) -> None:
        self._bad[bad.path] = bad
        if not self._skip_bad or len(self._bad) == len(self):
            raise UnreadableError(self.skipped, len(self))

    def _stacked(self, pictures: Sequence[np.ndarray]) -> Tensor:
        size = self.preprocessing.size
        pixels = np.stack(pictures) if pictures else np.zeros((0, size, size, 3), np.uint8)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1)))


def open_pictures(folder: ImageFolder, *, skip_bad: bool = False, progress: Progress = silent) -> Pictures:
    """Read a folder's pictures into memory if the network's input is small, or find them on the disk."""
    if folder.preprocessing.size >= _LARGE:
        return PicturesOnDisk.open(folder, skip_bad=skip_bad, progress=progress)
    return PicturesInMemory.read(folder, skip_bad=skip_bad, progress=progress)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn uint8 of shape ``(N, 3, S, S)`` into float32, to the last bit as :meth:`Preprocessing.normalise` does."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(1, 3, 1, 1)
    return pixels.float().div_(255).sub_(mean).div_(std)
