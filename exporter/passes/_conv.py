"""The weights of a convolution, for the passes that fold something into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rexport.passes._graph import constant, replace_initializer, why_not_constant, why_not_exclusive

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["set_weights", "weights_of", "why_not_foldable", "why_not_storable"]


def why_not_foldable(conv: ir.Node) -> str | None:
    """Return why the weight and the bias of a convolution can't be changed, or ``None`` if they can.

    The weight must be its own; a bias that others read too stays for them.
    """
    weight, bias = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    why = why_not_constant(weight, "convolution's weight")
    if why is None and weight is not None:
        why = why_not_exclusive(weight, "convolution's weight")
    if why is None and bias is not None:
        why = why_not_constant(bias, "convolution's bias")
    return why


def weights_of(conv: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight, and the bias of shape ``(O,)`` (zeros if it has none), in float64."""
    weight = constant(conv.inputs[1])
    assert weight is not None
    bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
    return weight.astype(np.float64), np.zeros(len(weight)) if bias is None else bias.astype(np.float64)


def why_not_storable(conv: ir.Node, *weights: np.ndarray) -> str | None:
    """Return why new float64 ``weights`` do not fit the dtype of the old, or ``None`` if they do."""
    dtype = _dtype(conv)
    if all(np.isfinite(_rounded(array, dtype)).all() for array in weights):
        return None
    return f"folded into the convolution, its parameters give weights that {dtype} can't hold"


def set_weights(conv: ir.Node, weight: np.ndarray, bias: np.ndarray, *, name: str) -> None:
    """Give a convolution new weights, in the dtype of the old; ``name`` is the layer's, for new initializers."""
    dtype = _dtype(conv)
    replace_initializer(conv, 1, _rounded(weight, dtype), name=f"{name}.weight")
    replace_initializer(conv, 2, _rounded(bias, dtype), name=f"{name}.bias")


def _dtype(conv: ir.Node) -> np.dtype[Any]:
    weight = constant(conv.inputs[1])
    assert weight is not None
    return weight.dtype


def _rounded(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which the check reports
        return array.astype(dtype)
