"""An AveragePool over the whole picture is GlobalAveragePool, which fits pictures of any size.

    AveragePool(x, kernel_shape = (H, W))  =  GlobalAveragePool(x)        x of shape (N, C, H, W)

Without padding there is room for one window only, whatever the strides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.passes._base import NodePass
from rexport.passes._graph import is_op, replace_node, shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["AveragePoolToGlobal"]


class AveragePoolToGlobal(NodePass):
    """Rewrites an AveragePool whose one window is the whole picture."""

    summary = "turns AveragePool over all pixels into GlobalAveragePool"

    def matches(self, node: ir.Node) -> bool:
        """Match an AveragePool whose kernel is as large as the picture, if its size is known."""
        if not is_op(node, "AveragePool"):
            return False
        kernel = node.attributes.get_ints("kernel_shape", [])
        pads = [*node.attributes.get_ints("pads", []), *(d - 1 for d in node.attributes.get_ints("dilations", []))]
        spread = any(pads) or node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        return bool(kernel) and tuple(kernel) == shape_of(node.inputs[0])[2:] and not spread

    def rewrite(self, match: ir.Node) -> None:
        """Put GlobalAveragePool in its place."""
        replace_node(match, "GlobalAveragePool", match.inputs[:1])
