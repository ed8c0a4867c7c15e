"""Names that a person can read: nodes and tensors are called after the PyTorch module that they come from.

The exporter's own ``getitem_3`` becomes ``layer1.0.bn1``; the second call of a shared module gets ``_1``, and what
no module of its own computes is called after where it stands and what it is (``layer1.0.add``, ``flatten``).
"""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir
    from torch import nn

__all__ = ["call_name", "name_after_modules"]

_SCOPES = "pkg.torch.onnx.name_scopes"


def call_name(path: str, call: int) -> str:
    """Return the name of the result of a module's call, counted from 0."""
    return path if call == 0 else f"{path}_{call}"


def name_after_modules(model: ir.Model, module: nn.Module) -> None:
    """Rename the nodes of a freshly exported model, and drop what else the exporter noted of their origin.

    Those notes hold source lines and paths of the machine that ran the export: no business of a device.
    """
    leaves = {path for path, child in module.named_modules() if path and not any(child.children())}
    kept = {str(value.name) for value in [*model.graph.inputs, *model.graph.outputs]}
    calls: Counter[str] = Counter()
    for node in model.graph:
        name = _origin(node, leaves)
        node.name = call_name(name, calls[name])
        calls[name] += 1
        for index, value in enumerate(node.outputs):
            if value.name not in kept:
                value.name = node.name if index == 0 else f"{node.name}:{index}"
        for key in [key for key in node.metadata_props if key.startswith("pkg.torch.")]:
            del node.metadata_props[key]
    _name_biases(model.graph, set(module.state_dict()))


def _origin(node: ir.Node, leaves: Collection[str]) -> str:
    """Return the path of the module that a node computes, or that of the one around it and the operator."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    path = scopes[-2] if len(scopes) > 1 else ""
    operator = node.op_type.lower()
    if path in leaves:
        return str(path)
    return f"{path}.{operator}" if path else operator


def _name_biases(graph: ir.Graph, state_keys: Collection[str]) -> None:
    """Call a bias that the exporter made up after its layer."""
    for node in graph:
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None
        name = f"{node.name}.bias"
        if (
            bias is not None
            and bias.is_initializer()
            and bias.name not in state_keys
            and name not in graph.initializers
        ):
            bias.name = name
