"""Layers that share a weight get copies of their own, for whoever changes weights layer by layer.

A head that is applied to several tensors has one weight and a BatchNormalization for each (RetinaNet's): folding one
into the weight would change the other, and a quantizer that leaves the BatchNormalization where it is has one scale for
channels that differ as much as its factors do. A quantized file stores a weight for each layer anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.passes._graph import constant, is_op, replace_initializer

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["with_own_weights"]

_WEIGHT = 1  # the input


def with_own_weights(model: ir.Model) -> ir.Model:
    """Return the model, or a copy in which no two layers share a weight."""
    if not any(_shares_weight(node) for node in model.graph):
        return model
    copy = model.clone()
    for node in copy.graph:
        if _shares_weight(node):
            weight = constant(node.inputs[_WEIGHT])
            assert weight is not None
            replace_initializer(node, _WEIGHT, weight, name=f"{node.outputs[0].name}.weight")
    return copy


def _shares_weight(node: ir.Node) -> bool:
    weight = node.inputs[_WEIGHT] if is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul") else None
    return weight is not None and weight.is_initializer() and constant(weight) is not None and len(weight.uses()) > 1
