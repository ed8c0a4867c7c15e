"""Small questions and changes that several passes have in common."""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy as np

__all__ = [
    "add_initializer",
    "axes_of",
    "bypass",
    "clip_bounds",
    "computes_in",
    "constant",
    "free_name",
    "int_attribute",
    "is_op",
    "is_rectifier",
    "name_of",
    "only_consumer",
    "remembered_names",
    "replace_initializer",
    "shape_in_words",
    "take_over",
    "varying",
    "why_not_bypassed",
    "why_not_constant",
    "why_not_exclusive",
]

_NAMES = "rexport.names"  # in the transient notes of a graph


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Say whether ``node`` is one of the standard operators named."""
    return node is not None and node.domain == "" and node.op_type in op_types


def is_rectifier(node: ir.Node | None) -> bool:
    """Say whether ``node`` is a ReLU, with or without a cap.

    Unsigned integers, and an end to them, come to the same; so an integer layer right before it does its work.
    """
    if node is None or not is_op(node, "Clip"):
        return is_op(node, "Relu")
    bounds = clip_bounds(node)
    return bounds is not None and bounds[0] == 0


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Return what a Clip limits its input to, infinite where it does not; ``None`` if that is not known now."""
    bounds = [node.attributes.get_float("min", -inf), node.attributes.get_float("max", inf)]  # inputs since opset 11
    for index, value in enumerate(node.inputs[1:]):
        array = constant(value)
        if index > 1 or (value is not None and (array is None or array.size != 1)):
            return None
        bounds[index] = bounds[index] if array is None else float(array.item())
    return bounds[0], bounds[1]


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return a value's contents if it is an initializer or the output of a Constant node, otherwise ``None``.

    An initializer that is a graph input too is a default, which a caller may change.
    """
    tensor = None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def shape_in_words(shape: Sequence[object]) -> str:
    """Return a shape as a user reads it."""
    return "×".join(map(str, shape)) or "()"


def why_not_constant(value: ir.Value | None, what: str) -> str | None:
    """Return why ``value`` (called ``what`` to the user) can't be computed with now, or ``None`` if it can."""
    if value is None:
        return f"its {what} is missing"
    if value.is_graph_input():
        return f"its {what} {value.name!r} is a graph input, so a caller may change it"
    if constant(value) is None:
        return f"its {what} {value.name!r} is computed while the model runs"
    return None


def why_not_exclusive(value: ir.Value, what: str) -> str | None:
    """Return why changing ``value`` (called ``what``) would change more than one place, or ``None``."""
    others = len(value.uses()) - 1
    if value.is_graph_output():
        return f"its {what} {value.name!r} is an output of the model"
    if others:
        return f"its {what} {value.name!r} is shared with {others} other place{'s' if others > 1 else ''}"
    return None


def varying(graph: ir.Graph, *, kept: Collection[str] = ()) -> set[ir.Value | None]:
    """Return what depends on the graph's inputs, or on the result of an operator in ``kept``."""
    values: set[ir.Value | None] = set(graph.inputs)
    for node in graph:
        if node.op_type in kept or any(value in values for value in node.inputs):
            values.update(node.outputs)
    return values


def computes_in(model: ir.Model, *dtypes: ir.DataType) -> bool:
    """Say whether anything but a Cast reads tensors of one of these types, and depends on the model's inputs.

    Weights that are stored in another type and cast to float32 are weights in float32.
    """
    for graph in model.graphs():
        depending = varying(graph)
        for node in graph:
            reads = [value for value in node.inputs if value is not None]
            # what the graph inside a node captures may be anything
            depends = graph is not model.graph or any(value in depending for value in reads)
            if depends and not is_op(node, "Cast") and any(_dtype_of(value) in dtypes for value in reads):
                return True
    return False


def _dtype_of(value: ir.Value) -> int | None:
    """Return the type of a tensor, also where a file does not say that of a Cast's result."""
    node = value.producer()
    return value.dtype if node is None or not is_op(node, "Cast") else int_attribute(node, "to", 0)


def why_not_bypassed(node: ir.Node) -> str | None:
    """Return why :func:`bypass` can't take a node out of the graph, or ``None`` if it can."""
    source, result = node.inputs[0], node.outputs[0]
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
    consumers = value.consumers()
    return consumers[0] if len(value.uses()) == 1 and not value.is_graph_output() else None


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    return node.attributes.get_int(name, default)


def axes_of(node: ir.Node) -> list[int] | None:
    """Return the axes of an operator that has them as an attribute in older opsets and as an input in newer ones."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = constant(node.inputs[1])
        return None if axes is None else [int(axis) for axis in axes.reshape(-1)]
    attribute = node.attributes.get("axes")
    return None if attribute is None else list(attribute.as_ints())


@contextmanager
def remembered_names(graph: ir.Graph) -> Iterator[None]:
    """Look all names up once and not at every :func:`free_name` inside, which would take time squared.

    Inside, every new name must come from there.
    """
    graph.meta[_NAMES] = _names_of(graph)
    try:
        yield
    finally:
        del graph.meta[_NAMES]


def free_name(graph: ir.Graph, name: str) -> str:
    """Return ``name``, or one close to it that no value or node of the graph or its subgraphs has."""
    taken: set[str | None] = graph.meta.get(_NAMES) or _names_of(graph)
    free, count = name, 0
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    taken.add(free)
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
    graph = node.graph
    assert graph is not None
    old = node.inputs[index] if index < len(node.inputs) else None
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
    assert node.graph is not None
    if old.shape is not None:
        new.shape = old.shape
    if old.type is not None:
        new.type = old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    source = new.producer()
    if source is not None and node.metadata_props:  # where in the PyTorch module the value comes from
        source.metadata_props.update(node.metadata_props)
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    graph.remove(node, safe=True)
    old.name = None
    new.name = name


def bypass(node: ir.Node) -> None:
    """Take a node out of the graph whose first output is its first input."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    if result.is_graph_output() and source.producer() is not None and not source.is_graph_output():
        take_over(result, source)
        return
    ir.convenience.replace_all_uses_with(result, source)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
