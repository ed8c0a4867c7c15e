"""An AveragePool over the whole picture is GlobalAveragePool, which fits pictures of any size.

    AveragePool(x, kernel_shape = (H, W))  =  GlobalAveragePool(x)        x of shape (N, C, H, W)

One window without padding is all there is room for, whatever the strides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._graph import is_op, take_over

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AveragePoolToGlobal"]


class AveragePoolToGlobal(RewritePass["ir.Node"]):
    """Rewrites an AveragePool whose one window is the whole picture."""

    summary = "AveragePool over all pixels becomes GlobalAveragePool"

    def match(self, node: ir.Node) -> ir.Node | None:
        """Match an AveragePool whose kernel is as large as the picture, if its size is known."""
        if not is_op(node, "AveragePool") or node.inputs[0] is None or node.inputs[0].shape is None:
            return None
        kernel: Sequence[object] = node.attributes.get_ints("kernel_shape", [])
        pads = [*node.attributes.get_ints("pads", []), *(d - 1 for d in node.attributes.get_ints("dilations", []))]
        spread = any(pads) or node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        return node if list(kernel) == list(node.inputs[0].shape[2:]) and not spread else None

    def check(self, match: ir.Node) -> str | None:  # noqa: ARG002
        """Allow it always: the sizes were compared."""
        return None

    def rewrite(self, match: ir.Node) -> None:
        """Put GlobalAveragePool in its place."""
        pool = ir.node(
            "GlobalAveragePool", match.inputs[:1], name=match.name, metadata_props=dict(match.metadata_props)
        )
        assert match.graph is not None
        match.graph.insert_before(match, pool)
        take_over(match.outputs[0], pool.outputs[0])
