"""The first convolutions take pictures as a camera gives them, uint8 of shape (N, H, W, 3), and normalise them.

DequantizeLinear makes a real number of a pixel q, r = s (q − z) with s = 1/255 and a zero point z, of which the
network's input is an affine map per channel:

    (q / 255 − mean) / std  =  a r + c        a = 1 / (255 s std),   c = (z / 255 − mean) / std

It goes into the weights of every convolution that reads the picture. Where none of them pads, c goes into their biases:

    W ∗ (a r + c) + b  =  (W a) ∗ r + (b + Σ W c)

Otherwise the picture gets a fourth channel of the one pixel v, which is (v − z) s inside and, as padding is zero, 0 in
the padding: with that, the borders are exact too (see ``_border``). z is the mean as a gray, so that c is small and the
fourth channel's weights do not coarsen the scales of INT8; v is black or white, whichever is farther from it.

    uint8 (N, H, W, 3) → Transpose → [Concat with v] → DequantizeLinear → Conv …

In INT8 the pixels are thus the quantized tensor themselves, and nothing computes before the first convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport._errors import ModelFileError
from rexport.model_file import Metadata, image_input, with_opset
from rexport.passes._batch_norm import Affine
from rexport.passes._border import with_channel_of_ones
from rexport.passes._builder import Builder
from rexport.passes._conv import pads, set_weights, weights_of, why_not_foldable, why_not_storable
from rexport.passes._graph import (
    int_attribute,
    is_op,
    name_of,
    remembered_names,
    replace_initializer,
)
from rexport.preprocessing import Takes

if TYPE_CHECKING:
    from collections.abc import Callable

    from rexport.preprocessing import Preprocessing

__all__ = ["are_whole_pixels", "with_raw_images", "with_whole_pixels"]

_OPSET = 10  # of DequantizeLinear
_SCALE = np.float32(1 / 255)
_CHANNELS = 3
_NEARLY = 0.02  # of a pixel's levels: float32 rounds a normalised picture by far less
_UINT8 = ir.DataType.UINT8


@dataclass(frozen=True)
class _Normalisation:
    """The ``affine`` map of what DequantizeLinear makes of pixels with this ``zero_point``."""

    affine: Affine
    zero_point: int

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> _Normalisation:
        mean, std = np.array(preprocessing.mean, np.float64), np.array(preprocessing.std, np.float64)
        zero_point = int(np.clip(np.rint(255 * mean.mean()), 0, 255))
        return cls(Affine(1 / (255 * float(_SCALE) * std), (zero_point / 255 - mean) / std), zero_point)

    @property
    def constant_pixel(self) -> int:
        """The pixel of the additional channel."""
        return 255 if self.zero_point < 128 else 0

    @property
    def one(self) -> float:
        """What DequantizeLinear makes of it."""
        return (self.constant_pixel - self.zero_point) * float(_SCALE)


def with_raw_images(model: ir.Model, preprocessing: Preprocessing) -> ir.Model:
    """Return a copy of ``model`` that takes uint8 pictures and normalises them itself, exactly.

    Args:
        model: A float model with one image input, which convolutions read; fuse it first (see :func:`rexport.fuse`).
        preprocessing: Its ``mean`` and ``std`` go into the convolutions, and all of it into the metadata.

    Raises:
        ModelFileError: Something else than a convolution reads the images, or its weights can't be changed.
    """
    if image_input(model).raw:
        raise ModelFileError("The model takes raw images already.")
    changed = with_opset(model, at_least=_OPSET).clone()
    graph = changed.graph
    index, images = _images(changed)
    name = str(images.name)

    def camera(builder: Builder) -> ir.Value:
        images.name = None
        pixels = ir.Value(name=name, shape=_channels_last(images), type=ir.TensorType(_UINT8))
        graph.inputs[index] = pixels
        return _channels_first(builder, pixels)

    planes = _read_pixels(graph, images, preprocessing, camera)
    ir.convenience.replace_all_uses_with(images, planes)  # what is left asks for their shape
    stated = replace(preprocessing, takes=Takes.PIXELS)
    replace(Metadata.of(changed), preprocessing=stated).write_to(changed)
    return changed


def with_whole_pixels(model: ir.Model, preprocessing: Preprocessing) -> ir.Model:
    """Return a copy of ``model`` that takes the same normalised images and makes the pixels of them that they were.

        q = round(x · 255 std) + round(255 mean)

    per channel, by one QuantizeLinear: nothing is lost of a picture, where one scale for all channels would round it.

    Args:
        model: A float model with one image input, which convolutions read, of opset 13 or later.
        preprocessing: How its images were normalised.

    Raises:
        ModelFileError: Something else than a convolution reads the images, or its weights can't be changed.
    """
    if image_input(model).raw:
        raise ModelFileError("The model takes raw images already.")
    changed = model.clone()
    _, images = _images(changed)
    mean, std = np.array(preprocessing.mean, np.float64), np.array(preprocessing.std, np.float64)

    def rounded(builder: Builder) -> ir.Value:
        assert images.shape is not None
        scale = builder.constant("pixel_scale", (1 / (255 * std)).astype(np.float32))
        zero_point = builder.constant("pixel_zero_point", np.rint(255 * mean).astype(np.uint8))
        inputs = [images, scale, zero_point]
        return builder.node("QuantizeLinear", inputs, "pixels", shape=list(images.shape), dtype=_UINT8, axis=1)

    _read_pixels(changed.graph, images, preprocessing, rounded)
    return changed


def are_whole_pixels(images: np.ndarray, preprocessing: Preprocessing) -> bool:
    """Say whether normalised ``images``, float32 of shape ``(N, 3, S, S)``, are pixels that rounding surely finds."""
    mean, std = (np.array(numbers, np.float64).reshape(-1, 1, 1) for numbers in (preprocessing.mean, preprocessing.std))
    levels = 255 * (images * std + mean)
    whole = np.abs(levels - np.rint(levels)).max() < _NEARLY and levels.min() > -1 and levels.max() < 256
    return bool(whole) and bool((np.abs(255 * mean % 1 - 0.5) > _NEARLY).all())  # else x · 255 std lies between two


def _images(model: ir.Model) -> tuple[int, ir.Value]:
    """Return the image input, and the place that it has among the inputs."""
    name = image_input(model).name
    return next((i, value) for i, value in enumerate(model.graph.inputs) if value.name == name)


def _read_pixels(
    graph: ir.Graph, images: ir.Value, preprocessing: Preprocessing, planes_of: Callable[[Builder], ir.Value]
) -> ir.Value:
    """Let the convolutions read pixels, uint8 planes that ``planes_of`` makes, in the place of ``images``."""
    name = str(images.name)
    convolutions = _readers(images)
    normalisation = _Normalisation.of(preprocessing)
    padded = any(map(pads, convolutions)) and bool(normalisation.affine.shift.any())
    folded = {conv: _folded(conv, normalisation, padded=padded) for conv in convolutions}
    for conv, weights in folded.items():
        _require(conv, why_not_storable(conv, *weights))
    with remembered_names(graph):
        builder = Builder(graph, before=graph[0], prefix=name)
        planes = planes_of(builder)
        dequantized = _dequantized(builder, planes, normalisation, padded=padded)
        for conv, (weight, bias) in folded.items():
            result = str(conv.outputs[0].name)
            if padded:  # the bias, if there is one, stays
                replace_initializer(conv, 1, weight.astype(np.float32), name=f"{result}.weight")
            else:
                set_weights(conv, weight, bias, name=result)
            conv.replace_input_with(0, dequantized)
    return planes


def _readers(images: ir.Value) -> list[ir.Node]:
    """Return the convolutions that read the images; that nothing else does, but to know their shape, is checked."""
    if images.is_graph_output():
        raise ModelFileError(f"The images {images.name!r} are an output of the model too, and can't become uint8.")
    readers = [(node, index) for node, index in images.uses() if not is_op(node, "Shape")]
    for node, index in readers:
        _require(node, None if is_op(node, "Conv") else f"it is a {node.op_type} node")
        _require(node, "it takes them for weights" if index else None)
        _require(node, "it has groups" if int_attribute(node, "group", 1) != 1 else why_not_foldable(node))
    return [node for node, _ in readers]


def _require(reader: ir.Node, why_not: str | None) -> None:
    if why_not is not None:
        raise ModelFileError(
            "Raw images are normalised by the weights of the convolutions that read them, and "
            f"{name_of(reader)} can't do it: {why_not}."
        )


def _folded(conv: ir.Node, normalisation: _Normalisation, *, padded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the convolution's new weight and its bias, in float64."""
    weight, bias = weights_of(conv)
    affine = normalisation.affine
    if padded:
        return with_channel_of_ones(weight, affine, one=normalisation.one), bias
    return weight * affine.scale.reshape(1, -1, 1, 1), bias + weight.sum(axis=(2, 3)) @ affine.shift


def _channels_last(images: ir.Value) -> ir.Shape:
    assert images.shape is not None
    batch, channels, height, width = images.shape
    return ir.Shape([batch, height, width, channels])


def _channels_first(builder: Builder, pixels: ir.Value) -> ir.Value:
    assert pixels.shape is not None
    batch, height, width, channels = pixels.shape
    shape = [batch, channels, height, width]
    return builder.node("Transpose", [pixels], "channels_first", shape=shape, dtype=_UINT8, perm=[0, 3, 1, 2])


def _dequantized(builder: Builder, planes: ir.Value, normalisation: _Normalisation, *, padded: bool) -> ir.Value:
    """Return what the convolutions read of ``planes``, of three channels or, ``padded``, of four."""
    assert planes.shape is not None
    shape = list(planes.shape)
    if padded:
        constant = _constant_channel(builder, planes, normalisation.constant_pixel)
        shape[1] = _CHANNELS + 1
        planes = builder.node("Concat", [planes, constant], "with_constant", shape=shape, dtype=_UINT8, axis=1)
    scale = builder.constant("scale", np.asarray(_SCALE))
    zero_point = builder.constant("zero_point", np.asarray(normalisation.zero_point, np.uint8))
    inputs = [planes, scale, zero_point]
    return builder.node("DequantizeLinear", inputs, "dequantized", shape=shape, dtype=ir.DataType.FLOAT)


def _constant_channel(builder: Builder, planes: ir.Value, pixel: int) -> ir.Value:
    """Return a channel of that one pixel for each picture, of shape ``(N, 1, H, W)``.

    It is computed from the shape of the pictures where that is open. Pad, the obvious operator, takes ONNX Runtime 0.26
    ms for a picture of 224×224, and a Concat next to nothing.
    """
    assert planes.shape is not None
    batch, _, height, width = planes.shape
    fill = np.array([pixel], np.uint8)
    sizes = [batch, 1, height, width]
    static = [size for size in sizes if isinstance(size, int)]
    if len(static) == len(sizes):
        return builder.constant("constant", np.full(static, fill))
    whole = builder.node("Shape", [planes], "shape", shape=[4], dtype=ir.DataType.INT64)

    def part(name: str, start: int, stop: int, values: list[int | ir.SymbolicDim]) -> ir.Value:
        known = [value for value in values if isinstance(value, int)]
        if len(known) == len(values):
            return builder.constant(name, np.array(known))
        bounds = [builder.constant(f"{name}_{end}", np.array([at])) for end, at in (("start", start), ("stop", stop))]
        return builder.node("Slice", [whole, *bounds], name, shape=[stop - start], dtype=ir.DataType.INT64)

    parts = [
        part("batch", 0, 1, [batch]),
        builder.constant("one_channel", np.array([1])),
        part("size", 2, 4, [height, width]),
    ]
    target = builder.node("Concat", parts, "constant_shape", shape=[4], dtype=ir.DataType.INT64, axis=0)
    return builder.node("ConstantOfShape", [target], "constant", shape=sizes, dtype=_UINT8, value=ir.tensor(fill))
