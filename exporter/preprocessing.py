"""How a picture becomes a network's input; stated once, at export, and read from the file by every later step.

    x[c, i, j] = (pixel[i, j, c] / 255 − mean[c]) / std[c]

after the shorter side was resized to ``resize`` pixels (bilinear or bicubic, antialiased: Pillow's) and the middle
``size`` was cut out, as torchvision's reference evaluation does. A file may do some of it, or all, itself.

Sizes are a number for squares, and (height, width) for others.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rexport._errors import DataError, ModelFileError, UsageError
from rexport._words import counted
from rexport.device import _pictures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

__all__ = [
    "CAMERA",
    "CHANNELS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGE_SUFFIXES",
    "Interpolation",
    "Layout",
    "PictureOptions",
    "Preprocessing",
    "Size",
    "Takes",
    "canonical_size",
    "parse_size",
    "picture_of",
    "sides_of",
    "size_in_words",
    "with_channels",
]

Size: TypeAlias = "int | tuple[int, int]"
"""In pixels: a number for squares, (height, width) for others."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_COLORS = {1: "grey", 3: "RGB", 4: "RGBA"}  # by the number of channels
CHANNELS = tuple(_COLORS)
"""The numbers of channels that pictures have: grey, RGB, RGBA."""
CAMERA = (480, 640)
"""Height and width of the pictures to try a model with that resizes them itself: VGA."""
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""The suffixes of picture files, in lower case."""


class Layout(StrEnum):
    """The order of a batch's axes: channels first or last."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class Takes(StrEnum):
    """The form in which a model takes pictures; it does the remaining preprocessing itself.

    ``NORMALISED``: float32, fully preprocessed. ``PIXELS``: uint8, resized and cut out. ``PICTURES``: uint8, of any
    height and width.
    """

    NORMALISED = "normalised"
    PIXELS = "pixels"
    PICTURES = "pictures"

    @property
    def raw(self) -> bool:
        """Whether it is uint8, channels last, as from a camera."""
        return self is not Takes.NORMALISED

    @property
    def usual_layout(self) -> Layout:
        """The order of axes, where nothing else is stated."""
        return Layout.NHWC if self.raw else Layout.NCHW

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
    """From a picture to the input of a network, C channels of H × W.

    Attributes:
        size: Of the network's input.
        resize: The length that the shorter side is resized to before the crop, or the height and width that pictures
            are resized to whatever their shape; ``None`` takes pictures of exactly ``size`` and refuses others.
        mean: For each channel (grey; R G B; or R G B A), of pixels scaled to 0 … 1.
        std: For each channel, likewise.
        interpolation: The filter of the resize.
        takes: The step at which the file takes over.
        layout: The order of the input's axes; by default NHWC for pixels, and NCHW for what is normalised.
        assumed: Whether it is the field's default, stated by nobody; no part of equality, as the pixels are the same.
    """

    size: Size
    resize: Size | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = Interpolation.BILINEAR
    takes: Takes = Takes.NORMALISED
    layout: Layout | None = None
    assumed: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        # one way to say a thing, so that equal is what does the same
        object.__setattr__(self, "size", canonical_size(self.size))
        if self.layout is self.takes.usual_layout:
            object.__setattr__(self, "layout", None)

    @classmethod
    def default_for(cls, size: Size, channels: int = 3) -> Preprocessing:
        """Return the field's default at a size.

        Squares are ImageNet's, resized to 8/7 and cropped, or CIFAR's, taken as they are; others are resized whatever
        their shape. Colours are normalised by ImageNet's mean and standard deviation, others scaled to 0 … 1.
        """
        resize: Size | None = size
        if isinstance(size, int):
            resize = round(size * 256 / 224) if size >= 128 else None
        if channels == len(IMAGENET_MEAN):
            return cls(size=size, resize=resize, assumed=True)
        return cls(size=size, resize=resize, mean=(0.0,) * channels, std=(1.0,) * channels, assumed=True)

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.mean)

    @property
    def side(self) -> int:
        """Height and width of square pictures.

        Raises:
            UsageError: They are not square.
        """
        if isinstance(self.size, int):
            return self.size
        raise UsageError(f"Pictures of {size_in_words(self.size)} are not square, which is needed here.")

    @property
    def axes(self) -> Layout:
        """The order of the input's axes."""
        return self.layout or self.takes.usual_layout

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a picture's pixels, ``(H, W, C)``."""
        return (*sides_of(self.size), self.channels)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of a picture in the network's input, in the order of its axes."""
        height, width, channels = self.shape
        return (channels, height, width) if self.axes is Layout.NCHW else (height, width, channels)

    @property
    def trial_shape(self) -> tuple[int, int, int]:
        """The shape of a picture to try a model with: :attr:`input_shape`, or a camera's, which it resizes itself."""
        if self.takes is Takes.PICTURES:
            return replace(self, size=CAMERA, takes=Takes.PIXELS).input_shape
        return self.input_shape

    @property
    def dtype(self) -> str:
        """The type of the network's input."""
        return "uint8" if self.takes.raw else "float32"

    def in_words(self) -> str:
        """Return the steps, for a sentence that begins with "taking"."""
        pictures = {1: "grey pictures", 4: "pictures with transparency"}.get(self.channels, "pictures")
        if self.takes is Takes.PICTURES:
            return f"whole {pictures}"
        cut = f"{pictures} of {size_in_words(self.size)} as they are"
        if self.resize is not None:
            bicubic = ", bicubic," if self.interpolation is Interpolation.BICUBIC else ""
            middle = f"the middle {size_in_words(self.size)} of "
            if self.resize == sides_of(self.size):
                middle = ""
            resize = self.resize if isinstance(self.resize, int) else size_in_words(self.resize)
            cut = f"{middle}{pictures} resized to {resize}{bicubic}"
        if self.takes is Takes.PIXELS:
            return cut
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            return f"{cut} and ImageNet's mean and std"
        return f"{cut}, mean {_numbers(self.mean)} and std {_numbers(self.std)}"

    def pixels(self, image: Image) -> np.ndarray:
        """Return a picture's pixels, uint8 of shape ``(H, W, C)``: all of them, or those of :meth:`crop`.

        Raises:
            DataError: As :meth:`crop`.
        """
        image = with_channels(image, self.channels)
        return self._array(image) if self.takes is Takes.PICTURES else self.crop(image)

    def seen(self, image: Image) -> Image:
        """Return the picture that :meth:`pixels` are of, in RGB.

        Raises:
            DataError: As :meth:`crop`.
        """
        return picture_of(self.pixels(image)).convert("RGB")

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Turn such pixels, uint8 of shape ``(..., H, W, C)``, into the file's input: see :class:`Takes`."""
        if not self.takes.raw:
            return self.normalise(pixels)
        return pixels if self.axes is Layout.NHWC else np.ascontiguousarray(np.moveaxis(pixels, -1, -3))

    def of_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """Turn whole pictures of one size, uint8 of shape ``(N, H, W, 3)``, into the file's input.

        Raises:
            DataError: As :meth:`crop`.
        """
        from PIL.Image import fromarray

        return self.to_input(np.stack([self.pixels(fromarray(picture)) for picture in pictures]))

    def crop(self, image: Image) -> np.ndarray:
        """Return the picture's pixels, uint8 of shape :attr:`shape`.

        Raises:
            DataError: Without ``resize``, where the picture is of another size; or its pixels have no known white.
        """
        image = with_channels(image, self.channels)
        if self.resize is None:
            actual = (image.height, image.width)
            if actual != sides_of(self.size):
                raise DataError(
                    f"is {size_in_words(actual)} pixels, and the model takes {size_in_words(self.size)} without "
                    f"resizing (to resize, pass --resize {_numbers(self.size)})"
                )
            return self._array(image)
        return self._middle(self._resized(image, self.resize))

    def ten_crops(self, image: Image) -> tuple[np.ndarray, ...]:
        """Return the four corners and the middle of the resized picture, and those of its mirror image.

        They are uint8 of shape :attr:`shape` and in the order of torchvision's ``TenCrop``: top left, top right,
        bottom left, bottom right, middle, and again. Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification
        with Deep Convolutional Neural Networks", section 4.1.

        Raises:
            DataError: There is no ``resize``, so that all ten would be one or two; or its pixels have no known white.
        """
        from PIL.Image import Transpose

        if self.resize is None:
            raise DataError("is taken as it is, and ten crops are cut from a resized picture (pass --resize)")
        image = self._resized(with_channels(image, self.channels), self.resize)
        mirrored = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return tuple(crop for view in (image, mirrored) for crop in (*self._corners(view), self._middle(view)))

    def whole(self, image: Image, scale: int) -> np.ndarray:
        """Return the whole picture, its shorter side of ``scale`` pixels: uint8 of shape ``(H, W, C)``.

        Raises:
            DataError: Its pixels have no known white.
        """
        return self._array(self._resized(with_channels(image, self.channels), scale))

    def _resized(self, image: Image, resize: Size) -> Image:
        from PIL.Image import Resampling

        if isinstance(resize, int):
            # torchvision truncates the longer side; Pillow's draft-free filters are antialiased
            short, long = sorted(image.size)
            longer = int(resize * long / short)
            resize = (longer, resize) if image.width <= image.height else (resize, longer)
        height, width = resize
        return image.resize((width, height), Resampling[self.interpolation.name])

    def _middle(self, image: Image) -> np.ndarray:
        height, width = sides_of(self.size)
        return self._cut(image, round((image.width - width) / 2), round((image.height - height) / 2))

    def _corners(self, image: Image) -> tuple[np.ndarray, ...]:
        height, width = sides_of(self.size)
        right, bottom = image.width - width, image.height - height
        return tuple(self._cut(image, x, y) for y in (0, bottom) for x in (0, right))

    def _cut(self, image: Image, x: int, y: int) -> np.ndarray:
        height, width = sides_of(self.size)
        return self._array(image.crop((x, y, x + width, y + height)))

    def _array(self, image: Image) -> np.ndarray:
        return np.asarray(image).reshape(image.height, image.width, self.channels)

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels of shape ``(..., H, W, C)`` into float32, in the order of :attr:`axes`."""
        scaled = pixels.astype(np.float32) / np.float32(255)
        normal = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(np.moveaxis(normal, -1, -3) if self.axes is Layout.NCHW else normal)

    def to_json(self) -> str:
        """Return the one-line JSON that the model's metadata holds."""
        fields: dict[str, Any] = {
            "size": self.size,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
            "color": _COLORS[self.channels],
            "layout": self.axes,
            "dtype": self.dtype,
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
            size, resize = _read_size(fields["size"]), fields["resize"]
            resize = None if resize is None else _read_size(resize)
            mean, std = _channels(fields["mean"]), _channels(fields["std"])
            if resize is not None and _is_smaller(resize, size):
                raise ValueError(f"size {size}, resize {resize}")
            if len(mean) != len(std) or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
                raise ValueError(f"mean {mean}, std {std}")
            in_graph = tuple(fields.get("in_graph", ()))  # files of older versions have none
            takes = {takes.in_graph: takes for takes in Takes}[in_graph]
            interpolation = Interpolation(fields.get("interpolation", Interpolation.BILINEAR))  # nor this
            assumed = fields.get("assumed", False)
            if type(assumed) is not bool:
                raise ValueError(f"assumed {assumed}")
            layout = Layout(fields.get("layout", takes.usual_layout))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ModelFileError(
                f"The model's preprocessing metadata can't be read ({error!r}); export the model again."
            ) from error
        return cls(
            size=size,
            resize=resize,
            mean=mean,
            std=std,
            interpolation=interpolation,
            takes=takes,
            layout=layout,
            assumed=assumed,
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

    size: Size | None = None
    resize: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"--std {_numbers(self.std)}: standard deviations are larger than zero.")
        _require_scaled(self.mean, self.std)

    @classmethod
    def parse(
        cls,
        *,
        size: str | None = None,
        resize: str | None = None,
        mean: str | None = None,
        std: str | None = None,
        layout: str | None = None,
    ) -> PictureOptions:
        """Read the texts of options: sizes as ``224`` or ``HxW``, a number per channel for mean and deviation.

        Raises:
            UsageError: They are none of these, or as above.
        """
        return cls(
            size=parse_size("--size", size),
            resize=parse_size("--resize", resize),
            mean=_per_channel("--mean", mean),
            std=_per_channel("--std", std),
            layout=_layout(layout),
        )

    def applied_to(self, base: Preprocessing, source: str) -> tuple[Preprocessing, str | None]:
        """Return ``base`` with these options, and a sentence for the user where that differs from ``source``.

        Args:
            base: The preprocessing that ``source`` states; or an assumed one, which is no longer ``assumed`` once
                size, mean and standard deviation are all stated.
            source: The name, in sentences, of the file or the network that ``base`` comes from.

        Raises:
            UsageError: The resize is smaller than the crop.
        """
        for option, values in {"--mean": self.mean, "--std": self.std}.items():
            if values is not None and len(values) != base.channels:
                channels = counted(base.channels, "channel")
                raise UsageError(f"{option} {_numbers(values)}: {source} takes pictures of {channels}.")
        size = self.size or base.size
        scaled = replace(base, size=size, resize=_resize_at(size, base))
        if self.resize is not None and _is_smaller(self.resize, size):
            raise UsageError(
                f"--resize {_numbers(self.resize)} is smaller than the {size_in_words(size)} pixels that are cut out."
            )
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
        options = {"size": "--size", "resize": "--resize", "mean": "--mean", "std": "--std"}
        values = {name: getattr(self, name) for name in options}
        replaced = {name: value for name, value in values.items() if value not in (None, getattr(base, name))}
        if base.assumed or not replaced:
            return None
        was = ", ".join(f"{name} {_numbers(getattr(base, name))}" for name in replaced)
        new = " ".join(f"{options[name]} {_numbers(value)}" for name, value in replaced.items())
        return f"{source} states {was}; taking {new} instead."


def picture_of(pixels: np.ndarray) -> Image:
    """Return the picture of pixels, uint8 of shape ``(H, W, C)``."""
    from PIL.Image import fromarray

    return fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def with_channels(image: Image, channels: int) -> Image:
    """Return the picture with 1 (grey), 3 (RGB) or 4 (RGBA) channels of 8 bits, as the agent on devices reads it.

    Raises:
        DataError: Its pixels have no known white.
    """
    try:
        return _pictures.with_channels(image, channels)
    except _pictures.PictureError as error:
        raise DataError(str(error)) from error


def sides_of(size: Size) -> tuple[int, int]:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else size


def size_in_words(size: Size) -> str:
    """Return ``height×width``."""
    return "×".join(map(str, sides_of(size)))


def parse_size(option: str, text: str | None) -> Size | None:
    """Read ``224``, or ``128x64`` for a height and a width.

    Raises:
        UsageError: It is neither.
    """
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"{option} {text}: expected pixels, such as 224, or HEIGHTxWIDTH, such as 128x64.")
    if len(sides) == 1:
        return int(text)
    return int(sides[0]), int(sides[1])


def canonical_size(size: Size) -> Size:
    """Return a size with equal sides as a number."""
    height, width = sides_of(size)
    return height if height == width else (height, width)


def _is_smaller(resize: Size, size: Size) -> bool:
    """Say whether the middle of a ``size`` may not lie within a picture that was resized."""
    height, width = sides_of(size)
    if isinstance(resize, int):
        return resize < max(height, width)
    return resize[0] < height or resize[1] < width


def _resize_at(size: Size, base: Preprocessing) -> Size | None:
    """Return the resize for a crop of another ``size``: in proportion."""
    if base.assumed and size != base.size:
        return Preprocessing.default_for(size).resize
    if isinstance(size, int) and isinstance(base.size, int) and isinstance(base.resize, int):
        return round(base.resize * size / base.size)
    return base.resize if base.resize is None or size == base.size else sides_of(size)


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


def _per_channel(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = _channels(text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(map(math.isfinite, values)):
        raise UsageError(f"{option} {text}: expected a number per channel, such as 0.485,0.456,0.406.")
    return values


def _layout(text: str | None) -> Layout | None:
    if text is None:
        return None
    if text.upper() not in Layout.__members__:
        raise UsageError(f"--layout {text}: choose nchw or nhwc.")
    return Layout(text.upper())


def _numbers(values: object) -> str:
    """Return a number, or several, or a size, as options take them."""
    if isinstance(values, tuple) and all(isinstance(value, int) for value in values):
        return "x".join(map(str, values))
    if isinstance(values, tuple):
        return ",".join(f"{value:g}" for value in values)
    return "none" if values is None else f"{values}"


def _channels(values: Sequence[Any]) -> tuple[float, ...]:
    if len(values) not in _COLORS:
        raise ValueError(f"{len(values)} channels")
    return tuple(map(float, values))


def _read_size(value: Any) -> Size:
    """Read a size from JSON; raises ``ValueError`` or ``TypeError`` for anything else."""
    sides = tuple(map(int, value)) if isinstance(value, list) else (int(value),)
    if len(sides) > 2 or min(sides) < 1:
        raise ValueError(f"size {value}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
