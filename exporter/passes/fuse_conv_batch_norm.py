"""Conv → BatchNormalization becomes one Conv.

With the BatchNormalization written as ``y = a x + c`` per channel (see ``_batch_norm``), for ``x = W ∗ z + b``:

    a (W ∗ z + b) + c  =  (a W) ∗ z + (a b + c)        W'[o] = a[o] W[o],   b'[o] = a[o] b[o] + c[o]

It holds per output channel, so groups, strides, padding and dilation do not matter (Jacob et al. 2017,
arXiv:1712.05877, section 3.2), and holds for a ConvTranspose and a Gemm too, as it does for the multiplication by a
constant and the addition of one (see ``_affine``). Several in a row are folded one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.passes._affine import affine_of, mapped_by, why_not_affine
from rexport.passes._base import RewritePass
from rexport.passes._conv import kind_of, scaled, set_weights, weights_of, why_not_foldable, why_not_storable
from rexport.passes._graph import is_op, only_consumer, producer_of, take_over, why_not_exclusive

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["FuseConvBatchNorm"]


@dataclass(frozen=True)
class _ConvBatchNorm:
    layer: ir.Node
    norm: ir.Node


class FuseConvBatchNorm(RewritePass[_ConvBatchNorm]):
    """Folds a BatchNormalization, or a constant factor or summand per channel, into the layer before it."""

    summary = "fuses BatchNormalization into the Conv before it"

    def match(self, node: ir.Node) -> _ConvBatchNorm | None:
        """Match a BatchNormalization that reads a layer, or arithmetic with a constant that alone reads one."""
        value = mapped_by(node)
        layer = producer_of(value, "Conv", "ConvTranspose", "Gemm")
        if value is None or layer is None or not (is_op(node, "BatchNormalization") or only_consumer(value) is node):
            return None
        return _ConvBatchNorm(layer, node)

    def check(self, match: _ConvBatchNorm) -> str | None:
        """Allow constant parameters, a weight of its own, a result that nobody else reads, and finite weights."""
        return (
            why_not_exclusive(match.layer.outputs[0], f"{kind_of(match.layer)}'s result")
            or why_not_foldable(match.layer)
            or _why_not_affine(match)
            or why_not_storable(match.layer, *_folded(match))
        )

    def rewrite(self, match: _ConvBatchNorm) -> None:
        """Scale the weight, fold the shift into the bias, and drop the BatchNormalization."""
        set_weights(match.layer, *_folded(match), name=str(match.norm.outputs[0].name))
        take_over(match.norm.outputs[0], match.layer.outputs[0])


def _why_not_affine(match: _ConvBatchNorm) -> str | None:
    weight, bias = weights_of(match.layer)
    return why_not_affine(match.norm, channels=len(bias), rank=weight.ndim)


def _folded(match: _ConvBatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and the bias of the one layer, in float64."""
    weight, bias = weights_of(match.layer)
    affine = affine_of(match.norm, channels=len(bias), rank=weight.ndim)
    return scaled(match.layer, weight, affine.scale), affine.scale * bias + affine.shift
