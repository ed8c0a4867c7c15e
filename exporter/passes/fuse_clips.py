"""Relu, Clip, Min and Max with numbers, in a row, are one Clip.

Max(x, a)  =  Clip(x, a, ∞)        Min(x, b)  =  Clip(x, −∞, b)        Relu(x)  =  Clip(x, 0, ∞)
Clip(Clip(x, a, b), c, d)  =  Clip(x, a', b')        a', b' = a and b, cut off below c and above d
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import onnx_ir as ir

from rexport.model_file import opset_of
from rexport.passes._base import RewritePass
from rexport.passes._graph import (
    add_initializer,
    clip_bounds,
    constant,
    graph_of,
    is_op,
    only_consumer,
    producer_of,
    remove_unread,
    replace_node,
    shape_of,
)

__all__ = ["FuseClips"]

_INPUTS_FROM, _OPSET = 11, 6  # of Clip's bounds, and the first with Clip as it is now
_DTYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class _Bounded:
    """A tensor that is cut off below ``low`` and above ``high``, at last by ``node``."""

    node: ir.Node
    source: ir.Value
    low: float
    high: float


class FuseClips(RewritePass[_Bounded]):
    """Rewrites Min and Max with numbers, and what cuts off one after the other, as Clip."""

    summary = "makes one Clip of Relu, Clip, Min and Max in a row"

    def match(self, node: ir.Node) -> _Bounded | None:
        """Match Min or Max with a number, or an operator with bounds that alone reads another one."""
        last = _bounded(node)
        if last is None or opset_of(graph_of(node)) < _OPSET:
            return None
        first = _bounded(last.source.producer())
        if first is None or only_consumer(last.source) is not node:
            return last if is_op(node, "Min", "Max") else None
        low, high = (min(max(bound, last.low), last.high) for bound in (first.low, first.high))
        return _Bounded(node, first.source, low, high)

    def rewrite(self, match: _Bounded) -> None:
        """Put one Clip in the place of the last operator; one before it is read no more."""
        graph, before = graph_of(match.node), match.node.inputs
        name, dtype = str(match.node.outputs[0].name), match.source.dtype
        assert dtype is not None
        bounds = {"min": match.low, "max": match.high}
        if opset_of(graph) < _INPUTS_FROM:
            replace_node(match.node, "Clip", [match.source], {k: v for k, v in bounds.items() if isfinite(v)})
        else:
            values = [
                add_initializer(graph, f"{name}.{role}", np.asarray(bound, dtype.numpy())) if isfinite(bound) else None
                for role, bound in bounds.items()
            ]
            replace_node(match.node, "Clip", [match.source, *values])
        for producer in dict.fromkeys(filter(None, map(producer_of, before))):
            remove_unread(producer)


def _bounded(node: ir.Node | None) -> _Bounded | None:
    """Return what a node cuts off, if it does that alone, and at numbers in order."""
    if not is_op(node, "Relu", "Clip", "Min", "Max"):
        return None
    if is_op(node, "Min", "Max"):
        return _bounded_by_number(node)
    source, bounds = node.inputs[0], (0.0, inf) if is_op(node, "Relu") else clip_bounds(node)
    if source is None or source.dtype not in _DTYPES or bounds is None or not bounds[0] <= bounds[1]:
        return None
    return _Bounded(node, source, *bounds)


def _bounded_by_number(node: ir.Node) -> _Bounded | None:
    if len(node.inputs) != 2:
        return None
    for source, limit in (node.inputs, node.inputs[::-1]):
        number = constant(limit)
        if source is None or number is None or number.size != 1 or constant(source) is not None:
            continue
        if number.ndim > len(shape_of(source)) or source.dtype not in _DTYPES:  # it may add axes
            continue
        bound = float(number.item())
        return _Bounded(node, source, -inf, bound) if is_op(node, "Min") else _Bounded(node, source, bound, inf)
    return None
