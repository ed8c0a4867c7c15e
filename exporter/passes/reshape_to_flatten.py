"""A Reshape that joins all axes behind the batch is Flatten, whatever arithmetic on shapes feeds it.

    Reshape(x, (N, C·H·W))  =  Reshape(x, (N, −1))  =  Reshape(x, (−1, C·H·W))  =  Flatten(x, axis = 1)
    Squeeze(y, (2, 3))  =  Flatten(y, axis = 1)

for x of shape (N, C, H, W) and y of shape (N, C, 1, 1). Exporters compute ``N`` with Shape, Gather and Concat where the
batch is dynamic; Flatten needs none of it.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._graph import axes_of, constant, int_attribute, is_op, take_over

__all__ = ["ReshapeToFlatten"]

if TYPE_CHECKING:
    from collections.abc import Sequence


class ReshapeToFlatten(RewritePass["ir.Node"]):
    """Rewrites a Reshape to ``(N, everything else)``, or a Squeeze to it, as Flatten."""

    summary = "Reshape to (batch, features) becomes Flatten"

    def match(self, node: ir.Node) -> ir.Node | None:
        """Match by the inferred shapes of what goes in and comes out, or by how the target is computed."""
        if not is_op(node, "Reshape", "Squeeze") or node.inputs[0] is None:
            return None
        if is_op(node, "Squeeze"):
            return node if _axes_say_so(node) else None
        return node if _shapes_say_so(node) or _target_says_so(node) else None

    def check(self, match: ir.Node) -> str | None:  # noqa: ARG002
        """Allow it always: the shapes were compared."""
        return None

    def rewrite(self, match: ir.Node) -> None:
        """Put Flatten in its place."""
        flatten = ir.node(
            "Flatten", [match.inputs[0]], {"axis": 1}, name=match.name, metadata_props=dict(match.metadata_props)
        )
        source = match.inputs[0]
        batch = None if source is None or source.shape is None else source.shape[0]
        flatten.outputs[0].shape = ir.Shape([batch, _features(source)])  # if nobody knows better
        assert match.graph is not None
        match.graph.insert_before(match, flatten)
        take_over(match.outputs[0], flatten.outputs[0])


def _shapes_say_so(node: ir.Node) -> bool:
    source = node.inputs[0]
    before, after = None if source is None else source.shape, node.outputs[0].shape
    if before is None or after is None or len(before) < 2 or len(after) != 2:
        return False
    features: Sequence[object] = before[1:]
    sizes = [size for size in features if isinstance(size, int)]
    known = len(sizes) == len(features) and after[1] == prod(sizes)
    return known and before[0] == after[0] and (isinstance(before[0], int) or before[0].value is not None)


def _target_says_so(node: ir.Node) -> bool:
    """Say whether the target is ``(0, −1)``, where 0 copies the batch, ``(−1, all features)``, or ``(batch, −1)``."""
    source, target = node.inputs[:2]
    fixed = constant(target)
    if fixed is not None:
        copies = [0, -1] if not int_attribute(node, "allowzero", 0) else None
        return fixed.tolist() in (copies, [-1, _features(source)])
    concat = None if target is None else target.producer()
    if concat is None or not is_op(concat, "Concat") or len(concat.inputs) != 2:
        return False
    rest = constant(concat.inputs[1])
    return rest is not None and rest.tolist() == [-1] and _is_batch(concat.inputs[0], of=source)


def _features(value: ir.Value | None) -> int | None:
    """Return the number of elements behind the batch, if it is known and not 0."""
    sizes: Sequence[object] = [] if value is None or value.shape is None else value.shape[1:]
    known = [size for size in sizes if isinstance(size, int)]
    return prod(known) or None if known and len(known) == len(sizes) else None


def _axes_say_so(node: ir.Node) -> bool:
    """Say whether a Squeeze takes all axes away but the first two; then they have one element each."""
    source = node.inputs[0]
    axes = axes_of(node)
    if source is None or source.shape is None or axes is None:
        return False
    rank = len(source.shape)
    return rank > 2 and sorted(axis % rank for axis in axes) == list(range(2, rank))


def _is_batch(value: ir.Value | None, *, of: ir.Value | None) -> bool:
    """Say whether ``value`` is the first size of a tensor: Shape, Gather at 0, and perhaps Unsqueeze."""
    node = None if value is None else value.producer()
    if node is not None and is_op(node, "Unsqueeze") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or not is_op(node, "Gather") or node.inputs[0] is None:
        return False
    index, shape = constant(node.inputs[1]), node.inputs[0].producer()
    is_first = index is not None and index.size == 1 and index.item() == 0
    return is_first and shape is not None and is_op(shape, "Shape") and shape.inputs[0] is of and not shape.attributes
