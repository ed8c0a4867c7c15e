"""Integers in a model: whether it computes with them, and weights that are stored so behind a DequantizeLinear."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._graph import (
    constant,
    contents_of,
    input_at,
    int_attribute,
    producer_of,
    replace_initializer,
    varying,
    why_not_constant,
    why_not_exclusive,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["change_weight", "dequantize_of", "dequantized_weight", "integer_operators", "stored", "why_not_changeable"]

_INTEGER = {
    *("QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"),
    *("QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool", "QLinearMatMul"),
    *("QLinearMul", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
}


def integer_operators(model: ir.Model) -> Counter[str]:
    """Return how many operators of each type compute with integers.

    A DequantizeLinear is none of them if the model dequantizes its pictures alone, which are pixels, or its weights
    alone, which are stored so to be small.
    """
    nodes, depending = list(model.graph.all_nodes()), varying(model.graph)
    dequantizes = [node for node in nodes if node.op_type == "DequantizeLinear"]
    if len({node.inputs[0] in depending for node in dequantizes}) < 2:
        dequantizes = []
    return Counter(node.op_type for node in nodes if node.op_type in _INTEGER or node in dequantizes)


def dequantized_weight(dequantize: ir.Node) -> np.ndarray | None:
    """Return the result of a DequantizeLinear if it is constant, with one scale or one for each of an axis."""
    numbers, scale, zero_point = (constant(input_at(dequantize, index)) for index in range(3))
    if numbers is None or scale is None or (zero_point is None and input_at(dequantize, 2) is not None):
        return None
    axis = int_attribute(dequantize, "axis", 1)
    if scale.size > 1 and (scale.ndim != 1 or scale.size != numbers.shape[axis]):
        return None  # a scale for each block
    shape = [1] * numbers.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    zeros = np.zeros(1) if zero_point is None else zero_point
    centred = numbers.astype(np.float32) - zeros.astype(np.float32).reshape(
        shape if zeros.size > 1 else [1] * numbers.ndim
    )
    return np.asarray(centred.astype(scale.dtype) * scale.reshape(shape))


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
