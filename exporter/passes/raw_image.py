"""The first convolutions take pictures as a camera gives them, uint8 of shape (N, H, W, 3), and normalise them.

See ``_pixels`` for the arithmetic. Where one of them pads, c can't go into its bias; the picture gets a fourth channel
of a constant pixel v, which is (v − z) s inside the picture and, as padding is zero, 0 in the padding: so the borders
are exact too (see ``_border``). As c is small, the fourth channel's weights do not coarsen the scales of INT8; v is
black or white, whichever is farther from z.

    uint8 (N, H, W, 3) → Transpose → [Concat with v] → DequantizeLinear → Conv …

In INT8 the pixels themselves are the quantized tensor, and nothing computes before the first convolution.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from rexport.model_file import Metadata
from rexport.passes._border import with_constant_channel
from rexport.passes._builder import Builder
from rexport.passes._conv import pads, weights_of, why_not_storable
from rexport.passes._graph import remembered_names, replace_initializer, shape_of
from rexport.passes._pixels import SCALE, Normalisation, dequantized, images_of, into_bias, readers_of, require
from rexport.passes.raise_opset import raise_opset
from rexport.preprocessing import Preprocessing, Takes

__all__ = ["with_raw_images"]

_OPSET = 10  # of DequantizeLinear
_UINT8 = ir.DataType.UINT8


def with_raw_images(model: ir.Model, preprocessing: Preprocessing) -> ir.Model:
    """Return a copy of ``model`` that takes uint8 pictures and normalises them itself, exactly.

    Args:
        model: A float model with one image input, which convolutions read; fuse it first (see
            :func:`rexport.passes.fuse`).
        preprocessing: Its ``mean`` and ``std`` go into the convolutions, and all of it into the metadata.

    Raises:
        ModelFileError: Anything but convolutions whose weights can be changed reads the images.
    """
    changed = raise_opset(model, at_least=_OPSET).clone()
    graph = changed.graph
    index, images = images_of(changed)
    convolutions = readers_of(images)
    normalisation = Normalisation.of(preprocessing)
    padded = any(map(pads, convolutions)) and bool(normalisation.affine.shift.any())
    name, images.name = str(images.name), None
    pixels = ir.Value(name=name, shape=_channels_last(images), type=ir.TensorType(_UINT8))
    graph.inputs[index] = pixels
    with remembered_names(graph):
        builder = Builder(graph, before=graph[0], prefix=name)
        planes = _channels_first(builder, pixels)
        constant = 255 if normalisation.zero_point < 128 else 0
        channels = _with_constant(builder, planes, constant) if padded else planes
        read = dequantized(builder, channels, normalisation)
        for conv in convolutions:
            if padded:  # the bias, if there is one, stays
                _read_four_channels(conv, normalisation, constant)
            else:
                into_bias(conv, normalisation)
            conv.replace_input_with(0, read)
    ir.convenience.replace_all_uses_with(images, planes)  # the Shape nodes, which are the remaining readers
    preprocessing = replace(preprocessing, takes=Takes.PIXELS, layout=None)
    replace(Metadata.of(changed), preprocessing=preprocessing).write_to(changed)
    return changed


def _read_four_channels(conv: ir.Node, normalisation: Normalisation, constant: int) -> None:
    value = (constant - normalisation.zero_point) * float(SCALE)
    weight = with_constant_channel(weights_of(conv)[0], normalisation.affine, value=value)
    require(conv, why_not_storable(conv, weight))
    replace_initializer(conv, 1, weight.astype(np.float32), name=f"{conv.outputs[0].name}.weight")


def _channels_last(images: ir.Value) -> ir.Shape:
    batch, channels, height, width = shape_of(images)
    return ir.Shape([batch, height, width, channels])


def _channels_first(builder: Builder, pixels: ir.Value) -> ir.Value:
    batch, height, width, channels = shape_of(pixels)
    shape = [batch, channels, height, width]
    return builder.node("Transpose", [pixels], "channels_first", shape=shape, dtype=_UINT8, perm=[0, 3, 1, 2])


def _with_constant(builder: Builder, planes: ir.Value, pixel: int) -> ir.Value:
    batch, channels, *sides = shape_of(planes)
    assert isinstance(channels, int)
    shape, inputs = [batch, channels + 1, *sides], [planes, _constant_channel(builder, planes, pixel)]
    return builder.node("Concat", inputs, "with_constant", shape=shape, dtype=_UINT8, axis=1)


def _constant_channel(builder: Builder, planes: ir.Value, pixel: int) -> ir.Value:
    """Return a channel of the constant ``pixel`` for each picture, of shape ``(N, 1, H, W)``.

    It is computed from the shape of the pictures where that is open. Pad, the obvious operator, takes ONNX Runtime 0.26
    ms for a picture of 224×224, and a Concat next to nothing.
    """
    batch, _, *sides = shape_of(planes)
    sizes = [batch, 1, *sides]
    static = [size for size in sizes if isinstance(size, int)]
    fill = np.array([pixel], np.uint8)
    if len(static) == len(sizes):
        return builder.constant("constant", np.full(static, fill))
    target = builder.sizes(sizes, like=planes)
    return builder.node("ConstantOfShape", [target], "constant", shape=sizes, dtype=_UINT8, value=ir.tensor(fill))
