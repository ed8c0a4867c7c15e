"""Names that a person can read: nodes and tensors are called after the PyTorch module that they come from.

The exporter's own ``getitem_3`` becomes ``layer1.0.bn1``; the second call of a shared module gets ``_1``. What a
module computes on the way to its result, and what no module of its own computes, is called after where it stands and
what it is (``act.sigmoid``, ``layer1.0.add``, ``reshape``).
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx_ir as ir
    from torch import nn
    from torch.export import ExportedProgram

__all__ = ["call_name", "calls_in", "name_after_modules"]

_SCOPES = "pkg.torch.onnx.name_scopes"


def call_name(path: str, call: int) -> str:
    """Return the name of the result of a module's call, counted from 0."""
    return path if call == 0 else f"{path}_{call}"


def calls_in(program: ExportedProgram) -> dict[str, int]:
    """Return, for each node of a program by its name, which call of its module it belongs to, counted from 0."""
    calls = {}
    for node in program.graph.nodes:
        stack = list(node.meta.get("nn_module_stack", {}))
        _, _, call = stack[-1].rpartition("@") if stack else ("", "", "")
        calls[node.name] = int(call) if call.isdecimal() else 0  # the key of a first call has no "@"
    return calls


def name_after_modules(model: ir.Model, module: nn.Module, calls: Mapping[str, int]) -> None:
    """Rename the nodes of a freshly exported model, and drop what else the exporter noted of their origin.

    Those notes hold source lines and paths of the machine that ran the export: no business of a device.

    Args:
        model: As the exporter made it.
        module: What was exported.
        calls: See :func:`calls_in`.
    """
    paths = {path: any(True for _ in child.children()) for path, child in module.named_modules()}
    origins = {node: _origin(node, paths, calls) for node in model.graph}
    # the last node of a call computes its result
    results = {origin: node for node, origin in origins.items() if origin and not paths[origin[0]]}
    kept = {str(value.name) for value in [*model.graph.inputs, *model.graph.outputs]}
    taken = kept | set(model.graph.initializers)
    for (path, call), node in results.items():
        _rename(node, call_name(path, call), kept=kept, taken=taken)
    for node, origin in origins.items():
        if origin is None or results.get(origin) is not node:
            prefix = "" if origin is None else call_name(*origin) if origin in results else origin[0]
            _rename(node, f"{prefix}.{node.op_type.lower()}".removeprefix("."), kept=kept, taken=taken)
    _name_biases(model.graph, set(module.state_dict()))
    _drop_notes(model)


def _origin(node: ir.Node, paths: Collection[str], calls: Mapping[str, int]) -> tuple[str, int] | None:
    """Return the path of the module that a node computes and the number of the call, or ``None`` outside of all."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    path = scopes[-2] if len(scopes) > 1 else ""
    return (path, calls.get(scopes[-1], 0)) if path and path in paths else None


def _rename(node: ir.Node, wanted: str, *, kept: Collection[str], taken: set[str]) -> None:
    """Call a node and its results ``wanted``, or a free name close to it; the model's outputs keep theirs."""
    name, count = wanted, 0
    while name in taken and name != node.outputs[0].name:
        count += 1
        name = call_name(wanted, count)
    taken.add(name)
    node.name = name
    for index, value in enumerate(node.outputs):
        if value.name not in kept:
            value.name = name if index == 0 else f"{name}:{index}"


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


def _drop_notes(model: ir.Model) -> None:
    model.metadata_props.clear()
    for graph in [model.graph, *model.graph.subgraphs()]:
        graph.metadata_props.clear()
        for value in [*graph.inputs, *graph.initializers.values()]:
            value.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
