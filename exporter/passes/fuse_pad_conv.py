"""Pad → Conv becomes a Conv that pads: Keras and timm write the two apart.

    W ∗ pad_q(pad_p(x))  =  W ∗ pad_{p + q}(x)        zeros around the picture, p of Pad and q of the convolution

All readers of the Pad must be convolutions; otherwise it would stay, and nothing be gained.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._conv import pads_the_same
from rexport.passes._graph import graph_of, is_op
from rexport.passes._pad import added_pads, padding_of, rank_of, why_not_around, why_not_fixed

__all__ = ["FusePadConv"]


@dataclass(frozen=True)
class _PadConvs:
    pad: ir.Node
    convs: tuple[ir.Node, ...]
    rank: int


class FusePadConv(RewritePass[_PadConvs]):
    """Moves zeros that a Pad puts around a picture into the convolutions that read it."""

    summary = "fuses Pad into Conv"

    def match(self, node: ir.Node) -> _PadConvs | None:
        """Match a Pad of a known number of axes that at least one convolution reads, as its picture."""
        if not is_op(node, "Pad") or node.inputs[0] is None:
            return None
        convs = [usage.node for usage in node.outputs[0].uses() if is_op(usage.node, "Conv") and usage.idx == 0]
        rank = rank_of(node)
        return _PadConvs(node, tuple(convs), rank) if convs and rank is not None else None

    def check(self, match: _PadConvs) -> str | None:
        """Allow zeros around the picture alone, which only convolutions with explicit padding read."""
        if refusal := why_not_fixed(match.pad, match.rank):
            return refusal
        result = match.pad.outputs[0]
        if result.is_graph_output():
            return f"its result {result.name!r} is an output of the model"
        if len(result.uses()) > len(match.convs):
            return f"its result {result.name!r} is read by other operators than convolutions too"
        padding = padding_of(match.pad, match.rank)
        if padding.value:
            return f"it pads with {padding.value:g}, and a convolution pads with zeros"
        if refusal := why_not_around(padding):
            return refusal
        if any(map(pads_the_same, match.convs)):
            return "the convolution after it works out its own padding from the picture's size (auto_pad)"
        return None

    def rewrite(self, match: _PadConvs) -> None:
        """Add the widths to those of the convolutions, and let them read what the Pad reads."""
        padding = padding_of(match.pad, match.rank)
        for conv in match.convs:
            conv.attributes.pop("auto_pad", None)
            conv.attributes.add(ir.AttrInt64s("pads", added_pads(conv, padding)))
            conv.replace_input_with(0, match.pad.inputs[0])
        graph_of(match.pad).remove(match.pad, safe=True)
