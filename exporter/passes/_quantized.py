"""A convolution's weight, whether it is floats or integers behind a DequantizeLinear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._graph import constant, is_op, replace_initializer, why_not_constant, why_not_exclusive

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["change_weight", "dequantize_of", "stored", "why_not_changeable"]


def dequantize_of(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that ``value`` comes from, if it does."""
    node = None if value is None else value.producer()
    return node if is_op(node, "DequantizeLinear") else None


def stored(value: ir.Value | None) -> ir.Value | None:
    """Return the integers behind a DequantizeLinear, or ``value`` itself."""
    dequantize = dequantize_of(value)
    return value if dequantize is None else dequantize.inputs[0]


def why_not_changeable(conv: ir.Node) -> str | None:
    """Return why the numbers of a convolution's weight can't be changed, or ``None`` if they can."""
    weight, what = conv.inputs[1], "convolution's weight"
    numbers = stored(weight)
    why = why_not_constant(numbers, what)
    for value in (numbers, weight):
        if why is None and value is not None:
            why = why_not_exclusive(value, what)
    return why


def change_weight(conv: ir.Node, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Give a convolution the weight that ``change`` makes of its old one, and of what stands for zero in it.

    ``change`` gets the stored weight of shape ``(O, I, ...)``, and what stands for zero in each output channel: zeros
    or the zero points, of shape ``(O,)`` and the same dtype.
    """
    weight = conv.inputs[1]
    numbers = stored(weight)
    old = constant(numbers)
    assert weight is not None
    assert numbers is not None
    assert old is not None
    dequantize = dequantize_of(weight)
    zero_point = None if dequantize is None or len(dequantize.inputs) < 3 else constant(dequantize.inputs[2])
    zeros = np.zeros(1, old.dtype) if zero_point is None else zero_point.reshape(-1)
    new = change(old, np.broadcast_to(zeros, len(old)))
    if dequantize is None:
        replace_initializer(conv, 1, new, name=str(numbers.name))
    else:
        replace_initializer(dequantize, 0, new, name=str(numbers.name))
        weight.shape = ir.Shape(new.shape)
