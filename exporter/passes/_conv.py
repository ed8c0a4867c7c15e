"""The weights of a convolution or a linear layer, for the passes that fold something into them.

A linear layer is a MatMul, x B, or a Gemm, α x B + β C, whose weight here is α B, and whose bias is β C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rexport.passes._graph import (
    constant,
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
    """Return what a user calls the layer."""
    return "linear layer" if is_op(layer, *_LINEAR) else "convolution"


def pads(conv: ir.Node) -> bool:
    """Say whether a convolution reads zeros around its picture."""
    return pads_the_same(conv) or any(conv.attributes.get_ints("pads", []))


def pads_the_same(conv: ir.Node) -> bool:
    """Say whether a convolution pads by as much as keeps the size, whatever that is."""
    return conv.attributes.get_string("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")


def why_not_foldable(layer: ir.Node) -> str | None:
    """Return why the weight and the bias of a layer can't be changed, or ``None`` if they can.

    The weight must be its own; a bias that others read too stays for them.
    """
    kind = kind_of(layer)
    weight, bias = layer.inputs[1], layer.inputs[2] if len(layer.inputs) > 2 else None
    why = why_not_constant(weight, f"{kind}'s weight")
    if why is None and weight is not None:
        why = why_not_exclusive(weight, f"{kind}'s weight")
    if why is None and bias is not None:
        why = why_not_constant(bias, f"{kind}'s bias") or _why_not_per_output(layer, bias)
    return why


def weights_of(layer: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight as it is stored, and the bias of shape ``(O,)`` (zeros if there is none), in float64."""
    weight = constant(layer.inputs[1])
    assert weight is not None
    bias = constant(layer.inputs[2]) if len(layer.inputs) > 2 else None
    outputs = _outputs(layer, weight)
    weight, bias = weight.astype(np.float64), np.zeros(outputs) if bias is None else bias.astype(np.float64)
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
    dtype = _dtype(layer)
    if all(np.isfinite(_rounded(array, dtype)).all() for array in weights):
        return None
    return f"folded into the {kind_of(layer)}, its parameters give weights that {dtype} can't hold"


def set_weights(layer: ir.Node, weight: np.ndarray, bias: np.ndarray, *, name: str) -> None:
    """Give a layer new weights, in the dtype of the old; ``name`` is the layer's, for new initializers."""
    dtype = _dtype(layer)
    replace_initializer(layer, 1, _rounded(weight, dtype), name=f"{name}.weight")
    replace_initializer(layer, 2, _rounded(bias, dtype), name=f"{name}.bias")
    for factor in ("alpha", "beta"):  # a Gemm's, which are in the weights now
        layer.attributes.pop(factor, None)


def _why_not_per_output(layer: ir.Node, bias: ir.Value) -> str | None:
    weight, array = constant(layer.inputs[1]), constant(bias)
    assert weight is not None
    assert array is not None
    shapes = ((_outputs(layer, weight),), *([(1, _outputs(layer, weight)), (1, 1), (1,), ()] * is_op(layer, *_LINEAR)))
    if array.shape in shapes:
        return None
    shape = shape_in_words(array.shape)
    return f"its {kind_of(layer)}'s bias {bias.name!r} has the shape {shape}, which is not one number per output"


def _outputs(layer: ir.Node, weight: np.ndarray) -> int:
    if is_op(layer, "ConvTranspose"):
        return int(weight.shape[1]) * int_attribute(layer, "group", 1)
    return int(weight.shape[1 if is_op(layer, *_LINEAR) and not int_attribute(layer, "transB", 0) else 0])


def _dtype(layer: ir.Node) -> np.dtype[Any]:
    weight = constant(layer.inputs[1])
    assert weight is not None
    return weight.dtype


def _rounded(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    with np.errstate(all="ignore"):  # what is too large becomes infinite, which the check reports
        return array.astype(dtype)
