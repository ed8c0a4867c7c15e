"""What cuts off below zero and nowhere else is Relu, which runs as part of the convolution before it.

    Clip(x, 0, ∞)  =  Max(x, 0)  =  Relu(x)

A limit at the largest number of the type is none: exporters write it for the end that is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._graph import clip_bounds, constant, is_op, take_over

__all__ = ["ClipToRelu"]

_DTYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class _Cut:
    node: ir.Node
    source: ir.Value


class ClipToRelu(RewritePass[_Cut]):
    """Rewrites Clip and Max as Relu."""

    summary = "Clip(x, 0, ∞) and Max(x, 0) become Relu"

    def match(self, node: ir.Node) -> _Cut | None:
        """Match what cuts off floats below 0 alone."""
        source = _cut_at_zero(node)
        return _Cut(node, source) if source is not None and source.dtype in _DTYPES else None

    def check(self, match: _Cut) -> str | None:  # noqa: ARG002
        """Allow it always: the limits were compared."""
        return None

    def rewrite(self, match: _Cut) -> None:
        """Put Relu in its place."""
        node = match.node
        assert node.graph is not None
        relu = ir.node("Relu", [match.source], name=node.name, metadata_props=dict(node.metadata_props))
        node.graph.insert_before(node, relu)
        take_over(node.outputs[0], relu.outputs[0])


def _cut_at_zero(node: ir.Node) -> ir.Value | None:
    """Return the tensor of which a node cuts off what is below 0, and nothing else."""
    if is_op(node, "Clip"):
        source, bounds = node.inputs[0], clip_bounds(node)
        is_relu = source is not None and bounds is not None and bounds[0] == 0 and bounds[1] >= _largest(source)
        return source if is_relu else None
    if is_op(node, "Max") and len(node.inputs) == 2:
        for source, other in (node.inputs, node.inputs[::-1]):
            zero = constant(other)
            if source is not None and zero is not None and zero.size == 1 and zero.item() == 0:
                rank = 0 if source.shape is None else len(source.shape)
                return source if zero.ndim <= rank else None  # else it has more axes than the tensor
    return None


def _largest(value: ir.Value) -> float:
    return float(np.finfo(value.dtype.numpy()).max) if value.dtype in _DTYPES and value.dtype is not None else inf
