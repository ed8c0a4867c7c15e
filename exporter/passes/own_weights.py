"""Layers that share a weight get copies of their own, so that weights can be changed layer by layer.

A head that is applied to several tensors has one weight and a BatchNormalization for each (RetinaNet's): folding one
into the weight would change the other layers, and a quantizer that does not fold it has one scale for channels that
differ as much as its factors do. A quantized file stores a weight for each layer anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.passes._graph import WEIGHTED, constant, contents_of, is_op, replace_initializer

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["with_own_weights"]


def with_own_weights(model: ir.Model) -> ir.Model:
    """Return the model, or a copy in which no two layers share a weight."""
    if not any(map(_shares_weight, model.graph)):
        return model
    copy = model.clone()
    for node in filter(_shares_weight, copy.graph):
        replace_initializer(node, 1, contents_of(node.inputs[1]), name=f"{node.outputs[0].name}.weight")
    return copy


def _shares_weight(node: ir.Node) -> bool:
    if not is_op(node, *WEIGHTED):
        return False
    weight = node.inputs[1]
    return weight is not None and weight.is_initializer() and constant(weight) is not None and len(weight.uses()) > 1
