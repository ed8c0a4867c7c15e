"""Two Transposes in a row are one, or none.

    Transpose(Transpose(x, p), q)  =  Transpose(x, p ∘ q)

A Reshape that only moves axes of one element counts as a Transpose, which is how some exporters write it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.passes._base import RewritePass
from rexport.passes._graph import input_at, producer_of
from rexport.passes._transpose import Order, composed, is_in_order, order_of, remove_unread, reorder

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FuseTransposes"]


@dataclass(frozen=True)
class _Pair:
    first: ir.Node
    second: ir.Node
    order: Order


class FuseTransposes(RewritePass[_Pair]):
    """Lets a Transpose of a Transpose read what the first one reads; it goes if the axes are where they were."""

    summary = "makes one Transpose of two, or none"

    def match(self, node: ir.Node) -> _Pair | None:
        """Match a Transpose that reads another one; two Reshapes are none of its business."""
        first = producer_of(input_at(node, 0), "Transpose", "Reshape")
        if first is None or first.graph is not node.graph:
            return None
        before, after = order_of(first), order_of(node)
        if before is None or after is None:
            return None
        order = composed(before, after)
        is_same = first.op_type == node.op_type == "Reshape" and not is_in_order(order)
        return None if is_same else _Pair(first, node, order)

    def rewrite(self, match: _Pair) -> None:
        """Let the second one do what both did."""
        source = match.first.inputs[0]
        assert source is not None
        reorder(match.second, source, match.order)
        remove_unread(match.first)
