"""How a picture becomes a network's input; stated once, at export, and read from the file by every later step.

    x[c, i, j] = (pixel[i, j, c] / 255 − mean[c]) / std[c]

after the shorter side was resized to ``resize`` pixels (bilinear, antialiased: Pillow's) and the middle
``size`` × ``size`` was cut out, as torchvision's reference evaluation does. A file may do some of it, or all, itself.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import DataError, ModelFileError
from rexport.device import _pictures

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing", "Takes", "to_rgb"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Takes(StrEnum):
    """What a model takes of a picture; the rest it does itself.

    ``NORMALISED``: float32 of shape ``(N, 3, S, S)``, all done. ``PIXELS``: uint8 of shape ``(N, S, S, 3)``, resized
    and cut out. ``PICTURES``: uint8 of shape ``(N, H, W, 3)``, of any height and width.
    """

    NORMALISED = "normalised"
    PIXELS = "pixels"
    PICTURES = "pictures"

    @property
    def raw(self) -> bool:
        """Whether that is uint8, channels last, as a camera gives it."""
        return self is not Takes.NORMALISED

    @property
    def in_graph(self) -> tuple[str, ...]:
        """What of the preprocessing a model does itself."""
        return {
            Takes.NORMALISED: (),
            Takes.PIXELS: ("normalise",),
            Takes.PICTURES: ("resize", "crop", "normalise"),
        }[self]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an RGB picture to the input of a network, a float32 array of shape ``(3, size, size)``.

    Attributes:
        size: Height and width of the network's input, in pixels.
        resize: What the shorter side is resized to before the crop; ``None`` takes pictures of exactly
            ``size`` × ``size`` and refuses others.
        mean: Per channel, R G B, of pixels scaled to 0 … 1.
        std: Per channel, likewise.
        takes: Where in all this the file takes over.
    """

    size: int
    resize: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    takes: Takes = Takes.NORMALISED

    @classmethod
    def default_for(cls, size: int) -> Preprocessing:
        """The field's habit at an input size: ImageNet's resize by 8/7 and crop, or CIFAR's pictures as they are."""
        return cls(size=size, resize=round(size * 256 / 224) if size >= 128 else None)

    def pixels(self, image: Image) -> np.ndarray:
        """Return what is to be taken of a picture, uint8 of shape ``(H, W, 3)``: all of it or what :meth:`crop` gives.

        Raises:
            DataError: As :meth:`crop`.
        """
        return np.asarray(to_rgb(image)) if self.takes is Takes.PICTURES else self.crop(image)

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Turn such pixels, uint8 of shape ``(..., H, W, 3)``, into what the file takes: see :class:`Takes`."""
        return pixels if self.takes.raw else self.normalise(pixels)

    def of_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """Turn whole pictures of one size, uint8 of shape ``(N, H, W, 3)``, into what the file takes.

        Raises:
            DataError: As :meth:`crop`.
        """
        from PIL.Image import fromarray

        return self.to_input(np.stack([self.pixels(fromarray(picture)) for picture in pictures]))

    def crop(self, image: Image) -> np.ndarray:
        """Return the picture's pixels, uint8 of shape ``(size, size, 3)``.

        Raises:
            DataError: Without ``resize``, where the picture is not ``size`` × ``size``; or its pixels have no known
                white.
        """
        image = to_rgb(image)
        if self.resize is None:
            if image.size != (self.size, self.size):
                raise DataError(
                    f"is {image.width}×{image.height} pixels, and the model takes {self.size}×{self.size} without "
                    f"resizing (to resize, pass --resize {self.size})"
                )
            return np.asarray(image)
        return self._middle(_resized(image, self.resize))

    def ten_crops(self, image: Image) -> tuple[np.ndarray, ...]:
        """Return the four corners and the middle of the resized picture, and those of its mirror image.

        They are uint8 of shape ``(size, size, 3)`` and in the order of torchvision's ``TenCrop``: top left, top right,
        bottom left, bottom right, middle, and again. Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification
        with Deep Convolutional Neural Networks", section 4.1.

        Raises:
            DataError: There is no ``resize``, so that all ten would be one or two; or its pixels have no known white.
        """
        from PIL.Image import Transpose

        if self.resize is None:
            raise DataError("is taken as it is, and ten crops are cut from a resized picture (pass --resize)")
        image = _resized(to_rgb(image), self.resize)
        mirrored = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return tuple(crop for one in (image, mirrored) for crop in (*self._corners(one), self._middle(one)))

    def whole(self, image: Image, scale: int) -> np.ndarray:
        """Return the whole picture, its shorter side of ``scale`` pixels: uint8 of shape ``(H, W, 3)``.

        Raises:
            DataError: Its pixels have no known white.
        """
        return np.asarray(_resized(to_rgb(image), scale))

    def _middle(self, image: Image) -> np.ndarray:
        return self._cut(image, round((image.width - self.size) / 2), round((image.height - self.size) / 2))

    def _corners(self, image: Image) -> tuple[np.ndarray, ...]:
        right, bottom = image.width - self.size, image.height - self.size
        return tuple(self._cut(image, left, top) for top in (0, bottom) for left in (0, right))

    def _cut(self, image: Image, left: int, top: int) -> np.ndarray:
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels of shape ``(..., H, W, 3)`` into float32 of shape ``(..., 3, H, W)``."""
        scaled = pixels.astype(np.float32) / np.float32(255)
        normal = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(np.moveaxis(normal, -1, -3))

    def to_json(self) -> str:
        """Return the one-line JSON that the model's metadata holds."""
        raw = self.takes.raw
        return json.dumps(
            {
                "size": self.size,
                "resize": self.resize,
                "mean": self.mean,
                "std": self.std,
                "color": "RGB",
                "layout": "NHWC" if raw else "NCHW",
                "dtype": "uint8" if raw else "float32",
                "scale": "1/255",
                "in_graph": self.takes.in_graph,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what :meth:`to_json` wrote.

        Raises:
            ModelFileError: The text is not such a JSON object, or its numbers make no sense.
        """
        try:
            fields = json.loads(text)
            size, resize = int(fields["size"]), fields["resize"]
            resize = None if resize is None else int(resize)
            mean, std = _three(fields["mean"]), _three(fields["std"])
            if size < 1 or (resize is not None and resize < size):
                raise ValueError(f"size {size}, resize {resize}")
            if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
                raise ValueError(f"mean {mean}, std {std}")
            in_graph = tuple(fields.get("in_graph", ()))  # files of older versions have none
            takes = {each.in_graph: each for each in Takes}[in_graph]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ModelFileError(
                f"The model's preprocessing metadata can't be read ({error!r}); export the model again."
            ) from error
        return cls(size=size, resize=resize, mean=mean, std=std, takes=takes)


def to_rgb(image: Image) -> Image:
    """Return the picture with three channels of 8 bits, as the agent on devices reads it.

    Raises:
        DataError: Its pixels have no known white.
    """
    try:
        return _pictures.to_rgb(image)
    except _pictures.PictureError as error:
        raise DataError(str(error)) from error


def _resized(image: Image, shorter: int) -> Image:
    from PIL.Image import Resampling

    # torchvision truncates the longer side; Pillow's draft-free bilinear filter is antialiased
    short, long = sorted(image.size)
    longer = int(shorter * long / short)
    new = (shorter, longer) if image.width <= image.height else (longer, shorter)
    return image if image.size == new else image.resize(new, Resampling.BILINEAR)


def _three(values: object) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)  # type: ignore[attr-defined]
    return red, green, blue
