"""Small questions about graphs, and small changes to them, that several passes share."""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, TypeGuard

import onnx_ir as ir

from rexport._words import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import numpy as np

__all__ = [
    "WEIGHTED",
    "add_initializer",
    "attributes_of",
    "axes_of",
    "bypass",
    "clip_bounds",
    "computes_in",
    "constant",
    "contents_of",
    "free_name",
    "graph_of",
    "input_at",
    "inputs_of",
    "int_attribute",
    "integers_in",
    "is_op",
    "is_rectifier",
    "name_of",
    "only_consumer",
    "producer_of",
    "remembered_names",
    "remove_unread",
    "replace_initializer",
    "replace_node",
    "shape_in_words",
    "shape_of",
    "take_over",
    "type_in_words",
    "varying",
    "why_not_bypassed",
    "why_not_constant",
    "why_not_exclusive",
]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators of layers, whose second input is a weight."""
_NAMES = "rexport.names"  # in the transient notes of a graph


def is_op(node: ir.Node | None, *op_types: str) -> TypeGuard[ir.Node]:
    """Say whether ``node`` is one of the standard operators named."""
    return node is not None and node.domain == "" and node.op_type in op_types


def graph_of(node: ir.Node) -> ir.Graph:
    """Return the graph that a node is in; it must be in one."""
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input of a node, ``None`` if the node has fewer or leaves it out."""
    return node.inputs[index] if index < len(node.inputs) else None


def inputs_of(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of a node but for those that it leaves out."""
    return [value for value in node.inputs if value is not None]


def producer_of(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that computes ``value``; with ``op_types``, only if it is one of these standard operators."""
    producer = value.producer() if value else None
    return producer if not op_types or is_op(producer, *op_types) else None


def shape_of(value: ir.Value | None) -> tuple[int | ir.SymbolicDim, ...]:
    """Return the sizes of a tensor's axes, empty if they are not known (or if it has no axes)."""
    return tuple(value.shape or ()) if value else ()


def is_rectifier(node: ir.Node | None) -> TypeGuard[ir.Node]:
    """Say whether ``node`` is a ReLU, with or without a cap.

    Integers whose range begins at zero and ends at the cap do the same, so an integer layer right before it absorbs it.
    """
    if not is_op(node, "Clip"):
        return is_op(node, "Relu")
    bounds = clip_bounds(node)
    return bounds is not None and bounds[0] == 0


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Return the bounds of a Clip, infinite where it has none; ``None`` if they are computed while the model runs."""
    bounds = [node.attributes.get_float("min", -inf), node.attributes.get_float("max", inf)]  # inputs since opset 11
    for index, value in enumerate(node.inputs[1:]):
        array = constant(value)
        if index > 1 or (value is not None and (array is None or array.size != 1)):
            return None
        if array is not None:
            bounds[index] = float(array.item())
    return bounds[0], bounds[1]


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return a value's contents if it is an initializer or the output of a Constant node, otherwise ``None``.

    An initializer that is a graph input too is a default, which a caller may change.
    """
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def contents_of(value: ir.Value | None) -> np.ndarray:
    """Return the contents of a value that is known to be constant."""
    array = constant(value)
    assert array is not None
    return array


def shape_in_words(shape: Sequence[object]) -> str:
    """Return a shape as a user reads it."""
    return "×".join(map(str, shape)) or "()"


def type_in_words(value: ir.Value | None) -> str:
    """Return the type of a tensor's elements as a user reads it."""
    return value.dtype.name.lower() if value and value.dtype else "an unknown type"


def why_not_constant(value: ir.Value | None, role: str) -> str | None:
    """Return why ``value`` (the node's ``role``, as the user reads it) is not constant, or ``None`` if it is."""
    if value is None:
        return f"its {role} is missing"
    if value.is_graph_input():
        return f"its {role} {value.name!r} is a graph input, so a caller may change it"
    if constant(value) is None:
        return f"its {role} {value.name!r} is computed while the model runs"
    return None


def why_not_exclusive(value: ir.Value | None, role: str) -> str | None:
    """Return why changing ``value`` (the node's ``role``) would change more than one place, or ``None``."""
    if value is None:
        return None
    if value.is_graph_output():
        return f"its {role} {value.name!r} is an output of the model"
    if sharers := len(value.uses()) - 1:
        return f"its {role} {value.name!r} is shared with {counted(sharers, 'other place')}"
    return None


def varying(graph: ir.Graph, *, results_of: Collection[str] = ()) -> set[ir.Value | None]:
    """Return the tensors that depend on the graph's inputs, or on the result of an operator in ``results_of``."""
    values: set[ir.Value | None] = set(graph.inputs)
    for node in graph:
        if node.op_type in results_of or any(value in values for value in node.inputs):
            values.update(node.outputs)
    return values


def computes_in(model: ir.Model, *dtypes: ir.DataType) -> bool:
    """Say whether anything but a Cast reads tensors of one of these types, and depends on the model's inputs.

    Weights that are stored in another type and cast to float32 are weights in float32.
    """
    for graph in model.graphs():
        depending = varying(graph)
        for node in graph:
            reads = inputs_of(node)
            # a graph inside a node may capture any tensor
            depends = graph is not model.graph or any(value in depending for value in reads)
            if depends and not is_op(node, "Cast") and any(_dtype_of(value) in dtypes for value in reads):
                return True
    return False


def _dtype_of(value: ir.Value) -> int | None:
    """Return the type of a tensor, also of a Cast's result for which the file gives none."""
    cast = producer_of(value, "Cast")
    return int_attribute(cast, "to", 0) if cast else value.dtype


def why_not_bypassed(node: ir.Node, index: int = 0) -> str | None:
    """Return why :func:`bypass` can't take a node out of the graph, or ``None`` if it can."""
    source, result = node.inputs[index], node.outputs[0]
    if source is None:
        return "its input is missing"
    if result.is_graph_output() and (source.producer() is None or source.is_graph_output()):
        return "it gives an output of the model its name"
    return None


def name_of(node: ir.Node) -> str:
    """Return the name of a node, or that of its result where it has none."""
    return str(node.name or node.outputs[0].name)


def only_consumer(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads ``value``, or ``None`` if there are more, none, or it is a graph output."""
    if len(value.uses()) != 1 or value.is_graph_output():
        return None
    return value.consumers()[0]


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Return the values of a node's attributes by their names."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    return node.attributes.get_int(name, default)


def axes_of(node: ir.Node) -> Sequence[int] | None:
    """Return the axes of an operator that has them as an attribute in older opsets and as an input in newer ones."""
    if input_at(node, 1) is not None:
        return integers_in(node.inputs[1])
    attribute = node.attributes.get("axes")
    return attribute.as_ints() if attribute else None


def integers_in(value: ir.Value | None) -> Sequence[int] | None:
    """Return the contents of a value as one list of integers, ``None`` if it is not constant."""
    array = constant(value)
    return None if array is None else [int(number) for number in array.reshape(-1)]


@contextmanager
def remembered_names(graph: ir.Graph) -> Iterator[None]:
    """Collect all names once, and not at every :func:`free_name` inside, which would take quadratic time.

    Inside, every new name must come from :func:`free_name`.
    """
    graph.meta[_NAMES] = _names_of(graph)
    try:
        yield
    finally:
        del graph.meta[_NAMES]


def free_name(graph: ir.Graph, name: str) -> str:
    """Return ``name``, or one close to it that no value or node of the graph or its subgraphs has."""
    used: set[str | None] = graph.meta.get(_NAMES) or _names_of(graph)
    free, count = name, 0
    while free in used:
        count += 1
        free = f"{name}_{count}"
    used.add(free)
    return free


def _names_of(graph: ir.Graph) -> set[str | None]:
    names: set[str | None] = set()
    for scope in [graph, *graph.subgraphs()]:
        names.update(scope.initializers, (value.name for value in scope.inputs))
    for node in graph.all_nodes():  # ONNX Runtime wants the names of nodes to be unique too
        names.update((node.name, *(value.name for value in node.outputs)))
    return names


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register a new initializer under ``name``, or a free name close to it."""
    free = free_name(graph, name)
    tensor = ir.tensor(array, name=free)
    value = ir.Value(name=free, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_initializer(node: ir.Node, index: int, array: np.ndarray, *, name: str) -> None:
    """Give ``node`` a new constant as its input ``index`` (appended if it has fewer); the old one stays for others."""
    graph, old = graph_of(node), input_at(node, index)
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        node.replace_input_with(index, None)
        name = str(old.name)
        graph.initializers.pop(name)
        graph.meta.get(_NAMES, set()).discard(name)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, add_initializer(graph, name, array))


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let ``new`` stand wherever ``old`` stood, under ``old``'s name, and take ``old``'s node out of the graph."""
    node, name = old.producer(), old.name
    assert node is not None
    if old.shape is not None:
        new.shape = old.shape
    new.type = old.type or new.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    if source := new.producer():
        source.metadata_props.update(node.metadata_props)  # where in the PyTorch module the value comes from
    graph_of(node).remove(node, safe=True)
    old.name = None
    new.name = name


def replace_node(
    old: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None
) -> ir.Node:
    """Put a standard operator in the place of a node with one result, under its name, and return it."""
    new = ir.node(op_type, inputs, attributes, name=old.name)
    graph_of(old).insert_before(old, new)
    take_over(old.outputs[0], new.outputs[0])
    return new


def bypass(node: ir.Node, index: int = 0) -> None:
    """Take a node whose first output equals its input ``index`` out of the graph."""
    source, result = node.inputs[index], node.outputs[0]
    assert source is not None
    if result.is_graph_output() and source.producer() is not None and not source.is_graph_output():
        take_over(result, source)
        return
    ir.convenience.replace_all_uses_with(result, source)
    graph_of(node).remove(node, safe=True)


def remove_unread(node: ir.Node) -> None:
    """Take a node out of the graph if nothing reads its results."""
    if not any(value.uses() or value.is_graph_output() for value in node.outputs):
        graph_of(node).remove(node, safe=True)
