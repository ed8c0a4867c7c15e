"""Transposes and their orders: the axes of the result, by their numbers in the tensor that is transposed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.passes._graph import bypass, is_op, remove_unread, replace_node, shape_of, why_not_bypassed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Order", "composed", "inverse", "is_in_order", "join", "order_of", "reorder"]

Order = tuple[int, ...]
"""The ``perm`` of a Transpose: axis i of the result is axis ``order[i]`` of the tensor."""


def composed(first: Order, then: Order) -> Order:
    """Return the order of two transposes, one after the other."""
    return tuple(first[axis] for axis in then)


def inverse(order: Order) -> Order:
    """Return the order that undoes ``order``."""
    return tuple(map(order.index, range(len(order))))


def is_in_order(axes: Sequence[int]) -> bool:
    """Say whether a Transpose to these axes does nothing."""
    return list(axes) == sorted(axes)


def order_of(node: ir.Node | None) -> Order | None:
    """Return the order of a Transpose, or of a Reshape that only moves axes of one element; ``None`` for others.

    Some exporters write such a Reshape where they mean a Transpose.
    """
    if is_op(node, "Reshape"):
        return _order_of_reshape(node)
    if not is_op(node, "Transpose"):
        return None
    order = node.attributes.get_ints("perm")
    if order is None:  # the other way round
        order = range(len(shape_of(node.inputs[0])))[::-1]
    return tuple(order) or None


def _order_of_reshape(node: ir.Node) -> Order | None:
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if len(before) != len(after) or before == after:
        return None
    kept, moved = _longer_than_one(before), _longer_than_one(after)
    pairs = list(zip((before[axis] for axis in kept), (after[axis] for axis in moved), strict=False))
    open_pairs = [pair for pair in pairs if not _are_equal(*pair)]
    if len(kept) != len(moved) or len(open_pairs) > 1 or any(isinstance(n, int) for pair in open_pairs for n in pair):
        return None  # of one open size on each side, the number of elements says that it is the same
    places = dict(zip(moved, kept, strict=True))
    singles = iter([axis for axis, size in enumerate(before) if size == 1])
    return tuple(places[axis] if axis in places else next(singles) for axis in range(len(after)))


def _are_equal(size: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> bool:
    return size == other and (isinstance(size, int) or size.value is not None)


def _longer_than_one(shape: Sequence[object]) -> list[int]:
    return [axis for axis, size in enumerate(shape) if size != 1]


def reorder(transpose: ir.Node, source: ir.Value, order: Order) -> None:
    """Let a node for which :func:`order_of` returns an order transpose ``source`` by another one; it goes if it can."""
    transpose.replace_input_with(0, source)
    if is_in_order(order) and why_not_bypassed(transpose) is None:
        bypass(transpose)
    elif is_op(transpose, "Transpose"):
        transpose.attributes.add(ir.AttrInt64s("perm", order))
    else:
        replace_node(transpose, "Transpose", [source], {"perm": order})


def join(first: ir.Node, second: ir.Node) -> None:
    """Let the second of two Transposes, which reads the first one, do what both do."""
    before, after, source = order_of(first), order_of(second), first.inputs[0]
    assert before is not None
    assert after is not None
    assert source is not None
    reorder(second, source, composed(before, after))
    remove_unread(first)
