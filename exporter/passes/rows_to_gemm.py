"""A product of many axes with a constant matrix becomes one of rows, which has INT8 kernels as Gemm.

    x B + k  =  Reshape(Reshape(x, (−1, K)) B + k, (…, M))        x of shape (…, K), B of shape (K, M)

PyTorch writes the Linear layers of sequences so. In float it gains nothing, so only quantization asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport.passes._base import NodePass
from rexport.passes._builder import Builder
from rexport.passes._graph import (
    constant,
    contents_of,
    graph_of,
    input_at,
    is_op,
    only_consumer,
    replace_node,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

__all__ = ["RowsToGemm"]


class RowsToGemm(NodePass):
    """Rewrites MatMul with a constant matrix as a product of rows."""

    summary = "turns MatMul of sequences into products of rows"

    def matches(self, node: ir.Node) -> bool:
        """Match a MatMul of more than two axes with a constant matrix."""
        weight = constant(input_at(node, 1))
        return is_op(node, "MatMul") and weight is not None and weight.ndim == 2 and len(shape_of(node.inputs[0])) > 2

    def rewrite(self, match: ir.Node) -> None:
        """Join the axes before it, and part them behind it, or behind the addition of a constant that follows."""
        source, weight, addition = match.inputs[0], match.inputs[1], only_consumer(match.outputs[0])
        assert source is not None
        rows, columns = contents_of(weight).shape
        bias = _bias(addition, columns)
        last = match if addition is None or bias is None else addition
        builder = Builder(graph_of(match), before=last, prefix=str(match.outputs[0].name))
        dtype, sizes = source.dtype, [*shape_of(source)[:-1], columns]
        joined = builder.constant("rows_shape", np.array([-1, rows]))
        result = builder.node("Reshape", [source, joined], "rows", shape=[None, rows], dtype=dtype)
        result = builder.node("MatMul", [result, weight], "product", shape=[None, columns], dtype=dtype)
        if bias is not None:
            result = builder.node(
                "Add", [result, builder.constant("bias", bias)], "sum", shape=[None, columns], dtype=dtype
            )
        replace_node(last, "Reshape", [result, _parted(builder, sizes, source)])
        if last is not match:
            graph_of(match).remove(match, safe=True)


def _bias(addition: ir.Node | None, columns: int) -> np.ndarray | None:
    """Return what an operator adds to each row, if it adds a constant, one number for all rows or one per column."""
    if addition is None or not is_op(addition, "Add"):
        return None
    array = next((array for array in map(constant, addition.inputs) if array is not None), None)
    if array is None or array.size not in (1, columns) or array.size != (array.shape[-1] if array.ndim else 1):
        return None
    return np.broadcast_to(array.reshape(-1), [columns]).copy()


def _parted(builder: Builder, sizes: Sequence[int | ir.SymbolicDim | None], source: ir.Value) -> ir.Value:
    """Return the target of a Reshape to these sizes; open ones but the last axis are those of ``source``."""
    if sum(not isinstance(size, int) for size in sizes) <= 1:
        return builder.constant("shape", np.array([size if isinstance(size, int) else -1 for size in sizes]))
    return builder.sizes(sizes, like=source)
