"""A Reshape that joins all axes behind the batch is Flatten, whatever arithmetic on shapes feeds it.

    Reshape(x, (N, C·H·W))  =  Flatten(x, axis = 1)        x of shape (N, C, H, W)

Exporters compute ``N`` with Shape, Gather and Concat where the batch is dynamic; Flatten needs none of it.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._graph import is_op, take_over

__all__ = ["ReshapeToFlatten"]

if TYPE_CHECKING:
    from collections.abc import Sequence


class ReshapeToFlatten(RewritePass["ir.Node"]):
    """Rewrites a Reshape to ``(N, everything else)`` as Flatten."""

    summary = "Reshape to (batch, features) becomes Flatten"

    def match(self, node: ir.Node) -> ir.Node | None:
        """Match by the inferred shapes of what goes in and comes out."""
        if not is_op(node, "Reshape") or node.inputs[0] is None:
            return None
        before, after = node.inputs[0].shape, node.outputs[0].shape
        if before is None or after is None or len(before) < 2 or len(after) != 2:
            return None
        features: Sequence[object] = before[1:]
        sizes = [size for size in features if isinstance(size, int)]
        known = len(sizes) == len(features) and after[1] == prod(sizes)
        same_batch = before[0] == after[0] and (isinstance(before[0], int) or before[0].value is not None)
        return node if known and same_batch else None

    def check(self, match: ir.Node) -> str | None:
        """Allow it always: the shapes were compared."""
        return None

    def rewrite(self, match: ir.Node) -> None:
        """Put Flatten in its place."""
        flatten = ir.node(
            "Flatten",
            [match.inputs[0]],
            {"axis": 1},
            name=match.name,
            metadata_props=dict(match.metadata_props),
        )
        assert match.graph is not None
        match.graph.insert_before(match, flatten)
        take_over(match.outputs[0], flatten.outputs[0])
