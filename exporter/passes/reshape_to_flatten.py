"""A Reshape that joins all axes behind the batch is Flatten, whatever arithmetic on shapes computes its target.

    Reshape(x, (N, C·H·W))  =  Reshape(x, (N, −1))  =  Reshape(x, (−1, C·H·W))  =  Flatten(x, axis = 1)
    Squeeze(y, (2, 3))  =  Flatten(y, axis = 1)

for x of shape (N, C, H, W) and y of shape (N, C, 1, 1). Exporters compute ``N`` with Shape, Gather and Concat where the
batch is dynamic; Flatten needs none of it.
"""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from rexport.passes._base import NodePass
from rexport.passes._graph import axes_of, int_attribute, integers_in, is_op, producer_of, replace_node, shape_of

__all__ = ["ReshapeToFlatten"]


class ReshapeToFlatten(NodePass):
    """Rewrites a Reshape to ``(N, everything else)``, or a Squeeze to it, as Flatten."""

    summary = "turns Reshape to (batch, features) into Flatten"

    def matches(self, node: ir.Node) -> bool:
        """Match by the inferred shapes of the input and the result, or by how the target is computed."""
        if is_op(node, "Squeeze"):
            return _axes_say_so(node)
        return is_op(node, "Reshape") and (_shapes_say_so(node) or _target_says_so(node))

    def rewrite(self, match: ir.Node) -> None:
        """Put Flatten in its place."""
        source, inferred = match.inputs[0], match.outputs[0].shape
        flatten = replace_node(match, "Flatten", [source], {"axis": 1})
        if inferred is None:
            batch = shape_of(source)[:1] or (None,)
            flatten.outputs[0].shape = ir.Shape([*batch, _features(source)])


def _shapes_say_so(node: ir.Node) -> bool:
    before, after, features = shape_of(node.inputs[0]), shape_of(node.outputs[0]), _features(node.inputs[0])
    if features is None or len(after) != 2 or after[1] != features:
        return False
    return before[0] == after[0] and (isinstance(before[0], int) or before[0].value is not None)


def _target_says_so(node: ir.Node) -> bool:
    """Say whether the target is ``(0, −1)``, where 0 copies the batch, ``(−1, all features)``, or ``(batch, −1)``."""
    source, target = node.inputs[:2]
    sizes = integers_in(target)
    if sizes is not None:
        return sizes == [-1, _features(source)] or (sizes == [0, -1] and not int_attribute(node, "allowzero", 0))
    concat = producer_of(target, "Concat")
    if concat is None or len(concat.inputs) != 2:
        return False
    return integers_in(concat.inputs[1]) == [-1] and _is_batch_of(source, concat.inputs[0])


def _features(value: ir.Value | None) -> int | None:
    """Return the number of elements behind the batch, if it is known and not 0."""
    sizes = shape_of(value)[1:]
    static = [size for size in sizes if isinstance(size, int)]
    if not static or len(static) < len(sizes):
        return None
    return prod(static) or None


def _axes_say_so(node: ir.Node) -> bool:
    """Say whether a Squeeze removes all axes but the first two; then they have one element each."""
    axes, rank = axes_of(node), len(shape_of(node.inputs[0]))
    return axes is not None and rank > 2 and sorted(axis % rank for axis in axes) == list(range(2, rank))


def _is_batch_of(source: ir.Value | None, size: ir.Value | None) -> bool:
    """Say whether ``size`` is the first size of a tensor: Shape, Gather at 0, and perhaps Unsqueeze."""
    unsqueeze = producer_of(size, "Unsqueeze")
    gather = producer_of(unsqueeze.inputs[0] if unsqueeze else size, "Gather")
    if gather is None or integers_in(gather.inputs[1]) != [0]:
        return False
    shape = producer_of(gather.inputs[0], "Shape")
    return shape is not None and shape.inputs[0] is source and not shape.attributes
