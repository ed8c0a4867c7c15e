"""Equal constants are stored once, and equal nodes computed once.

    v = f(x), w = f(x)  →  w = v        f a standard operator with the same attributes

Constants are equal if their bytes, shapes and types are; operators if they read the same tensors. The statistics of a
BatchNormalization in training mode stay its own, as ONNX Runtime changes them in place. This pass runs last: a weight
that two layers share can't be changed for one of them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.passes._base import GraphPass
from rexport.passes._graph import int_attribute, is_op

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.passes._base import PassResult

__all__ = ["ShareDuplicates"]

# Each run may give another result.
_RANDOM = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Multinomial", "Bernoulli", "Dropout"),
}


class ShareDuplicates(GraphPass):
    """Merges equal initializers, and equal nodes."""

    summary = "merges equal constants and equal nodes"

    def call(self, model: ir.Model) -> PassResult:
        """Look at all initializers, then at all nodes in order; ``changed`` counts those that are removed."""
        return self.result(model, changed=_share_initializers(model.graph) + _share_nodes(model.graph))


def _share_initializers(graph: ir.Graph) -> int:
    by_key: dict[object, ir.Value] = {}
    before = len(graph.initializers)
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING or value.is_graph_input() or value.is_graph_output():
            continue
        if any(_is_training(node) for node in value.consumers()):
            continue
        first = by_key.setdefault(_key_of(tensor), value)
        if first is not value:
            ir.convenience.replace_all_uses_with(value, first)
            del graph.initializers[name]
    return before - len(graph.initializers)


def _is_training(node: ir.Node) -> bool:
    return is_op(node, "BatchNormalization") and (
        bool(int_attribute(node, "training_mode", 0)) or any(value.name for value in node.outputs[1:])
    )


def _share_nodes(graph: ir.Graph) -> int:
    by_key: dict[object, ir.Node] = {}
    before = len(graph)
    for node in list(graph):
        attributes = _attributes_of(node)
        is_pure = node.domain == "" and node.op_type not in _RANDOM
        if not is_pure or attributes is None or any(value.is_graph_output() for value in node.outputs):
            continue
        results = tuple(value.name != "" for value in node.outputs)
        first = by_key.setdefault((node.op_type, attributes, tuple(map(id, node.inputs)), results), node)
        if first is not node:
            ir.convenience.replace_all_uses_with(node.outputs, first.outputs)
            graph.remove(node, safe=True)
    return before - len(graph)


def _key_of(tensor: ir.TensorProtocol) -> object:
    return tensor.dtype, tuple(tensor.shape), hashlib.sha256(tensor.tobytes()).digest()


def _attributes_of(node: ir.Node) -> Sequence[object] | None:
    """Return a node's attributes as a key; ``None`` if one of them, such as a graph, can't be part of a key."""
    attributes: list[object] = []
    for name, attribute in sorted(node.attributes.items()):
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            value = _key_of(attribute.as_tensor())
        elif isinstance(value, (list, tuple)):
            value = tuple(value)
        if attribute.is_ref() or not isinstance(value, (int, float, str, tuple)):
            return None
        attributes.append((name, attribute.type, value))
    return tuple(attributes)
