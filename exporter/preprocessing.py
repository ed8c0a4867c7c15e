"""How a picture becomes a network's input; stated once, at export, and read from the file by every later step.

    x[c, i, j] = (pixel[i, j, c] / 255 − mean[c]) / std[c]

after the shorter side was resized to ``resize`` pixels (bilinear or bicubic, antialiased: Pillow's) and the middle
``size`` × ``size`` was cut out, as torchvision's reference evaluation does. A file may do some of it, or all, itself.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._errors import DataError, ModelFileError, UsageError
from rexport.device import _pictures

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGE_SUFFIXES",
    "Interpolation",
    "PictureOptions",
    "Preprocessing",
    "Takes",
    "to_rgb",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""The suffixes of picture files, in lower case."""


class Takes(StrEnum):
    """The form in which a model takes pictures; it does the remaining preprocessing itself.

    ``NORMALISED``: float32 of shape ``(N, 3, S, S)``, fully preprocessed. ``PIXELS``: uint8 of shape ``(N, S, S, 3)``,
    resized and cut out. ``PICTURES``: uint8 of shape ``(N, H, W, 3)``, of any height and width.
    """

    NORMALISED = "normalised"
    PIXELS = "pixels"
    PICTURES = "pictures"

    @property
    def raw(self) -> bool:
        """Whether it is uint8, channels last, as from a camera."""
        return self is not Takes.NORMALISED

    @property
    def in_graph(self) -> tuple[str, ...]:
        """The steps of the preprocessing that a model does itself."""
        return {
            Takes.NORMALISED: (),
            Takes.PIXELS: ("normalise",),
            Takes.PICTURES: ("resize", "crop", "normalise"),
        }[self]


class Interpolation(StrEnum):
    """The filter that pictures are resized with; both are antialiased, and Pillow's."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an RGB picture to the input of a network, a float32 array of shape ``(3, size, size)``.

    Attributes:
        size: Height and width of the network's input, in pixels.
        resize: The length that the shorter side is resized to before the crop; ``None`` takes pictures of exactly
            ``size`` × ``size`` and refuses others.
        mean: Per channel, R G B, of pixels scaled to 0 … 1.
        std: Per channel, likewise.
        interpolation: The filter of the resize.
        takes: The step at which the file takes over.
        assumed: Whether it is the field's default, stated by nobody; no part of equality, as the pixels are the same.
    """

    size: int
    resize: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = Interpolation.BILINEAR
    takes: Takes = Takes.NORMALISED
    assumed: bool = field(default=False, compare=False)

    @classmethod
    def default_for(cls, size: int) -> Preprocessing:
        """Return the field's default at a size: ImageNet's resize by 8/7 and crop, or CIFAR's pictures as they are."""
        return cls(size=size, resize=round(size * 256 / 224) if size >= 128 else None, assumed=True)

    def in_words(self) -> str:
        """Return the steps, for a sentence that begins with "taking"."""
        if self.takes is Takes.PICTURES:
            return "whole pictures"
        cut = f"pictures of {self.size}×{self.size} as they are"
        if self.resize is not None:
            bicubic = ", bicubic," if self.interpolation is Interpolation.BICUBIC else ""
            cut = f"the middle {self.size}×{self.size} of pictures resized to {self.resize}{bicubic}"
        if self.takes is Takes.PIXELS:
            return cut
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            return f"{cut} and ImageNet's mean and std"
        return f"{cut}, mean {_numbers(self.mean)} and std {_numbers(self.std)}"

    def pixels(self, image: Image) -> np.ndarray:
        """Return a picture's pixels, uint8 of shape ``(H, W, 3)``: all of them, or those of :meth:`crop`.

        Raises:
            DataError: As :meth:`crop`.
        """
        return np.asarray(to_rgb(image)) if self.takes is Takes.PICTURES else self.crop(image)

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Turn such pixels, uint8 of shape ``(..., H, W, 3)``, into the file's input: see :class:`Takes`."""
        return pixels if self.takes.raw else self.normalise(pixels)

    def of_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """Turn whole pictures of one size, uint8 of shape ``(N, H, W, 3)``, into the file's input.

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
        return self._middle(self._resized(image, self.resize))

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
        image = self._resized(to_rgb(image), self.resize)
        mirrored = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return tuple(crop for view in (image, mirrored) for crop in (*self._corners(view), self._middle(view)))

    def whole(self, image: Image, scale: int) -> np.ndarray:
        """Return the whole picture, its shorter side of ``scale`` pixels: uint8 of shape ``(H, W, 3)``.

        Raises:
            DataError: Its pixels have no known white.
        """
        return np.asarray(self._resized(to_rgb(image), scale))

    def _resized(self, image: Image, shorter: int) -> Image:
        from PIL.Image import Resampling

        # torchvision truncates the longer side; Pillow's draft-free filters are antialiased
        short, long = sorted(image.size)
        longer = int(shorter * long / short)
        size = (shorter, longer) if image.width <= image.height else (longer, shorter)
        return image.resize(size, Resampling[self.interpolation.name])

    def _middle(self, image: Image) -> np.ndarray:
        return self._cut(image, round((image.width - self.size) / 2), round((image.height - self.size) / 2))

    def _corners(self, image: Image) -> tuple[np.ndarray, ...]:
        right, bottom = image.width - self.size, image.height - self.size
        return tuple(self._cut(image, x, y) for y in (0, bottom) for x in (0, right))

    def _cut(self, image: Image, x: int, y: int) -> np.ndarray:
        return np.asarray(image.crop((x, y, x + self.size, y + self.size)))

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels of shape ``(..., H, W, 3)`` into float32 of shape ``(..., 3, H, W)``."""
        scaled = pixels.astype(np.float32) / np.float32(255)
        normal = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(np.moveaxis(normal, -1, -3))

    def to_json(self) -> str:
        """Return the one-line JSON that the model's metadata holds."""
        layout, dtype = ("NHWC", "uint8") if self.takes.raw else ("NCHW", "float32")
        fields: dict[str, Any] = {
            "size": self.size,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
            "color": "RGB",
            "layout": layout,
            "dtype": dtype,
            "scale": "1/255",
            "in_graph": self.takes.in_graph,
        }
        if self.assumed:
            fields["assumed"] = True
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what :meth:`to_json` wrote.

        Raises:
            ModelFileError: The text is not such a JSON object, or its numbers make no sense.
        """
        try:
            fields = json.loads(text)
            size, resize = int(fields["size"]), fields["resize"]
            resize = resize and int(resize)
            mean, std = _three(fields["mean"]), _three(fields["std"])
            if size < 1 or (resize is not None and resize < size):
                raise ValueError(f"size {size}, resize {resize}")
            if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
                raise ValueError(f"mean {mean}, std {std}")
            in_graph = tuple(fields.get("in_graph", ()))  # files of older versions have none
            takes = {takes.in_graph: takes for takes in Takes}[in_graph]
            interpolation = Interpolation(fields.get("interpolation", Interpolation.BILINEAR))  # nor this
            assumed = fields.get("assumed", False)
            if type(assumed) is not bool:
                raise ValueError(f"assumed {assumed}")
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ModelFileError(
                f"The model's preprocessing metadata can't be read ({error!r}); export the model again."
            ) from error
        return cls(
            size=size, resize=resize, mean=mean, std=std, interpolation=interpolation, takes=takes, assumed=assumed
        )


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """The parts of a preprocessing that a user states, named as its attributes; ``None`` where nothing is stated.

    Raises:
        UsageError: Standard deviations are not above zero, or mean or deviations are meant for pixels of 0 … 255.

    Example:
        >>> options = PictureOptions.parse(mean="0.5,0.5,0.5")
        >>> preprocessing, note = options.applied_to(Preprocessing(size=32), "m.onnx")
        >>> note
        'm.onnx states mean 0.485,0.456,0.406; taking --mean 0.5,0.5,0.5 instead.'
    """

    size: int | None = None
    resize: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"--std {_numbers(self.std)}: standard deviations are larger than zero.")
        _require_scaled(self.mean, self.std)

    @classmethod
    def parse(
        cls, *, size: int | None = None, resize: int | None = None, mean: str | None = None, std: str | None = None
    ) -> PictureOptions:
        """Read the texts of ``--mean`` and ``--std``: three numbers each, of pixels scaled to 0 … 1.

        Raises:
            UsageError: They are not three numbers each, or as above.
        """
        return cls(size=size, resize=resize, mean=_triple("--mean", mean), std=_triple("--std", std))

    def applied_to(self, base: Preprocessing, source: str) -> tuple[Preprocessing, str | None]:
        """Return ``base`` with these options, and a sentence for the user where that differs from ``source``.

        Args:
            base: The preprocessing that ``source`` states; or an assumed one, which is no longer ``assumed`` once
                size, mean and standard deviation are all stated.
            source: The name, in sentences, of the file or the network that ``base`` comes from.

        Raises:
            UsageError: The resize is smaller than the crop.
        """
        size = self.size or base.size
        scaled = replace(base, size=size, resize=_resize_at(size, base))
        if self.resize is not None and self.resize < size:
            raise UsageError(f"--resize {self.resize} is smaller than the {size} pixels that are cut out.")
        result = replace(
            scaled,
            resize=self.resize or scaled.resize,
            mean=self.mean or scaled.mean,
            std=self.std or scaled.std,
            assumed=base.assumed and None in (self.size, self.mean, self.std),
        )
        if result.assumed:
            options = "--resize" if base.takes.raw else "--resize, --mean and --std"
            note = f"{source} does not say how pictures become its input; taking {result.in_words()} (see {options})."
            return result, note
        return result, self._replacing(base, source)

    def _replacing(self, base: Preprocessing, source: str) -> str | None:
        options = {"size": "--input-size", "resize": "--resize", "mean": "--mean", "std": "--std"}
        values = {name: getattr(self, name) for name in options}
        replaced = {name: value for name, value in values.items() if value not in (None, getattr(base, name))}
        if base.assumed or not replaced:
            return None
        was = ", ".join(f"{name} {_numbers(getattr(base, name))}" for name in replaced)
        new = " ".join(f"{options[name]} {_numbers(value)}" for name, value in replaced.items())
        return f"{source} states {was}; taking {new} instead."


def to_rgb(image: Image) -> Image:
    """Return the picture with three channels of 8 bits, as the agent on devices reads it.

    Raises:
        DataError: Its pixels have no known white.
    """
    try:
        return _pictures.to_rgb(image)
    except _pictures.PictureError as error:
        raise DataError(str(error)) from error


def _resize_at(size: int, base: Preprocessing) -> int | None:
    """Return the resize for a crop of another ``size``: in proportion."""
    if base.assumed and size != base.size:
        return Preprocessing.default_for(size).resize
    return base.resize and round(base.resize * size / base.size)


def _require_scaled(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    """Raise :class:`UsageError` for numbers of pixels of 0 … 255: no mean or deviation of 0 … 1 is above 1."""
    options = {"--mean": mean, "--std": std}
    wrong = {option: values for option, values in options.items() if values is not None and max(values) > 1}
    if not wrong:
        return
    if std is not None and min(std) >= 1:  # Caffe's: pixels less their mean, divided by 1
        wrong["--std"] = std
    unscaled = " ".join(f"{option} {_numbers(values)}" for option, values in wrong.items())
    divided = " ".join(f"{option} {','.join(f'{v / 255:.3g}' for v in values)}" for option, values in wrong.items())
    raise UsageError(f"{unscaled} is for pixels of 0…255; divide by 255: {divided}.")


def _triple(option: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        values = _three(text.split(","))
    except ValueError:
        values = (math.nan,) * 3
    if not all(map(math.isfinite, values)):
        raise UsageError(f"{option} {text}: expected three numbers, such as 0.485,0.456,0.406.")
    return values


def _numbers(values: object) -> str:
    """Return one number, or several, as options take them."""
    if isinstance(values, tuple):
        return ",".join(f"{value:g}" for value in values)
    return "none" if values is None else f"{values}"


def _three(values: object) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)  # type: ignore[attr-defined]
    return red, green, blue
