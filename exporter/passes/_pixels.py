"""Convolutions that read pixels: how they normalise them, and which ones can.

DequantizeLinear maps a pixel q to r = s (q − z), with s = 1/255 and a zero point z. The network's input is an affine
map of r per channel:

    (q / 255 − mean) / std  =  a r + c        a = 1 / (255 s std),   c = (z / 255 − mean) / std

a goes into the weights of every convolution that reads the picture. Where none of them pads, c goes into their biases:

    W ∗ (a r + c) + b  =  (W a) ∗ r + (b + Σ W c)

z is the mean as a gray level, so that c is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport._errors import ModelFileError
from rexport.model_inputs import image_input
from rexport.passes._batch_norm import Affine
from rexport.passes._conv import set_weights, weights_of, why_not_foldable, why_not_storable
from rexport.passes._graph import int_attribute, is_op, name_of, shape_of

if TYPE_CHECKING:
    from rexport.passes._builder import Builder
    from rexport.preprocessing import Preprocessing

__all__ = ["SCALE", "Normalisation", "dequantized", "images_of", "into_bias", "readers_of", "require"]

SCALE = np.float32(1 / 255)
"""The size of one of a pixel's 256 levels."""


@dataclass(frozen=True)
class Normalisation:
    """The ``affine`` map of pixels that DequantizeLinear read with this ``zero_point``."""

    affine: Affine
    zero_point: int

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> Normalisation:
        """Return the normalisation that ``preprocessing`` does."""
        mean, std = np.array(preprocessing.mean, np.float64), np.array(preprocessing.std, np.float64)
        zero_point = int(np.clip(np.rint(255 * mean.mean()), 0, 255))
        return cls(Affine(1 / (255 * float(SCALE) * std), (zero_point / 255 - mean) / std), zero_point)


def images_of(model: ir.Model) -> tuple[int, ir.Value]:
    """Return the input of normalised pictures, and its index among the model's inputs.

    Raises:
        ModelFileError: It takes pixels.
    """
    image = image_input(model)
    if image.raw:
        raise ModelFileError("The model takes raw images already.")
    return next((i, value) for i, value in enumerate(model.graph.inputs) if value.name == image.name)


def readers_of(images: ir.Value) -> list[ir.Node]:
    """Return the convolutions that read the images.

    Raises:
        ModelFileError: Anything else reads them, but for their shape, or one of the convolutions can't normalise them.
    """
    if images.is_graph_output():
        raise ModelFileError(f"The images {images.name!r} are an output of the model too, and can't become uint8.")
    readers = [(node, index) for node, index in images.uses() if not is_op(node, "Shape")]
    for node, index in readers:
        require(node, _why_not_normalising(node, index))
    return [node for node, _ in readers]


def _why_not_normalising(reader: ir.Node, index: int) -> str | None:
    if not is_op(reader, "Conv"):
        return f"it is a {reader.op_type} node"
    if index:
        return "it takes them for weights"
    if int_attribute(reader, "group", 1) != 1:
        return "it has groups"
    return why_not_foldable(reader)


def require(reader: ir.Node, why_not: str | None) -> None:
    """Raise a ModelFileError if there is a reason why a convolution can't normalise pixels."""
    if why_not is not None:
        raise ModelFileError(
            "Raw images are normalised by the weights of the convolutions that read them, and "
            f"{name_of(reader)} can't do it: {why_not}."
        )


def dequantized(builder: Builder, planes: ir.Value, normalisation: Normalisation) -> ir.Value:
    """Return r for pixels, uint8 of shape ``(N, C, H, W)``."""
    scale = builder.constant("scale", np.asarray(SCALE))
    zero_point = builder.constant("zero_point", np.asarray(normalisation.zero_point, np.uint8))
    inputs = [planes, scale, zero_point]
    return builder.node("DequantizeLinear", inputs, "dequantized", shape=shape_of(planes), dtype=ir.DataType.FLOAT)


def into_bias(conv: ir.Node, normalisation: Normalisation) -> None:
    """Let a convolution that does not pad read r instead of the network's input."""
    affine, (weight, bias) = normalisation.affine, weights_of(conv)
    folded = weight * affine.scale.reshape(1, -1, 1, 1), bias + weight.sum(axis=(2, 3)) @ affine.shift
    require(conv, why_not_storable(conv, *folded))
    set_weights(conv, *folded, name=str(conv.outputs[0].name))
