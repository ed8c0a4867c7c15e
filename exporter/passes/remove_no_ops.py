"""Operators that do not change their tensor are removed: exporters write them where some other tensor needs them.

    x[0:]        pad(x, 0)        reshape(x, shape of x)        transpose(x, (0, 1, …))        concat(x)        sum(x)
    x + 0        x − 0        x · 1        x / 1        x ^ 1

Only constants and static shapes count: no size is assumed, however usual it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport.passes._base import BypassPass
from rexport.passes._graph import constant, is_op, shape_of
from rexport.passes._pad import padding_of, rank_of, why_not_fixed
from rexport.passes._slice import slices_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

__all__ = ["RemoveNoOps"]


class RemoveNoOps(BypassPass):
    """Removes Slice, Pad, Reshape, Flatten, Transpose, Cast, arithmetic and joining that pass an input on."""

    summary = "removes no-ops"

    def matches(self, node: ir.Node) -> bool:
        """Match an operator that is known to do nothing."""
        if not is_op(node, *_NO_OPS) or node.inputs[0] is None:
            return False
        return _NO_OPS[node.op_type](node, node.inputs[0])

    def passed_on(self, node: ir.Node) -> int:
        """Return 1 for 1 · x and 0 + x."""
        return int(is_op(node, *_COMMUTATIVE) and constant(node.inputs[0]) is not None)


def _takes_all(node: ir.Node, source: ir.Value) -> bool:
    shape = shape_of(source)
    parts = slices_of(node, len(shape))
    return parts is not None and all(part.every(shape[part.axis]) == 1 for part in parts)


def _pads_nothing(node: ir.Node, _source: ir.Value) -> bool:
    rank = rank_of(node)
    return rank is not None and not why_not_fixed(node, rank) and not padding_of(node, rank).axes


def _keeps_the_shape(node: ir.Node, source: ir.Value) -> bool:
    """Say whether all sizes but perhaps one are the same; that one is too then, as the number of elements is."""
    before, after = shape_of(source), shape_of(node.outputs[0])
    if not before or len(before) != len(after):
        return False
    same = [isinstance(size, int) and 0 < size == new_size for size, new_size in zip(before, after, strict=True)]
    return sum(same) >= len(before) - 1


def _keeps_the_order(node: ir.Node, _source: ir.Value) -> bool:
    order = node.attributes.get_ints("perm")
    return order is not None and list(order) == sorted(order)


def _keeps_the_type(node: ir.Node, source: ir.Value) -> bool:
    return source.dtype is not None and int(source.dtype) == node.attributes.get_int("to")


def _computes_nothing(node: ir.Node, _source: ir.Value) -> bool:
    """Say whether a number that changes nothing is added or multiplied, in a shape that does not enlarge the tensor."""
    values = [value for value in node.inputs if value is not None]
    if is_op(node, *_COMMUTATIVE) and constant(values[0]) is not None:
        values.reverse()
    if len(values) != 2 or constant(values[0]) is not None or (operand := constant(values[1])) is None:
        return False
    if operand.ndim and values[0].shape is None:
        return False
    shape = shape_of(values[0])
    fits = all(size in (1, own) for size, own in zip(operand.shape[::-1], shape[::-1], strict=False))
    return fits and operand.ndim <= len(shape) and bool(np.all(operand == _NEUTRAL[node.op_type]))


def _joins_one(node: ir.Node, _source: ir.Value) -> bool:
    return len(node.inputs) == 1


_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1}
_COMMUTATIVE = ("Add", "Mul")
_NO_OPS: dict[str, Callable[[ir.Node, ir.Value], bool]] = {
    "Slice": _takes_all,
    "Pad": _pads_nothing,
    "Reshape": _keeps_the_shape,
    "Flatten": _keeps_the_shape,
    "Transpose": _keeps_the_order,
    "Cast": _keeps_the_type,
    **dict.fromkeys(_NEUTRAL, _computes_nothing),
    "Concat": _joins_one,
    "Sum": _joins_one,
    "Max": _joins_one,
    "Min": _joins_one,
    "Mean": _joins_one,
}
