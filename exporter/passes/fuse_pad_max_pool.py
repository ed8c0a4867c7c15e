"""Pad → MaxPool becomes a MaxPool that pads: Keras writes the two apart.

    max of a window of pad(x, v)  =  max of the pixels of x in it        v ≤ every x, and a pixel in every window

MaxPool's own padding never wins, and v does not either where it is no larger than any x: 0 after a ReLU, or −∞. A
window has a pixel if it is longer than the padding on either side, and has no gaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._conv import pads_the_same
from rexport.passes._graph import graph_of, is_op, only_consumer
from rexport.passes._pad import added_pads, padding_of, rank_of, why_not_around, why_not_fixed
from rexport.passes._range import is_never_negative

__all__ = ["FusePadMaxPool"]

_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class _PadMaxPool:
    pad: ir.Node
    source: ir.Value
    pool: ir.Node
    rank: int


class FusePadMaxPool(RewritePass[_PadMaxPool]):
    """Moves the border of a Pad, if it can't be the maximum, into the MaxPool that reads it."""

    summary = "fuses Pad into MaxPool"

    def match(self, node: ir.Node) -> _PadMaxPool | None:
        """Match a Pad that only one MaxPool reads."""
        if not is_op(node, "Pad") or node.inputs[0] is None:
            return None
        pool, rank = only_consumer(node.outputs[0]), rank_of(node)
        if pool is None or rank is None or not is_op(pool, "MaxPool"):
            return None
        return _PadMaxPool(node, node.inputs[0], pool, rank)

    def check(self, match: _PadMaxPool) -> str | None:
        """Allow a border no larger than any pixel, around the picture alone, and narrower than a window."""
        if refusal := why_not_fixed(match.pad, match.rank):
            return refusal
        padding, pool = padding_of(match.pad, match.rank), match.pool
        if refusal := why_not_around(padding):
            return refusal
        if padding.value > 0 or (padding.value > _LOWEST and not is_never_negative(match.source)):
            return f"it pads with {padding.value:g}, which may be larger than what is in the picture"
        if any(value.uses() or value.is_graph_output() for value in pool.outputs[1:]):
            return "the indices that the MaxPool after it gives are used"
        if pads_the_same(pool):
            return "the MaxPool after it works out its own padding from the picture's size (auto_pad)"
        if pool.attributes.get_int("ceil_mode", 0) or any(d > 1 for d in pool.attributes.get_ints("dilations", [])):
            return "the MaxPool after it has windows with gaps, or beyond the picture (dilations, ceil_mode)"
        kernel = pool.attributes.get_ints("kernel_shape", [])
        if any(width >= length for width, length in zip(added_pads(pool, padding), [*kernel, *kernel], strict=True)):
            return "a window of the MaxPool after it may lie in the padding alone"
        return None

    def rewrite(self, match: _PadMaxPool) -> None:
        """Add the widths to those of the MaxPool, and let it read what the Pad reads."""
        pool = match.pool
        pool.attributes.pop("auto_pad", None)
        pool.attributes.add(ir.AttrInt64s("pads", added_pads(pool, padding_of(match.pad, match.rank))))
        pool.replace_input_with(0, match.source)
        graph_of(match.pad).remove(match.pad, safe=True)
