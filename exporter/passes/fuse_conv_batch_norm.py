"""Conv → BatchNormalization becomes one Conv.

With the BatchNormalization written as ``y = a x + c`` per channel (see ``_batch_norm``), for ``x = W ∗ z + b``:

    a (W ∗ z + b) + c  =  (a W) ∗ z + (a b + c)        W'[o] = a[o] W[o],   b'[o] = a[o] b[o] + c[o]

It holds per output channel, so groups, strides, padding and dilation do not matter (Jacob et al. 2017,
arXiv:1712.05877, section 3.2). Several BatchNormalizations in a row go in one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rexport.passes._base import RewritePass
from rexport.passes._batch_norm import affine_of, rounded, why_not_affine, why_not_finite
from rexport.passes._graph import (
    constant,
    is_op,
    replace_initializer,
    take_over,
    why_not_constant,
    why_not_exclusive,
)

if TYPE_CHECKING:
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
        weight = match.conv.inputs[1]
        why = (
            why_not_affine(match.norm)
            or why_not_exclusive(match.conv.outputs[0], "convolution's result")
            or why_not_constant(weight, "convolution's weight")
        )
        if why is None and weight is not None:
            why = why_not_exclusive(weight, "convolution's weight")
        if why is None and len(match.conv.inputs) > 2 and match.conv.inputs[2] is not None:
            why = why_not_constant(match.conv.inputs[2], "convolution's bias")
        return why or why_not_finite(*_folded(match))

    def rewrite(self, match: _ConvBatchNorm) -> None:
        """Scale the weight, fold the shift into the bias, and drop the BatchNormalization."""
        weight, bias = _folded(match)
        name = str(match.norm.outputs[0].name)
        replace_initializer(match.conv, 1, weight, name=f"{name}.weight")
        replace_initializer(match.conv, 2, bias, name=f"{name}.bias")
        take_over(match.norm.outputs[0], match.conv.outputs[0])


def _folded(match: _ConvBatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and the bias of the one convolution; computed in float64, in the weight's dtype."""
    conv, affine = match.conv, affine_of(match.norm)
    weight = constant(conv.inputs[1])
    assert weight is not None
    bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
    per_output = affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
    new_bias = affine.shift if bias is None else affine.scale * bias.astype(np.float64) + affine.shift
    return rounded(weight.astype(np.float64) * per_output, weight.dtype), rounded(new_bias, weight.dtype)
