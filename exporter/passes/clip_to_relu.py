"""A Clip or Max at zero alone is Relu, which runs as part of the convolution before it.

    Clip(x, 0, ∞)  =  Max(x, 0)  =  Relu(x)

The largest number of the type counts as infinity: exporters write it for an open end.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._graph import clip_bounds, constant, is_op, replace_node, shape_of

__all__ = ["ClipToRelu"]

_DTYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class _Cut:
    node: ir.Node
    source: ir.Value


class ClipToRelu(RewritePass[_Cut]):
    """Rewrites Clip and Max as Relu."""

    summary = "turns Clip(x, 0, ∞) and Max(x, 0) into Relu"

    def match(self, node: ir.Node) -> _Cut | None:
        """Match an operator that cuts off floats below 0 and nowhere else."""
        source = _cut_at_zero(node)
        return _Cut(node, source) if source is not None and source.dtype in _DTYPES else None

    def rewrite(self, match: _Cut) -> None:
        """Put Relu in its place."""
        replace_node(match.node, "Relu", [match.source])


def _cut_at_zero(node: ir.Node) -> ir.Value | None:
    """Return the tensor that a node cuts off below 0, if it does nothing else."""
    if is_op(node, "Clip"):
        source, bounds = node.inputs[0], clip_bounds(node)
        if source is not None and bounds is not None and bounds[0] == 0 and bounds[1] >= _largest(source):
            return source
    if is_op(node, "Max") and len(node.inputs) == 2:
        for source, limit in (node.inputs, node.inputs[::-1]):
            zero = constant(limit)
            if zero is None or zero.ndim > len(shape_of(source)):  # or it would add axes to the tensor
                continue
            if zero.size == 1 and zero.item() == 0:
                return source
    return None


def _largest(value: ir.Value) -> float:
    if value.dtype is None or value.dtype not in _DTYPES:
        return inf
    return float(np.finfo(value.dtype.numpy()).max)
