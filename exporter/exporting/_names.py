"""Readable names: nodes and tensors are called after the PyTorch module that they come from.

The exporter's own ``getitem_3`` becomes ``layer1.0.bn1``; the second call of a shared module gets ``_1``. Nodes that do
not compute the result of a module are called after the module around them and their operator (``act.sigmoid``,
``layer1.0.add``, ``reshape``).
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import onnx_ir as ir

from rexport.passes._graph import input_at, is_op

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from torch import nn
    from torch.export import ExportedProgram

__all__ = ["call_name", "calls_in", "name_after_modules", "name_tensors", "output_names"]

_SCOPES = "pkg.torch.onnx.name_scopes"


def call_name(path: str, call: int) -> str:
    """Return the name of the result of a module's call, counted from 0."""
    return path if call == 0 else f"{path}_{call}"


def calls_in(program: ExportedProgram) -> dict[str, int]:
    """Return the number of the module's call, counted from 0, that each node of a program belongs to, by its name."""
    calls = {}
    for node in program.graph.nodes:
        keys = ["", *list(node.meta.get("nn_module_stack", {}))]
        _, _, call = keys[-1].rpartition("@")
        calls[node.name] = int(call) if call.isdecimal() else 0  # the key of a first call has no "@"
    return calls


def output_names(results: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """Return the names of a network's results by those of the outputs that they become.

    A result may be called as an input or a weight, whose names are ``taken``; a file's tensors have different names.
    """
    return {f"{name}_out" if name in taken else name: name for name in results}


def name_tensors(graph: ir.Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Let each input and output be a value of its own, also where an input is returned, or a tensor twice."""
    values = list(graph.inputs)
    for index, value in enumerate(graph.outputs):
        if value in values:
            copy = ir.node("Identity", [value])
            graph.append(copy)
            copied = copy.outputs[0]
            copied.shape, copied.type = value.shape, value.type
            graph.outputs[index] = copied
        values.append(graph.outputs[index])
    for value in values:  # the exporter calls an input as the output that it is
        value.name = None
    for value, name in zip(values, [*inputs, *outputs], strict=True):
        value.name = name


def name_after_modules(model: ir.Model, module: nn.Module, calls: Mapping[str, int]) -> None:
    """Rename the nodes of a freshly exported model, and drop the exporter's other notes on their origin.

    Those notes hold source lines and paths of the machine that ran the export, which devices must not see.

    Args:
        model: The model as the exporter made it.
        module: The exported module.
        calls: See :func:`calls_in`.
    """
    paths = {path: any(True for _ in child.children()) for path, child in module.named_modules()}
    origins = {node: _origin(node, paths, calls) for node in model.graph}
    # the last node of a call computes its result
    results = {origin: node for node, origin in origins.items() if origin and not paths[origin[0]]}
    fixed = {str(value.name) for value in [*model.graph.inputs, *model.graph.outputs]}
    used = fixed | set(model.graph.initializers)
    for (path, call), node in results.items():
        _rename(node, call_name(path, call), fixed=fixed, used=used)
    for node, origin in origins.items():
        if origin is None:
            _rename(node, node.op_type.lower(), fixed=fixed, used=used)
        elif results.get(origin) is not node:
            prefix = call_name(*origin) if origin in results else origin[0]
            _rename(node, f"{prefix}.{node.op_type.lower()}", fixed=fixed, used=used)
    _name_biases(model.graph, set(module.state_dict()))
    _drop_notes(model)


def _origin(node: ir.Node, paths: Collection[str], calls: Mapping[str, int]) -> tuple[str, int] | None:
    """Return the path of the module that a node belongs to and the number of the call, or ``None`` outside of all."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    if len(scopes) < 2 or not scopes[-2] or scopes[-2] not in paths:
        return None
    return scopes[-2], calls.get(scopes[-1], 0)


def _rename(node: ir.Node, base: str, *, fixed: Collection[str], used: set[str]) -> None:
    """Call a node and its results ``base``, or a free name close to it; the model's outputs keep theirs."""
    name, count = base, 0
    while name in used and name != node.outputs[0].name:
        count += 1
        name = call_name(base, count)
    used.add(name)
    node.name = name
    for index, value in enumerate(node.outputs):
        if value.name not in fixed:
            value.name = f"{name}:{index}" if index else name


def _name_biases(graph: ir.Graph, state_keys: Collection[str]) -> None:
    """Call a bias that the exporter made up after its layer."""
    for node in graph:
        bias, name = input_at(node, 2), f"{node.name}.bias"
        if bias is None or not is_op(node, "Conv") or name in graph.initializers:
            continue
        if bias.is_initializer() and bias.name not in state_keys:
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
