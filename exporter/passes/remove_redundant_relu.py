"""A Relu that changes nothing is removed.

For x that is never negative (a Relu's result, pooled, joined, added up …), and for a ≥ 0:

    Relu(x)              =  x
    Clip(Relu(x), a, b)  =  Clip(x, a, b)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.passes._base import BypassPass
from rexport.passes._graph import clip_bounds, is_op
from rexport.passes._range import is_never_negative

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["RemoveRedundantRelu"]


class RemoveRedundantRelu(BypassPass):
    """Removes a Relu of a tensor that is never negative, or one that only a Clip reads which cuts off as much."""

    summary = "removes a Relu that changes nothing"

    def matches(self, node: ir.Node) -> bool:
        """Match a Relu whose input, or whose readers, leave it nothing to do."""
        if not is_op(node, "Relu") or node.inputs[0] is None:
            return False
        return is_never_negative(node.inputs[0]) or _is_clipped_anyway(node.outputs[0])


def _is_clipped_anyway(value: ir.Value) -> bool:
    """Say whether all readers of a tensor cut off negative numbers."""
    bounds = [clip_bounds(reader) for reader, index in value.uses() if is_op(reader, "Clip") and index == 0]
    all_cut = all(limits is not None and limits[0] >= 0 for limits in bounds)
    return bool(bounds) and all_cut and len(bounds) == len(value.uses()) and not value.is_graph_output()
