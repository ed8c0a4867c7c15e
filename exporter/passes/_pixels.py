"""What convolutions that read pixels have in common: how they normalise them, and which can.

DequantizeLinear makes a real number of a pixel q, r = s (q − z) with s = 1/255 and a zero point z, of which the
network's input is an affine map per channel:

    (q / 255 − mean) / std  =  a r + c        a = 1 / (255 s std),   c = (z / 255 − mean) / std

It goes into the weights of every convolution that reads the picture. Where none of them pads, c goes into their biases:

    W ∗ (a r + c) + b  =  (W a) ∗ r + (b + Σ W c)

z is the mean as a gray, so that c is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport._errors import ModelFileError
from rexport.model_file import image_input
from rexport.passes._batch_norm import Affine
from rexport.passes._conv import set_weights, weights_of, why_not_foldable, why_not_storable
from rexport.passes._graph import int_attribute, is_op, name_of

if TYPE_CHECKING:
    from rexport.passes._builder import Builder
    from rexport.preprocessing import Preprocessing

__all__ = ["SCALE", "Normalisation", "dequantized", "images_of", "into_bias", "readers_of", "require"]

SCALE = np.float32(1 / 255)
"""What a level of a pixel is worth."""


@dataclass(frozen=True)
class Normalisation:
    """The ``affine`` map of what DequantizeLinear makes of pixels with this ``zero_point``."""

    affine: Affine
    zero_point: int

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> Normalisation:
        """Return the one that gives what ``preprocessing`` does."""
        mean, std = np.array(preprocessing.mean, np.float64), np.array(preprocessing.std, np.float64)
        zero_point = int(np.clip(np.rint(255 * mean.mean()), 0, 255))
        return cls(Affine(1 / (255 * float(SCALE) * std), (zero_point / 255 - mean) / std), zero_point)


def images_of(model: ir.Model) -> tuple[int, ir.Value]:
    """Return the image input of normalised pictures, and the place that it has among the inputs.

    Raises:
        ModelFileError: It takes pixels.
    """
    found = image_input(model)
    if found.raw:
        raise ModelFileError("The model takes raw images already.")
    return next((i, value) for i, value in enumerate(model.graph.inputs) if value.name == found.name)


def readers_of(images: ir.Value) -> list[ir.Node]:
    """Return the convolutions that read the images; that nothing else does, but to know their shape, is checked."""
    if images.is_graph_output():
        raise ModelFileError(f"The images {images.name!r} are an output of the model too, and can't become uint8.")
    readers = [(node, index) for node, index in images.uses() if not is_op(node, "Shape")]
    for node, index in readers:
        require(node, None if is_op(node, "Conv") else f"it is a {node.op_type} node")
        require(node, "it takes them for weights" if index else None)
        require(node, "it has groups" if int_attribute(node, "group", 1) != 1 else why_not_foldable(node))
    return [node for node, _ in readers]


def require(reader: ir.Node, why_not: str | None) -> None:
    """Raise a ModelFileError if there is a reason why a convolution can't normalise pixels."""
    if why_not is not None:
        raise ModelFileError(
            "Raw images are normalised by the weights of the convolutions that read them, and "
            f"{name_of(reader)} can't do it: {why_not}."
        )


def dequantized(builder: Builder, planes: ir.Value, normalisation: Normalisation) -> ir.Value:
    """Return r of pixels in planes, uint8 of shape ``(N, C, H, W)``."""
    assert planes.shape is not None
    scale = builder.constant("scale", np.asarray(SCALE))
    zero_point = builder.constant("zero_point", np.asarray(normalisation.zero_point, np.uint8))
    return builder.node(
        "DequantizeLinear",
        [planes, scale, zero_point],
        "dequantized",
        shape=list(planes.shape),
        dtype=ir.DataType.FLOAT,
    )


def into_bias(conv: ir.Node, normalisation: Normalisation) -> None:
    """Let a convolution that does not pad read r in the place of the network's input."""
    affine, (weight, bias) = normalisation.affine, weights_of(conv)
    folded = weight * affine.scale.reshape(1, -1, 1, 1), bias + weight.sum(axis=(2, 3)) @ affine.shift
    require(conv, why_not_storable(conv, *folded))
    set_weights(conv, *folded, name=str(conv.outputs[0].name))
