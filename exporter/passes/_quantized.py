"""A convolution's weight, whether it is floats or integers behind a DequantizeLinear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._graph import (
    constant,
    contents_of,
    input_at,
    producer_of,
    replace_initializer,
    why_not_constant,
    why_not_exclusive,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["change_weight", "dequantize_of", "stored", "why_not_changeable"]


def dequantize_of(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that computes ``value``, if one does."""
    return producer_of(value, "DequantizeLinear")


def stored(value: ir.Value | None) -> ir.Value | None:
    """Return the integers behind a DequantizeLinear, or ``value`` itself."""
    dequantize = dequantize_of(value)
    return dequantize.inputs[0] if dequantize else value


def why_not_changeable(conv: ir.Node) -> str | None:
    """Return why the numbers of a convolution's weight can't be changed, or ``None`` if they can."""
    weight, role = conv.inputs[1], "convolution's weight"
    numbers = stored(weight)
    return why_not_constant(numbers, role) or why_not_exclusive(numbers, role) or why_not_exclusive(weight, role)


def change_weight(conv: ir.Node, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Replace the weight of a convolution by the result of ``change``.

    ``change`` gets the stored weight of shape ``(O, I, ...)``, and the number that means zero in each output channel:
    zeros or the zero points, of shape ``(O,)`` and the same dtype.
    """
    weight, dequantize = conv.inputs[1], dequantize_of(conv.inputs[1])
    numbers = stored(weight)
    assert weight is not None
    assert numbers is not None
    old = contents_of(numbers)
    zero_point = constant(input_at(dequantize, 2)) if dequantize else None
    zeros = np.zeros(1, old.dtype) if zero_point is None else zero_point.reshape(-1)
    new = change(old, np.broadcast_to(zeros, len(old)))
    if dequantize is None:
        replace_initializer(conv, 1, new, name=str(numbers.name))
    else:
        replace_initializer(dequantize, 0, new, name=str(numbers.name))
        weight.shape = ir.Shape(new.shape)
