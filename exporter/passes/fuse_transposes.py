"""Two Transposes in a row are one, or none.

    Transpose(Transpose(x, p), q)  =  Transpose(x, p ∘ q)

A Reshape that only moves axes of one element counts as a Transpose, which is how some exporters write it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.passes._base import RewritePass
from rexport.passes._graph import input_at, producer_of
from rexport.passes._transpose import composed, is_in_order, join, order_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FuseTransposes"]


@dataclass(frozen=True)
class _Pair:
    first: ir.Node
    second: ir.Node


class FuseTransposes(RewritePass[_Pair]):
    """Lets a Transpose of a Transpose read what the first one reads; it goes if the axes are where they were."""

    summary = "makes one Transpose of two, or none"

    def match(self, node: ir.Node) -> _Pair | None:
        """Match a Transpose that reads another one, or two Reshapes that undo each other."""
        first = producer_of(input_at(node, 0), "Transpose", "Reshape")
        if first is None or first.graph is not node.graph:
            return None
        before, after = order_of(first), order_of(node)
        if before is None or after is None:
            return None
        are_reshapes = first.op_type == node.op_type == "Reshape"
        return None if are_reshapes and not is_in_order(composed(before, after)) else _Pair(first, node)

    def rewrite(self, match: _Pair) -> None:
        """Let the second one do what both did."""
        join(match.first, match.second)
