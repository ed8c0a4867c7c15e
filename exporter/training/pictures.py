"""Labelled pictures as a training reads them: batches of chosen ones, as they are or changed at random.

Small ones are held in memory, 3 KiB each at 32×32; large ones are decoded in threads, two batches ahead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from rexport._progress import Advance, Progress, silent
from rexport.calibration import BadImage
from rexport.calibration.decoding import UnreadableError, in_threads, read_picture
from rexport.preprocessing import with_channels
from rexport.training.augmentation import PadCropFlip, ScaleCropFlip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from rexport.calibration.image_folder import ImageFolder
    from rexport.preprocessing import Preprocessing

    _Batches = Generator[tuple[Tensor, Tensor], None, None]

__all__ = ["Pictures", "PicturesInMemory", "PicturesOnDisk", "normalise", "open_pictures"]

_LARGE = 128  # pixels of the network's input from which on pictures stay on the disk
_AHEAD, _BATCHES_AHEAD = 64, 2
_SHORTER = (256, 480)  # of pictures for crops of 224
_NOT_DECODED = np.empty(0, np.uint8)


class Pictures(ABC):
    """Labelled pictures that can be read batch by batch, in any order.

    Attributes:
        draws: How many random numbers it takes to change a picture.
        preprocessing: What becomes of their pixels.
    """

    draws: ClassVar[int]

    def __init__(self, labels: Tensor, preprocessing: Preprocessing, bad: Iterable[BadImage]) -> None:
        self.preprocessing = preprocessing
        self._labels = labels
        self._bad = {image.path: image for image in bad}

    @property
    def skipped(self) -> tuple[BadImage, ...]:
        """Those that could not be read so far, and were left out."""
        return tuple(self._bad.values())

    def __len__(self) -> int:
        return len(self._labels)

    @abstractmethod
    def batches(self, chosen: Sequence[Tensor], drawn: Tensor | None = None) -> _Batches:
        """Yield pixels, uint8 ``(N, 3, S, S)``, and labels, int64 ``(N,)``, of one batch after the other.

        Args:
            chosen: The indices of each batch's pictures, int64.
            drawn: Numbers in [0, 1), float32 ``(len(self), draws)``, by which each picture is changed; ``None`` for
                the pictures as they are, the middle cut out.

        Raises:
            DataError: A picture can't be read; with ``skip_bad`` batches are smaller by those.
        """


class PicturesInMemory(Pictures):
    """Pictures that are all in memory; at random they are padded, cropped and flipped.

    Args:
        pixels: uint8 of shape ``(count, S, S, 3)``.
        labels: int64 of shape ``(count,)``.
        preprocessing: With the mean and standard deviation to normalise by.
        skipped: Those that are not among them.
    """

    draws = PadCropFlip.draws

    def __init__(
        self, pixels: np.ndarray, labels: np.ndarray, preprocessing: Preprocessing, *, skipped: Iterable[BadImage] = ()
    ) -> None:
        super().__init__(torch.from_numpy(labels), preprocessing, skipped)
        self._pixels = _channels_first(pixels)
        red, green, blue = (round(255 * mean) for mean in preprocessing.mean)
        self._change = PadCropFlip(color=(red, green, blue))

    @classmethod
    def read(cls, folder: ImageFolder, *, skip_bad: bool = False, progress: Progress = silent) -> PicturesInMemory:
        """Decode all pictures of a folder with labels.

        Raises:
            DataError: Some can't be read: they are counted, and the first few named. With ``skip_bad``, if none can.
        """
        with progress("reading images", len(folder)) as advance:
            pictures, bad = _read(folder, folder.preprocessing.crop, advance, skip_bad=skip_bad)
        assert folder.labels is not None
        labels = np.array([folder.labels[index] for index in pictures], np.int64)
        return cls(np.stack(list(pictures.values())), labels, folder.preprocessing, skipped=bad)

    def batches(self, chosen: Sequence[Tensor], drawn: Tensor | None = None) -> _Batches:
        """See :meth:`Pictures.batches`."""
        for indices in chosen:
            pixels = self._pixels[indices]
            yield pixels if drawn is None else self._change(pixels, drawn[indices]), self._labels[indices]


class PicturesOnDisk(Pictures):
    """Pictures that are decoded when they are needed; at random they are resized, cropped and flipped.

    Args:
        folder: The files, with labels.
        skip_bad: Leave out those that can't be read.
        bad: Those that are known to be bad.
    """

    draws = ScaleCropFlip.draws

    def __init__(self, folder: ImageFolder, *, skip_bad: bool = False, bad: Iterable[BadImage] = ()) -> None:
        super().__init__(torch.tensor(folder.labels), folder.preprocessing, bad)
        self._paths = folder.paths
        self._skip_bad = skip_bad
        size = self.preprocessing.side
        least, largest = (round(side * size / 224) for side in _SHORTER)
        self._change = ScaleCropFlip(size=size, shorter=(least, largest))

    @classmethod
    def open(cls, folder: ImageFolder, *, skip_bad: bool = False, progress: Progress = silent) -> PicturesOnDisk:
        """Open all pictures of a folder for a first look, which finds most of the bad ones: none is decoded.

        Raises:
            DataError: Some are no pictures: they are counted, and the first few named. With ``skip_bad``, if none is.
        """
        with progress("finding images", len(folder)) as advance:
            _, bad = _read(folder, lambda _: _NOT_DECODED, advance, skip_bad=skip_bad)
        return cls(folder, skip_bad=skip_bad, bad=bad)

    def batches(self, chosen: Sequence[Tensor], drawn: Tensor | None = None) -> _Batches:
        """See :meth:`Pictures.batches`."""
        ahead = _BATCHES_AHEAD * max(map(len, chosen), default=0)
        indices = chain.from_iterable(part.tolist() for part in chosen)
        with closing(in_threads(partial(self._decode, drawn=drawn), indices, ahead=ahead)) as decoded:
            for part in chosen:
                good: dict[int, np.ndarray] = {}
                for _ in part:
                    index, picture = next(decoded)
                    if isinstance(picture, BadImage):
                        self._leave_out(picture)
                    else:
                        good[index] = picture
                size = self.preprocessing.side
                pixels = np.stack(list(good.values())) if good else np.empty((0, size, size, 3), np.uint8)
                yield _channels_first(pixels), self._labels[list(good)]

    def _decode(self, index: int, *, drawn: Tensor | None) -> np.ndarray | BadImage:
        def crop(image: Image) -> np.ndarray:
            if drawn is None:
                return self.preprocessing.crop(image)
            return self._change(with_channels(image, 3), drawn[index])

        return read_picture(self._paths[index], crop)

    def _leave_out(self, bad: BadImage) -> None:
        self._bad[bad.path] = bad
        if not self._skip_bad or len(self._bad) == len(self):
            raise UnreadableError(self.skipped, len(self))


def open_pictures(folder: ImageFolder, *, skip_bad: bool = False, progress: Progress = silent) -> Pictures:
    """Read a folder's pictures into memory if the network's input is small, or find them on the disk."""
    if folder.preprocessing.side >= _LARGE:
        return PicturesOnDisk.open(folder, skip_bad=skip_bad, progress=progress)
    return PicturesInMemory.read(folder, skip_bad=skip_bad, progress=progress)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn uint8 of shape ``(N, 3, S, S)`` into float32, to the last bit as :meth:`Preprocessing.normalise` does."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(1, 3, 1, 1)
    return pixels.float().div_(255).sub_(mean).div_(std)


def _read(
    folder: ImageFolder, crop: Callable[[Image], np.ndarray], advance: Advance, *, skip_bad: bool
) -> tuple[dict[int, np.ndarray], list[BadImage]]:
    """Return what ``crop`` makes of each good picture, by its index, and the bad ones, if those may be left out."""
    pictures: dict[int, np.ndarray] = {}
    bad: list[BadImage] = []
    with closing(in_threads(partial(read_picture, crop=crop), folder.paths, ahead=_AHEAD)) as results:
        for index, (_, picture) in enumerate(results):
            if isinstance(picture, BadImage):
                bad.append(picture)
            else:
                pictures[index] = picture
            advance(1)
    if bad and (not skip_bad or not pictures):
        raise UnreadableError(bad, len(folder))
    return pictures, bad


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1)))
