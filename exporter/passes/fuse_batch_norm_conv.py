"""BatchNormalization → Conv becomes one Conv, where the padding allows it.

With the BatchNormalization written as ``a x + c`` per input channel (see ``_batch_norm``):

    W ∗ (a x + c) + b  =  (W a) ∗ x + (b + Σ W c)     W'[o, i] = W[o, i] a[i],   b'[o] = b[o] + Σ_ijk W[o, i, j, k] c[i]

The sum stands for every kernel position lying inside the picture. Where the convolution pads with zeros it does
not: the zeros would have to be −c/a. So padding is allowed only where ``c = 0``. In group ``g``, ``i`` runs over
that group's input channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.passes._base import RewritePass
from rexport.passes._batch_norm import affine_of, why_not_affine
from rexport.passes._conv import set_weights, weights_of, why_not_foldable, why_not_storable
from rexport.passes._graph import int_attribute, is_op, only_consumer

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import onnx_ir as ir

__all__ = ["FuseBatchNormConv"]


@dataclass(frozen=True)
class _BatchNormConv:
    norm: ir.Node
    conv: ir.Node


class FuseBatchNormConv(RewritePass[_BatchNormConv]):
    """Folds a BatchNormalization into the convolution after it."""

    summary = "BatchNormalization → Conv becomes Conv"

    def visit_order(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """Return the nodes backwards, so that the last of several BatchNormalizations goes in first."""
        return list(reversed(graph))

    def match(self, node: ir.Node) -> _BatchNormConv | None:
        """Match a BatchNormalization whose result only one Conv reads, as its picture."""
        if not is_op(node, "BatchNormalization"):
            return None
        conv = only_consumer(node.outputs[0])
        if conv is None or not is_op(conv, "Conv") or conv.inputs[0] is not node.outputs[0]:
            return None
        return _BatchNormConv(node, conv)

    def check(self, match: _BatchNormConv) -> str | None:
        """Allow constant parameters, a weight of its own, no padding under a shift, and finite weights."""
        why = why_not_affine(match.norm) or why_not_foldable(match.conv)
        if why is None and _pads(match.conv) and affine_of(match.norm).shift.any():
            why = "the convolution after it pads with zeros, which do not commute with its shift"
        return why or why_not_storable(match.conv, *_folded(match))

    def rewrite(self, match: _BatchNormConv) -> None:
        """Scale the weight's input channels, fold the shift into the bias, and drop the BatchNormalization."""
        set_weights(match.conv, *_folded(match), name=str(match.conv.outputs[0].name))
        match.conv.replace_input_with(0, match.norm.inputs[0])
        graph = match.norm.graph
        assert graph is not None
        graph.remove(match.norm, safe=True)


def _folded(match: _BatchNormConv) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and the bias of the one convolution, in float64."""
    affine = affine_of(match.norm)
    weight, bias = weights_of(match.conv)
    groups = int_attribute(match.conv, "group", 1)
    # (groups, outputs of a group, inputs of a group, kernel positions)
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    shifts = (grouped * affine.shift.reshape(groups, 1, -1, 1)).sum(axis=(2, 3)).reshape(-1)
    return (grouped * affine.scale.reshape(groups, 1, -1, 1)).reshape(weight.shape), bias + shifts


def _pads(conv: ir.Node) -> bool:
    """Say whether a convolution reads zeros around its picture."""
    if conv.attributes.get_string("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return True
    return any(conv.attributes.get_ints("pads", []) or [])
