"""Conv → BatchNormalization becomes one Conv.

With the BatchNormalization written as ``y = a x + c`` per channel (see ``_batch_norm``), for ``x = W ∗ z + b``:

    a (W ∗ z + b) + c  =  (a W) ∗ z + (a b + c)        W'[o] = a[o] W[o],   b'[o] = a[o] b[o] + c[o]

It holds per output channel, so groups, strides, padding and dilation do not matter (Jacob et al. 2017,
arXiv:1712.05877, section 3.2). Several BatchNormalizations in a row go in one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.passes._base import RewritePass
from rexport.passes._batch_norm import affine_of, why_not_affine
from rexport.passes._conv import set_weights, weights_of, why_not_foldable, why_not_storable
from rexport.passes._graph import is_op, take_over, why_not_exclusive

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["FuseConvBatchNorm"]


@dataclass(frozen=True)
class _ConvBatchNorm:
    conv: ir.Node
    norm: ir.Node


class FuseConvBatchNorm(RewritePass[_ConvBatchNorm]):
    """Folds a BatchNormalization into the convolution before it."""

    summary = "Conv → BatchNormalization becomes Conv"

    def match(self, node: ir.Node) -> _ConvBatchNorm | None:
        """Match a BatchNormalization that reads a Conv."""
        if not is_op(node, "BatchNormalization") or node.inputs[0] is None:
            return None
        conv = node.inputs[0].producer()
        return _ConvBatchNorm(conv, node) if conv is not None and is_op(conv, "Conv") else None

    def check(self, match: _ConvBatchNorm) -> str | None:
        """Allow constant parameters, a weight of its own, a result that nobody else reads, and finite weights."""
        return (
            why_not_affine(match.norm)
            or why_not_exclusive(match.conv.outputs[0], "convolution's result")
            or why_not_foldable(match.conv)
            or why_not_storable(match.conv, *_folded(match))
        )

    def rewrite(self, match: _ConvBatchNorm) -> None:
        """Scale the weight, fold the shift into the bias, and drop the BatchNormalization."""
        set_weights(match.conv, *_folded(match), name=str(match.norm.outputs[0].name))
        take_over(match.norm.outputs[0], match.conv.outputs[0])


def _folded(match: _ConvBatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and the bias of the one convolution, in float64."""
    affine = affine_of(match.norm)
    weight, bias = weights_of(match.conv)
    per_output = affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
    return weight * per_output, affine.scale * bias + affine.shift
