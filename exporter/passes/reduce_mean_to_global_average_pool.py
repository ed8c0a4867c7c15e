"""ReduceMean over height and width is GlobalAveragePool, for which the runtimes have INT8 kernels.

    ReduceMean(x, axes = (2, 3), keepdims = 1)  =  GlobalAveragePool(x)        x of shape (N, C, H, W)

and with ``keepdims = 0`` a Flatten follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._graph import constant, int_attribute, is_op, take_over

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ReduceMeanToGlobalAveragePool"]


class ReduceMeanToGlobalAveragePool(RewritePass["ir.Node"]):
    """Rewrites the mean over a picture's pixels as GlobalAveragePool."""

    summary = "ReduceMean over height and width becomes GlobalAveragePool"

    def match(self, node: ir.Node) -> ir.Node | None:
        """Match a ReduceMean over the last two axes of a four-dimensional tensor."""
        if not is_op(node, "ReduceMean") or node.inputs[0] is None or node.inputs[0].shape is None:
            return None
        axes = _axes(node)
        is_pixels = axes is not None and sorted(int(axis) % 4 for axis in axes) == [2, 3]
        return node if is_pixels and len(node.inputs[0].shape) == 4 else None

    def check(self, match: ir.Node) -> str | None:
        """Allow it always: the two are one function."""
        return None

    def rewrite(self, match: ir.Node) -> None:
        """Put GlobalAveragePool, and Flatten where the dimensions are not kept, in its place."""
        source, result, graph = match.inputs[0], match.outputs[0], match.graph
        assert source is not None
        assert source.shape is not None
        assert graph is not None
        pool = ir.node(
            "GlobalAveragePool", [source], name=match.name, metadata_props=dict(match.metadata_props)
        )
        pool.outputs[0].shape = ir.Shape([*source.shape[:2], 1, 1])
        pool.outputs[0].type = source.type
        new = [pool]
        if not int_attribute(match, "keepdims", 1):
            pool.outputs[0].name = f"{result.name}_pooled"
            new.append(
                ir.node("Flatten", [pool.outputs[0]], {"axis": 1}, metadata_props=dict(match.metadata_props))
            )
        graph.insert_before(match, new)
        take_over(result, new[-1].outputs[0])


def _axes(node: ir.Node) -> Sequence[int] | None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:  # an input since opset 18
        axes = constant(node.inputs[1])
        return None if axes is None else [int(axis) for axis in np.ravel(axes)]
    attribute = node.attributes.get("axes")
    return None if attribute is None else list(attribute.as_ints())
