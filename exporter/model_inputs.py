"""What a model takes: pictures, whose layout, channels and sizes are read from the file, or other tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport._errors import DataError, ModelFileError, UsageError
from rexport._progress import Note, unsaid
from rexport._words import counted
from rexport.model_file import Metadata, dtype_name
from rexport.preprocessing import (
    CHANNELS,
    Layout,
    PictureOptions,
    Preprocessing,
    Size,
    Takes,
    canonical_size,
    sides_of,
    size_in_words,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "ImageInput",
    "TensorInput",
    "fixed_batch",
    "image_input",
    "inputs_of",
    "is_size_assumed",
    "picture_size",
    "preprocessing_of",
    "require_fitting",
    "state_preprocessing",
    "tensor_inputs",
]

_ASSUMED_SIZE = 224  # of a model that takes any size and does not state one: ImageNet's
_TYPES = (ir.DataType.FLOAT, ir.DataType.UINT8)
_KINDS = "biuf"  # of NumPy types of numbers


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """A model's one image input.

    Attributes:
        name: Of the tensor.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        height: Fixed, in pixels; ``None`` if it takes any.
        width: Likewise.
        batch: The fixed number of images; ``None`` if it takes any.
        raw: Whether it takes uint8, as a camera gives them, and not float32.
        layout: The order of its axes.
    """

    name: str
    channels: int
    height: int | None
    width: int | None
    batch: int | None
    raw: bool
    layout: Layout

    @property
    def size(self) -> Size | None:
        """The fixed size; ``None`` if height or width is open."""
        if self.height is None or self.width is None:
            return None
        return canonical_size((self.height, self.width))

    @property
    def takes(self) -> Takes:
        """What that is for a file that says nothing else."""
        return Takes.PIXELS if self.raw else Takes.NORMALISED

    def allows(self, size: Size) -> bool:
        """Say whether it takes pictures of a size."""
        return all(fixed in (None, side) for fixed, side in zip((self.height, self.width), sides_of(size), strict=True))

    def sized(self, size: Size) -> Size:
        """Return its size, with the sides that are open as in ``size``."""
        height, width = sides_of(size)
        return canonical_size((self.height or height, self.width or width))

    def shape(self, size: Size, batch: int) -> tuple[int, int, int, int]:
        """Return the shape of a batch of pictures of a size."""
        height, width = sides_of(size)
        if self.layout is Layout.NCHW:
            return (batch, self.channels, height, width)
        return (batch, height, width, self.channels)


@dataclass(frozen=True, kw_only=True)
class TensorInput:
    """An input of any kind: its NumPy type, and its shape, with ``None`` where it is open."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """Return ``x float32 (1, ?, 80)``."""
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype} ({sizes})"

    def at(self, batch: int) -> tuple[int, ...]:
        """Return the shape at a batch, where only that is open.

        Raises:
            UsageError: Another size is open.
        """
        if None in self.shape[1:]:
            example = "x".join("1" if size is None else str(size) for size in self.shape)
            raise UsageError(f"{self} has open sizes; state them, such as --input {self.name}={example}.")
        return tuple(batch if size is None else size for size in self.shape)

    def sized(self, shape: Sequence[int], path: Path | str) -> TensorInput:
        """Return the input with its open sizes as in ``shape``.

        Raises:
            UsageError: Other sizes are fixed, or there are more or fewer axes.
        """
        fits = len(shape) == len(self.shape) and all(
            fixed in (None, size) for fixed, size in zip(self.shape, shape, strict=True)
        )
        if not fits:
            raise UsageError(f"--input {self.name}={'x'.join(map(str, shape))}: {path} takes {self}.")
        return replace(self, shape=tuple(shape))

    def converted(self, array: np.ndarray, path: Path | str) -> np.ndarray:
        """Return an array as the model takes it: in its type, of as many bits, and with a first axis if it lacks that.

        Raises:
            DataError: It is of another kind of type, or another shape.
        """
        if array.ndim == len(self.shape) - 1:
            array = array[np.newaxis]
        fits = array.ndim == len(self.shape) and all(
            wanted in (None, size) for wanted, size in zip(self.shape[1:], array.shape[1:], strict=True)
        )
        kinds = {array.dtype.kind, np.dtype(self.dtype).kind}
        if not fits or (len(kinds) > 1 and kinds != {"i", "u"}):
            raise DataError(f"{path} holds {array.dtype} of shape {array.shape}, and the model takes {self}.")
        converted = np.ascontiguousarray(array, self.dtype)
        if "f" not in kinds and not np.array_equal(converted, array):
            raise DataError(f"{path} holds numbers that do not fit into {self}.")
        return converted


def tensor_inputs(model: ir.Model, path: Path | str = "The model") -> tuple[TensorInput, ...]:
    """Return all inputs that a model must be given.

    Raises:
        ModelFileError: One is no tensor of numbers, or its rank is not known.
    """
    inputs = inputs_of(model)
    for value in inputs:
        is_tensor = isinstance(value.type, ir.TensorType) and value.shape is not None
        if not is_tensor or value.dtype is None or value.dtype.numpy().kind not in _KINDS:
            raise ModelFileError(f"{path} takes {value.name}: {_type_in_words(value)}, which can't be fed with arrays.")
    return tuple(
        TensorInput(
            name=str(value.name),
            dtype=dtype_name(value),
            shape=tuple(size if isinstance(size, int) else None for size in value.shape or ()),
        )
        for value in inputs
    )


def inputs_of(model: ir.Model) -> list[ir.Value]:
    """Return the inputs that a model must be given: those that are not weights."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def fixed_batch(model: ir.Model) -> int | None:
    """Return the length that the first axis of a model's first input is fixed to; ``None`` if it is open."""
    shape = inputs_of(model)[0].shape
    batch = shape[0] if shape is not None and len(shape) else None
    return batch if isinstance(batch, int) else None


def image_input(model: ir.Model, path: Path | str = "The model", *, layout: Layout | None = None) -> ImageInput:
    """Return the model's image input.

    Args:
        model: The model.
        path: Its name in sentences.
        layout: The order of its axes; by default as it states, or where the channels are.

    Raises:
        ModelFileError: Its inputs are anything but one tensor, float32 or uint8, of shape ``(N, C, H, W)`` or
            ``(N, H, W, C)`` with 1, 3 or 4 channels.
    """
    inputs = inputs_of(model)
    image = None
    if len(inputs) == 1:
        stated = Metadata.of(model).preprocessing
        image = _as_image(inputs[0], layout or (None if stated is None else stated.layout))
    if image is not None:
        return image
    listed = "; ".join(f"{value.name}: {_type_in_words(value)}" for value in inputs)
    raise ModelFileError(
        f"{path} has no image input: expected one float32 or uint8 input of shape (N, C, H, W) or (N, H, W, C), with "
        f"1, 3 or 4 channels; found {listed or 'no input'}."
    )


def _as_image(value: ir.Value, layout: Layout | None) -> ImageInput | None:
    """Return what a tensor says of the pictures that it takes; ``None`` if it takes none."""
    if not isinstance(value.type, ir.TensorType) or value.dtype not in _TYPES:
        return None
    if value.shape is None or len(value.shape) != 4:
        return None
    is_raw = value.dtype == ir.DataType.UINT8
    # where both would do, float tensors have their channels first, and pixels last
    orders: tuple[Layout, ...] = (Layout.NHWC, Layout.NCHW) if is_raw else (Layout.NCHW, Layout.NHWC)
    if layout is not None:
        orders = (layout,)
    for order in orders:
        batch, *rest = value.shape
        channels = rest.pop(0 if order is Layout.NCHW else 2)
        if not isinstance(channels, int) or channels not in CHANNELS or 0 in (batch, *rest):
            continue
        height, width, number = (size if isinstance(size, int) else None for size in (*rest, batch))
        return ImageInput(
            name=str(value.name),
            channels=channels,
            height=height,
            width=width,
            batch=number,
            raw=is_raw,
            layout=order,
        )
    return None


def picture_size(model: ir.Model) -> Size:
    """Return the size of a model's pictures: its input's, where that is open those it was exported for, or 224.

    Raises:
        ModelFileError: It has no image input.
    """
    preprocessing = Metadata.of(model).preprocessing
    return image_input(model).sized(_ASSUMED_SIZE if preprocessing is None else preprocessing.size)


def is_size_assumed(model: ir.Model) -> bool:
    """Return whether :func:`picture_size` is only the default.

    Raises:
        ModelFileError: It has no image input.
    """
    return image_input(model).size is None and Metadata.of(model).preprocessing is None


def preprocessing_of(
    model: ir.Model, path: Path | str = "The model", options: PictureOptions | None = None, *, note: Note = unsaid
) -> Preprocessing:
    """Return how pictures become a model's input: as its file states, with the changes of the user's ``options``.

    Args:
        model: With one image input.
        path: Its name in sentences.
        options: Values that replace those that the file states, or the defaults; their ``size`` is for a model that
            takes any.
        note: Told where some of it is assumed, or ``options`` replace a stated value.

    Raises:
        ModelFileError: It has no image input, its metadata can't be read, or contradicts it.
        UsageError: ``options`` concern steps that the model does itself, or another size or number of channels.
    """
    options = options or PictureOptions()
    image, stated = image_input(model, path, layout=options.layout), Metadata.of(model).preprocessing
    if image.raw and (options.mean, options.std) != (None, None):
        raise UsageError(f"{path} normalises its images itself, so --mean and --std mean nothing with it.")
    if stated is not None and stated.takes is Takes.PICTURES and options.resize is not None:
        raise UsageError(f"{path} resizes its images itself, so --resize means nothing with it.")
    if options.size is not None and not image.allows(options.size):
        raise UsageError(f"--size {size_in_words(options.size)}: {path} takes pictures of {_sides_in_words(image)}.")
    if stated is None:
        size = image.sized(_ASSUMED_SIZE if options.size is None else options.size)
        stated = replace(Preprocessing.default_for(size, image.channels), takes=image.takes)
    require_fitting(stated, image, path)
    size = image.sized(stated.size if options.size is None else options.size)
    preprocessing, remark = replace(options, size=size).applied_to(replace(stated, layout=image.layout), str(path))
    if remark is not None:
        note(remark)
    return preprocessing


def require_fitting(stated: Preprocessing, image: ImageInput, path: Path | str) -> None:
    """Raise :class:`ModelFileError` where a file's preprocessing is of other pictures than its input."""
    if stated.takes.raw != image.raw:
        raise ModelFileError(
            f"{path} says that it takes {stated.takes} images, and its input is of another type; export it again."
        )
    if stated.channels != image.channels:
        raise ModelFileError(
            f"{path} says that its pictures have {counted(stated.channels, 'channel')}, and its input has "
            f"{image.channels}; export it again."
        )
    if not image.allows(stated.size) and stated.takes is not Takes.PICTURES:
        raise ModelFileError(
            f"{path} says that its pictures are of {size_in_words(stated.size)} pixels, and its input is of "
            f"{_sides_in_words(image)}; export it again."
        )


def _sides_in_words(image: ImageInput) -> str:
    return "×".join("any" if side is None else str(side) for side in (image.height, image.width))


def state_preprocessing(model: ir.Model, preprocessing: Preprocessing) -> None:
    """Write ``preprocessing``, such as that of :func:`preprocessing_of`, into the model's metadata."""
    replace(Metadata.of(model), preprocessing=preprocessing).write_to(model)


def _type_in_words(value: ir.Value) -> str:
    kind = dtype_name(value)
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        return f"{type(value.type).__name__.removesuffix('Type').lower()} of {kind}"
    if value.shape is None:
        return f"{kind} of unknown shape"
    sizes = ", ".join(map(str, value.shape)).replace("None", "?")
    return f"{kind} of shape ({sizes})"
