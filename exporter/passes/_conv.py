"""The weights of a convolution or a linear layer, for the passes that fold something into them.

A linear layer is a MatMul, x B, or a Gemm, α x B + β C, whose weight here is α B, and whose bias is β C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rexport.passes._graph import (
    constant,
    contents_of,
    input_at,
    int_attribute,
    is_op,
    replace_initializer,
    shape_in_words,
    why_not_constant,
    why_not_exclusive,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "is_linear_layer",
    "kind_of",
    "pads",
    "pads_the_same",
    "scaled",
    "set_weights",
    "weights_of",
    "why_not_foldable",
    "why_not_storable",
]

_LINEAR = ("Gemm", "MatMul")


def kind_of(layer: ir.Node) -> str:
    """Return the layer's kind, as a user calls it."""
    return "linear layer" if is_op(layer, *_LINEAR) else "convolution"


def is_linear_layer(gemm: ir.Node) -> bool:
    """Say whether a Gemm with a constant weight computes x · Wᵀ + b, b one number per output: PyTorch's Linear."""
    factors = [gemm.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    transposed = [int_attribute(gemm, name, 0) for name in ("transA", "transB")]
    weight, bias = contents_of(gemm.inputs[1]), constant(input_at(gemm, 2))
    return factors == [1.0, 1.0] and transposed == [0, 1] and (bias is None or bias.shape == weight.shape[:1])


def pads(conv: ir.Node) -> bool:
    """Say whether a convolution reads zeros around its picture."""
    return pads_the_same(conv) or any(conv.attributes.get_ints("pads", []))


def pads_the_same(conv: ir.Node) -> bool:
    """Say whether a convolution works out its own padding, so that the picture keeps its size (``auto_pad``)."""
    return conv.attributes.get_string("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")


def why_not_foldable(layer: ir.Node) -> str | None:
    """Return why the weight and the bias of a layer can't be changed, or ``None`` if they can.

    The weight must be its own; a bias that other layers share stays for them.
    """
    kind, weight, bias = kind_of(layer), layer.inputs[1], input_at(layer, 2)
    refusal = why_not_constant(weight, f"{kind}'s weight") or why_not_exclusive(weight, f"{kind}'s weight")
    if bias is None:
        return refusal
    return refusal or why_not_constant(bias, f"{kind}'s bias") or _why_not_per_output(layer, bias)


def weights_of(layer: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight as it is stored, and the bias of shape ``(O,)`` (zeros if there is none), in float64."""
    weight, bias = contents_of(layer.inputs[1]).astype(np.float64), constant(input_at(layer, 2))
    outputs = _outputs(layer, weight)
    bias = np.zeros(outputs) if bias is None else bias.astype(np.float64)
    if is_op(layer, *_LINEAR):
        weight = weight * layer.attributes.get_float("alpha", 1.0)
        bias = np.broadcast_to(bias.reshape(-1) * layer.attributes.get_float("beta", 1.0), outputs)
    return weight, bias


def scaled(layer: ir.Node, weight: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return the ``weight`` of a layer whose ``O`` outputs are multiplied ``by`` a number each."""
    if is_op(layer, "Conv"):  # (O, inputs of a group, ...)
        by = by.reshape(-1, *[1] * (weight.ndim - 1))
    elif is_op(layer, "ConvTranspose"):  # (groups · inputs of a group, outputs of a group, ...)
        groups = int_attribute(layer, "group", 1)
        by = by.reshape(groups, 1, -1).repeat(weight.shape[0] // groups, axis=1)
        by = by.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
    elif int_attribute(layer, "transB", 0):
        by = by.reshape(-1, 1)
    with np.errstate(invalid="ignore"):  # weights that are not finite stay so, which the check reports
        return np.asarray(weight * by)


def why_not_storable(layer: ir.Node, *weights: np.ndarray) -> str | None:
    """Return why new float64 ``weights`` do not fit the dtype of the old, or ``None`` if they do."""
    dtype = contents_of(layer.inputs[1]).dtype
    if all(np.isfinite(_rounded(array, dtype)).all() for array in weights):
        return None
    return f"folded into the {kind_of(layer)}, its parameters give weights that {dtype} can't hold"


def set_weights(layer: ir.Node, weight: np.ndarray, bias: np.ndarray, *, name: str) -> None:
    """Give a layer new weights, in the dtype of the old; ``name`` is the layer's, for new initializers."""
    dtype = contents_of(layer.inputs[1]).dtype
    replace_initializer(layer, 1, _rounded(weight, dtype), name=f"{name}.weight")
    replace_initializer(layer, 2, _rounded(bias, dtype), name=f"{name}.bias")
    for factor in ("alpha", "beta"):  # a Gemm's, which are in the weights now
        layer.attributes.pop(factor, None)


def _why_not_per_output(layer: ir.Node, bias: ir.Value) -> str | None:
    outputs, sizes = _outputs(layer, contents_of(layer.inputs[1])), contents_of(bias).shape
    if sizes == (outputs,) or (is_op(layer, *_LINEAR) and sizes in ((1, outputs), (1, 1), (1,), ())):
        return None
    shape = shape_in_words(sizes)
    return f"its {kind_of(layer)}'s bias {bias.name!r} has the shape {shape}, which is not one number per output"


def _outputs(layer: ir.Node, weight: np.ndarray) -> int:
    if is_op(layer, "ConvTranspose"):
        return int(weight.shape[1]) * int_attribute(layer, "group", 1)
    axis = 1 if is_op(layer, *_LINEAR) and not int_attribute(layer, "transB", 0) else 0
    return int(weight.shape[axis])


def _rounded(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    with np.errstate(all="ignore"):  # what is too large becomes infinite, which the check reports
        return array.astype(dtype)
