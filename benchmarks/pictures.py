"""The pictures whose outputs are compared: a labelled folder's, or drawn from a seed.

Drawn pictures are smooth at every scale, as photographs are, and differ in brightness, contrast and colour: what a
network gives for them differs far more from picture to picture than for noise, all of which looks the same to it. Every
model is shown the same ones, each through its own preprocessing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._errors import DataError, UsageError
from rexport.benchmarks.document import Sample
from rexport.benchmarks.inputs import random_feed
from rexport.benchmarks.jobs import Pictures
from rexport.feeds import by_name
from rexport.preprocessing import CAMERA, Takes, sides_of, size_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rexport.model_inputs import TensorInput
    from rexport.preprocessing import Preprocessing, Size

__all__ = ["DRAWN", "Gallery", "Hung", "draw_pictures"]

DRAWN = 32  # pictures, where there is no folder
_EXAMPLES = 8  # of other models
_FINEST = 64  # pixels along the shorter side that a picture is drawn in


@dataclass(frozen=True, kw_only=True)
class Hung:
    """The pictures of a model, in a file for its process.

    Attributes:
        pictures: For the job.
        labels: The class folder of each picture, int64, or the label of an array; ``None`` without labels.
        folders: The names of the class folders, in order; ``None`` where labels are outputs already.
        key: Equal for models that were shown the same crops of the same pictures.
    """

    pictures: Pictures
    labels: np.ndarray | None
    folders: tuple[str, ...] | None
    key: tuple[object, ...]


class Gallery:
    """Writes the pictures that models are shown into files, one for each way of preparing them.

    Args:
        folder: For the files.
        data: A labelled folder, or an array file, as ``open_dataset`` takes it; ``None`` draws pictures.
        samples: The most pictures to take from it, evenly spread.
    """

    def __init__(self, folder: Path, *, data: Path | None = None, samples: int = 256) -> None:
        self._folder, self._data, self._samples = folder, data, samples
        self._hung: dict[str, tuple[Path, np.ndarray | None, tuple[str, ...] | None]] = {}
        self.sample: Sample | None = None  # of the folder, once a model is shown its pictures

    def show(self, model: str, preprocessing: Preprocessing | None, tensors: Sequence[TensorInput]) -> Hung:
        """Return the pictures for a model; random examples of its ``tensors`` for one that takes none.

        Raises:
            DataError: As :meth:`hang`.
            UsageError: As :meth:`hang` and :meth:`draw`.
        """
        return self.draw(model, tensors) if preprocessing is None else self.hang(model, preprocessing)

    def draw(self, model: str, tensors: Sequence[TensorInput]) -> Hung:
        """Return random examples for a model that takes no pictures.

        Raises:
            UsageError: Pictures were named, or sizes are open.
        """
        if self._data is not None:
            raise UsageError(f"--data is for models of pictures, and {model} takes {', '.join(map(str, tensors))}.")
        key = ("tensors", *tensors)
        if str(key) not in self._hung:
            path = self._folder / f"tensors-{len(self._hung)}.npz"
            self._hung[str(key)] = path, None, None
            drawn = random_feed([{"name": t.name, "dtype": t.dtype, "shape": t.at(_EXAMPLES)} for t in tensors])
            arrays: dict[str, Any] = by_name(drawn, [tensor.name for tensor in tensors])
            np.savez(path, **arrays)
        path = self._hung[str(key)][0]
        return Hung(pictures=Pictures(path=path, preprocessing=None), labels=None, folders=None, key=key)

    def hang(self, model: str, preprocessing: Preprocessing) -> Hung:
        """Return the pictures for a model.

        Raises:
            DataError: They can't be read, or do not fit its size.
            UsageError: They are ready inputs, not pictures.
        """
        unnormalised = _before_normalising(preprocessing)
        key = unnormalised.to_json()
        if key not in self._hung:
            path = self._folder / f"pictures-{len(self._hung)}.npy"
            images, labels, folders = self._images(model, unnormalised)
            np.save(path, images, allow_pickle=False)
            self._hung[key] = path, labels, folders
        path, labels, folders = self._hung[key]
        return Hung(
            pictures=Pictures(path=path, preprocessing=preprocessing),
            labels=labels,
            folders=folders,
            key=(preprocessing.shape, preprocessing.resize, preprocessing.interpolation),
        )

    def _images(
        self, model: str, preprocessing: Preprocessing
    ) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
        """Return images, and labels and the classes' folders if the data has them; drawn ones without data."""
        from rexport.calibration import open_dataset
        from rexport.calibration.image_folder import ImageFolder

        if self._data is None:
            return _drawn(preprocessing), None, None
        dataset = open_dataset(self._data, preprocessing)
        if not isinstance(dataset, ImageFolder):
            raise UsageError(
                f"--data of `rexport bench` is a folder of pictures, DIR/<class>/<image>, not {self._data}."
            )
        if preprocessing.resize is None and preprocessing.takes is not Takes.PICTURES:
            _require_size(dataset.paths[0], model, preprocessing.size)
        batches = list(dataset.batches(32, samples=self._samples))
        self.sample = Sample(used=sum(map(len, batches)), total=len(dataset))
        sizes = {batch.images.shape[1:] for batch in batches}
        if len(sizes) > 1:
            raise DataError(
                f"{model} takes whole pictures, and {self._data} has several sizes; pass --data with "
                "pictures of one size."
            )
        labels = [batch.labels for batch in batches if batch.labels is not None]
        return (
            np.concatenate([batch.images for batch in batches]),
            np.concatenate(labels) if labels else None,
            dataset.classes,
        )


def draw_pictures(count: int, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Draw pictures, uint8 of shape ``(count, height, width, 3)``, whose detail falls with its frequency."""
    from PIL.Image import Resampling, fromarray

    random = np.random.default_rng(seed)
    shrink = max(1, min(height, width) // _FINEST)  # finer detail would hardly be seen: it is the weakest
    small = (width // shrink, height // shrink)
    pictures = np.empty((count, height, width, 3), np.uint8)
    for picture in pictures:
        scene = np.zeros((*small[::-1], 3), np.float32)
        cells = 2
        while cells <= min(small):
            for channel in range(3):
                grid = fromarray(random.standard_normal((cells, cells), np.float32))
                scene[..., channel] += np.asarray(grid.resize(small, Resampling.BICUBIC)) * (2 / cells)
            cells *= 2
        contrast, light = random.uniform(20, 90), random.uniform(60, 200, 3)
        drawn = fromarray(np.clip(scene * contrast + light, 0, 255).astype(np.uint8))
        picture[...] = np.asarray(drawn.resize((width, height), Resampling.BICUBIC))
    return pictures


def _require_size(path: Path, model: str, size: Size) -> None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            actual = picture.height, picture.width
    except (OSError, UnidentifiedImageError):
        return  # to be named with all that can't be read
    if actual != sides_of(size):
        raise DataError(
            f"{model} takes pictures of {size_in_words(size)} pixels as they are, and {path} has "
            f"{size_in_words(actual)}; pass --data with pictures of that size, or leave it out."
        )


def _before_normalising(preprocessing: Preprocessing) -> Preprocessing:
    """Return the preprocessing whose pixels are those of ``preprocessing`` before they are normalised."""
    if preprocessing.takes is Takes.PICTURES:
        return preprocessing
    return replace(preprocessing, takes=Takes.PIXELS, layout=None)


def _drawn(preprocessing: Preprocessing) -> np.ndarray:
    from PIL.Image import fromarray

    sides = CAMERA if preprocessing.resize else sides_of(preprocessing.size)
    return np.stack([preprocessing.pixels(fromarray(picture)) for picture in draw_pictures(DRAWN, *sides)])
