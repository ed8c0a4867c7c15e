"""A Relu that changes nothing goes.

For x that is never negative (a Relu's result, pooled, joined, added up …), and for a ≥ 0:

    Relu(x)              =  x
    Clip(Relu(x), a, b)  =  Clip(x, a, b)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.passes._base import RewritePass
from rexport.passes._graph import bypass, clip_bounds, is_op, why_not_bypassed
from rexport.passes._range import is_never_negative

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["RemoveRedundantRelu"]


class RemoveRedundantRelu(RewritePass["ir.Node"]):
    """Removes a Relu after what is never negative, or before nothing but what cuts off more than it does."""

    summary = "a Relu that changes nothing goes"

    def match(self, node: ir.Node) -> ir.Node | None:
        """Match a Relu whose input, or whose readers, leave it nothing to do."""
        if not is_op(node, "Relu") or node.inputs[0] is None:
            return None
        return node if is_never_negative(node.inputs[0]) or _is_clipped_anyway(node.outputs[0]) else None

    def check(self, match: ir.Node) -> str | None:
        """Allow it unless both of its ends are the model's own."""
        return why_not_bypassed(match)

    def rewrite(self, match: ir.Node) -> None:
        """Let its readers read its input."""
        bypass(match)


def _is_clipped_anyway(value: ir.Value) -> bool:
    """Say whether all readers of a tensor cut off what is negative."""
    readers = [usage.node for usage in value.uses() if usage.idx == 0]
    bounds = [clip_bounds(reader) if is_op(reader, "Clip") else None for reader in readers]
    all_cut = all(limits is not None and limits[0] >= 0 for limits in bounds)
    return bool(readers) and all_cut and len(readers) == len(value.uses()) and not value.is_graph_output()
