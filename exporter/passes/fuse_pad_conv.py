"""Pad → Conv becomes a Conv that pads: Keras and timm write the two apart.

    W ∗ pad_q(pad_p(x))  =  W ∗ pad_{p + q}(x)        zeros around the picture, p of Pad and q of the convolution

All readers of the Pad must be convolutions, for else it stays and nothing is gained.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from rexport.passes._base import RewritePass
from rexport.passes._graph import is_op
from rexport.passes._pad import added_pads, padding_of, rank_of, why_not_around, why_not_fixed

__all__ = ["FusePadConv"]


@dataclass(frozen=True)
class _PadConvs:
    pad: ir.Node
    convs: tuple[ir.Node, ...]
    rank: int


class FusePadConv(RewritePass[_PadConvs]):
    """Moves zeros that a Pad puts around a picture into the convolutions that read it."""

    summary = "Pad → Conv becomes Conv"

    def match(self, node: ir.Node) -> _PadConvs | None:
        """Match a Pad that one convolution at least reads, as its picture, and of which the number of axes is known."""
        if not is_op(node, "Pad") or node.inputs[0] is None:
            return None
        convs = [usage.node for usage in node.outputs[0].uses() if is_op(usage.node, "Conv") and usage.idx == 0]
        rank = rank_of(node)
        return _PadConvs(node, tuple(convs), rank) if convs and rank is not None else None

    def check(self, match: _PadConvs) -> str | None:
        """Allow zeros around the picture alone, which no one but convolutions that say how they pad reads."""
        why = why_not_fixed(match.pad, match.rank)
        if why is not None:
            return why
        result = match.pad.outputs[0]
        if result.is_graph_output():
            return f"its result {result.name!r} is an output of the model"
        if len(result.uses()) > len(match.convs):
            return f"its result {result.name!r} is read by other operators than convolutions too"
        padding = padding_of(match.pad, match.rank)
        if padding.value:
            return f"it pads with {padding.value:g}, and a convolution pads with zeros"
        why = why_not_around(padding)
        if why is None and any(
            conv.attributes.get_string("auto_pad", "NOTSET").startswith("SAME") for conv in match.convs
        ):
            why = "the convolution after it works out its own padding from the picture's size (auto_pad)"
        return why

    def rewrite(self, match: _PadConvs) -> None:
        """Add the widths to those of the convolutions, and let them read what the Pad reads."""
        padding = padding_of(match.pad, match.rank)
        graph, source = match.pad.graph, match.pad.inputs[0]
        assert graph is not None
        for conv in match.convs:
            conv.attributes.pop("auto_pad", None)
            conv.attributes.add(ir.AttrInt64s("pads", added_pads(conv, padding)))
            conv.replace_input_with(0, source)
        graph.remove(match.pad, safe=True)
