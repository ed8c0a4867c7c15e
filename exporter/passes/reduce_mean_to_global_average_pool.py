"""ReduceMean over height and width is GlobalAveragePool, for which the runtimes have INT8 kernels.

    ReduceMean(x, axes = (2, 3), keepdims = 1)  =  GlobalAveragePool(x)        x of shape (N, C, H, W)

and with ``keepdims = 0`` a Flatten follows.
"""

from __future__ import annotations

import onnx_ir as ir

from rexport.passes._base import NodePass
from rexport.passes._graph import axes_of, free_name, graph_of, int_attribute, is_op, shape_of, take_over, type_in_words

__all__ = ["ReduceMeanToGlobalAveragePool"]

_DTYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


class ReduceMeanToGlobalAveragePool(NodePass):
    """Rewrites the mean over a picture's pixels as GlobalAveragePool."""

    summary = "turns ReduceMean over height and width into GlobalAveragePool"

    def matches(self, node: ir.Node) -> bool:
        """Match a ReduceMean over the last two axes of a four-dimensional tensor."""
        if not is_op(node, "ReduceMean") or len(shape_of(node.inputs[0])) != 4:
            return False
        return sorted(axis % 4 for axis in axes_of(node) or []) == [2, 3]

    def check(self, match: ir.Node) -> str | None:
        """Allow the types that GlobalAveragePool has kernels for; there the two are one function."""
        source = match.inputs[0]
        if source is not None and source.dtype in _DTYPES:
            return None
        kind = type_in_words(source)
        return f"it averages {kind}, and ONNX Runtime's GlobalAveragePool takes float32 and float16 only"

    def rewrite(self, match: ir.Node) -> None:
        """Put GlobalAveragePool, and Flatten where the dimensions are not kept, in its place."""
        source, result, graph = match.inputs[0], match.outputs[0], graph_of(match)
        assert source is not None
        assert source.shape is not None
        pool = ir.node("GlobalAveragePool", [source], name=match.name, metadata_props=dict(match.metadata_props))
        pool.outputs[0].shape = ir.Shape([*source.shape[:2], 1, 1])
        pool.outputs[0].type = source.type
        new = [pool]
        if not int_attribute(match, "keepdims", 1):
            pool.outputs[0].name = free_name(graph, f"{result.name}_pooled")
            flatten = ir.node(
                "Flatten",
                [pool.outputs[0]],
                {"axis": 1},
                name=match.name and f"{match.name}.flatten",
                metadata_props=dict(match.metadata_props),
            )
            new.append(flatten)
        graph.insert_before(match, new)
        take_over(result, new[-1].outputs[0])
