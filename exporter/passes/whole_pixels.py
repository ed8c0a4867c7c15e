"""Normalised pictures are turned back into their pixels, for INT8: nothing of them is lost.

    q = round(x · 255 std) + round(255 mean)

per channel, by one QuantizeLinear, where one scale for all channels would round every pixel; mean and std go into the
convolutions that read them (see ``_pixels``).

Where a convolution pads, its zeros are pixels of the mean's colour, a different number in each channel, and a quantized
convolution pads with one number only. So strips of that colour are put around the picture, by two Concat nodes, and the
convolution pads no more:

    x → QuantizeLinear → Concat above, below → Concat left, right → DequantizeLinear → Conv without pads

Where the mean is gray, or zero, that number is the same for all channels, and the convolution pads with it.

For a picture of 224 × 224 this takes ONNX Runtime 35 µs, a Pad before the QuantizeLinear 50 µs (1 ms for eight
pictures, where the Concats take 0.3 ms). A channel that marks the picture's area, as for raw images, takes less by
itself, but adds a third to the stem's work: 0.4 ms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._builder import Builder
from rexport.passes._conv import pads_the_same
from rexport.passes._graph import remembered_names, shape_of
from rexport.passes._pixels import Normalisation, dequantized, images_of, into_bias, readers_of, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.preprocessing import Preprocessing

__all__ = ["are_whole_pixels", "with_whole_pixels"]

_NEARLY = 0.02  # of a pixel's level: float32 rounds a normalised picture by far less
_UINT8 = ir.DataType.UINT8
_NO_PADS = (0, 0, 0, 0)
_ROWS, _COLUMNS = 2, 3
_STRIPS = {_ROWS: "rows", _COLUMNS: "columns"}


def with_whole_pixels(model: ir.Model, preprocessing: Preprocessing) -> ir.Model:
    """Return a copy of ``model`` that takes the same normalised images and turns them back into pixels.

    Args:
        model: A float model with one image input, which convolutions read, of opset 13 or later.
        preprocessing: How its images were normalised.

    Raises:
        ModelFileError: Anything but convolutions whose weights can be changed reads the images.
    """
    changed = model.clone()
    _, images = images_of(changed)
    convolutions = readers_of(images)
    normalisation = Normalisation.of(preprocessing)
    colour = np.rint(255 * np.array(preprocessing.mean)).astype(np.uint8)
    is_gray = bool((colour == normalisation.zero_point).all())  # which is what a quantized convolution pads with
    if not is_gray and (same := next(filter(pads_the_same, convolutions), None)):
        require(same, "it works out its own padding from the picture's size (auto_pad)")
    with remembered_names(changed.graph):
        builder = Builder(changed.graph, before=changed.graph[0], prefix=str(images.name))
        scale = builder.constant("pixel_scale", (1 / (255 * np.array(preprocessing.std))).astype(np.float32))
        inputs = [images, scale, builder.constant("pixel_zero_point", colour)]
        pixels = builder.node("QuantizeLinear", inputs, "pixels", shape=shape_of(images), dtype=_UINT8, axis=1)
        frame = _Frame(builder, pixels, colour)

        @cache
        def framed(pads: tuple[int, ...]) -> ir.Value:
            return dequantized(builder, frame.around(pads), normalisation)

        for conv in convolutions:
            pads: tuple[int, ...] = _NO_PADS
            into_bias(conv, normalisation)
            if not is_gray:
                pads = tuple(conv.attributes.get_ints("pads", _NO_PADS))
                conv.attributes.pop("pads", None)
            conv.replace_input_with(0, framed(pads))
    return changed


def are_whole_pixels(images: np.ndarray, preprocessing: Preprocessing) -> bool:
    """Say whether rounding surely recovers the pixels of normalised ``images``, float32 of shape ``(N, 3, S, S)``."""
    mean, std = (np.array(numbers, np.float64).reshape(-1, 1, 1) for numbers in (preprocessing.mean, preprocessing.std))
    levels = 255 * (images * std + mean)
    are_whole = np.abs(levels - np.rint(levels)).max() < _NEARLY and levels.min() > -1 and levels.max() < 256
    # a mean halfway between two levels puts x · 255 std there too
    return bool(are_whole) and bool((np.abs(255 * mean % 1 - 0.5) > _NEARLY).all())


@dataclass(frozen=True)
class _Frame:
    """Strips of a ``colour``, uint8 of shape ``(C,)``, around ``pixels``, uint8 of shape ``(N, C, H, W)``."""

    builder: Builder
    pixels: ir.Value
    colour: np.ndarray
    targets: dict[tuple[str, tuple[int, ...]], ir.Value] = field(default_factory=dict)
    """The sizes to expand strips to, by the tensor whose sizes they are and its open axes."""

    def around(self, pads: Sequence[int]) -> ir.Value:
        """Return the pixels with as many rows and columns around them as a Conv node of these ``pads`` would add."""
        rows = self._between(self.pixels, _ROWS, pads[0], pads[2])
        return self._between(rows, _COLUMNS, pads[1], pads[3])

    def _between(self, picture: ir.Value, axis: int, before: int, after: int) -> ir.Value:
        if not before and not after:
            return picture
        strips = {size: [self._strip(picture, axis, size)] for size in sorted({before, after} - {0})}
        parts = [*strips.get(before, []), picture, *strips.get(after, [])]
        shape: list[int | ir.SymbolicDim | None] = list(shape_of(picture))
        size = shape[axis]
        shape[axis] = size + before + after if isinstance(size, int) else None
        return self.builder.node("Concat", parts, f"with_{_STRIPS[axis]}", shape=shape, dtype=_UINT8, axis=axis)

    def _strip(self, picture: ir.Value, axis: int, size: int) -> ir.Value:
        """Return a strip that is ``size`` wide along an axis, and as long as the picture along the others."""
        sizes = list(shape_of(picture))
        sizes[axis] = size
        static = [size if isinstance(size, int) else 1 for size in sizes]
        strip = np.ascontiguousarray(np.broadcast_to(self.colour.reshape(1, -1, 1, 1), static))
        stored = self.builder.constant(_STRIPS[axis], strip)
        open_axes = tuple(index for index, size in enumerate(sizes) if not isinstance(size, int))
        if not open_axes:
            return stored
        inputs = [stored, self._target(picture, open_axes)]
        return self.builder.node("Expand", inputs, "strip", shape=sizes, dtype=_UINT8)

    def _target(self, picture: ir.Value, axes: tuple[int, ...]) -> ir.Value:
        """Return the picture's sizes along the ``axes``, and ones for the others."""
        source = self.pixels if axes == (0,) else picture  # the batch is the same, so strips can share a target
        key = (str(source.name), axes)
        if key not in self.targets:
            self.targets[key] = self.builder.sizes([None if axis in axes else 1 for axis in range(4)], like=source)
        return self.targets[key]
