"""A model of raw images takes pictures of any height and width, and resizes and cuts them itself.

A picture of sides H and W is resized so that its shorter side has R pixels, and its middle S × S is cut out:

    (h, w) = ⌊R (H, W) / min(H, W)⌋        top = round((h − S) / 2),  left = round((w − S) / 2)

in integers, rounding halves to even: (d + (⌊d/2⌋ mod 2)) / 2 for d = h − S. :class:`rexport.Preprocessing` does the
same, and so do torchvision's Resize and CenterCrop. The filter is a triangle or Keys' cubic of a = −½, as wide as the
reduction, and cut off at the borders (``antialias``, ``exclude_outside``), as in Pillow's ``BILINEAR`` and ``BICUBIC``:
one pass along the rows and one along the columns, each rounded to whole grey levels.

    uint8 (N, H, W, 3) → Resize → Slice → the model
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from rexport._errors import ModelFileError, UsageError
from rexport.model_file import Metadata, default_opset
from rexport.model_inputs import image_input
from rexport.passes._builder import Builder
from rexport.passes._graph import is_op, producer_of, remembered_names, shape_of
from rexport.preprocessing import Interpolation, Takes, sides_of, size_in_words

if TYPE_CHECKING:
    from rexport.preprocessing import Preprocessing

__all__ = ["cut_pixels", "require_resizing", "with_resize"]

_OPSET = 18  # of Resize with antialias
_UINT8, _INT64 = ir.DataType.UINT8, ir.DataType.INT64
_SIDES = (1, 2)  # the axes of height and width
_FILTERS: dict[Interpolation, dict[str, Any]] = {
    Interpolation.BILINEAR: {"mode": "linear"},
    Interpolation.BICUBIC: {"mode": "cubic", "cubic_coeff_a": -0.5},
}


def require_resizing(preprocessing: Preprocessing, opset: int) -> None:
    """Raise UsageError if there is no size to resize to, or no operator for it, in the opset or for transparency."""
    if not isinstance(preprocessing.resize, int):
        size = preprocessing.size
        way = "as they are" if preprocessing.resize is None else "resized whatever their shape"
        raise UsageError(
            f"The model takes pictures of {size_in_words(size)} {way}; pass --resize {max(sides_of(size))}, say, for "
            "it to resize their shorter side itself."
        )
    if preprocessing.channels == 4:
        raise UsageError(
            "Pictures with transparency are resized with their colours weighted by it, which ONNX's Resize can't do; "
            "take pictures of one size, with --raw-image."
        )
    if opset < _OPSET:
        raise UsageError(f"Resizing in the graph takes opset {_OPSET}, and the model is of {opset}.")


def with_resize(model: ir.Model) -> ir.Model:
    """Return a copy of a model of raw images that takes whole pictures.

    Args:
        model: A model of raw images (see :func:`rexport.passes.raw_image.with_raw_images`), whose metadata says how
            pictures are resized and cut.

    Raises:
        ModelFileError: It takes no raw images.
        UsageError: As for :func:`require_resizing`.
    """
    image, preprocessing = image_input(model), Metadata.of(model).preprocessing
    if preprocessing is None or preprocessing.takes is not Takes.PIXELS:
        raise ModelFileError("The model does not take raw images of one size, so it can't resize pictures itself.")
    require_resizing(preprocessing, default_opset(model))
    changed = model.clone()
    graph = changed.graph
    index, pixels = next((i, value) for i, value in enumerate(graph.inputs) if value.name == image.name)
    pixels.name = None
    with remembered_names(graph):
        shape = ir.Shape([shape_of(pixels)[0], "height", "width", preprocessing.channels])
        pictures = ir.Value(name=image.name, shape=shape, type=ir.TensorType(_UINT8))
        graph.inputs[index] = pictures
        cut = _cut(Builder(graph, before=graph[0], prefix=image.name), pictures, preprocessing)
        ir.convenience.replace_all_uses_with(pixels, cut)
    replace(Metadata.of(changed), preprocessing=replace(preprocessing, takes=Takes.PICTURES)).write_to(changed)
    return changed


def cut_pixels(model: ir.Model) -> ir.Value:
    """Return the resized and cut pixels in a model of :func:`with_resize`, uint8 of shape ``(N, H, W, C)``."""
    return next(
        node.outputs[0]
        for node in model.graph
        if is_op(node, "Slice") and producer_of(node.inputs[0], "Resize") is not None
    )


def _cut(builder: Builder, pictures: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    """Resize ``pictures`` and return the middle of them."""
    batch, (height, width, channels) = shape_of(pictures)[0], preprocessing.shape

    def number(name: str, *values: int | None) -> ir.Value:
        return builder.constant(name, np.array(values))

    def compute(
        op_type: str, inputs: list[ir.Value], name: str, *, length: int = len(_SIDES), **attributes: int
    ) -> ir.Value:
        return builder.node(op_type, inputs, name, shape=[length], dtype=_INT64, **attributes)

    resize = preprocessing.resize
    assert isinstance(resize, int)  # see require_resizing
    two, crop = number("two", 2), number("size", height, width)
    shape = compute("Shape", [pictures], "shape", length=4)
    sides = compute("Slice", [shape, number("first_side", 1), number("behind_sides", 3)], "sides")
    shorter = compute("ReduceMin", [sides], "shorter_side", length=1, keepdims=1)
    scaled = compute("Mul", [sides, number("resize", resize)], "scaled_sides")
    target = compute("Div", [scaled, shorter], "resized_sides")
    resized = builder.node(
        "Resize",
        [pictures, None, None, target],
        "resized",
        shape=[batch, None, None, channels],
        dtype=_UINT8,
        axes=_SIDES,
        **_FILTERS[preprocessing.interpolation],
        antialias=1,
        exclude_outside=1,
    )
    margin = compute("Sub", [target, crop], "rest")
    odd = compute("Mod", [compute("Div", [margin, two], "half_rest"), two], "half_is_odd")
    start = compute("Div", [compute("Add", [margin, odd], "even_rest"), two], "start")
    end = compute("Add", [start, crop], "end")
    axes = number("side_axes", *_SIDES)
    return builder.node(
        "Slice", [resized, start, end, axes], "cut", shape=[batch, height, width, channels], dtype=_UINT8
    )
